// What stands beside the slide: facts, layers with their legends, and the row of the chosen tile.

const LAYERS = [
  ["slide", "Slide", "0"],
  ["mask", "Mask", "1"],
  ["outlines", "Outlines", "2"],
  ["uncertainty", "Uncertainty", "3"],
  ["source", "Source", "4"],
  ["grid", "Tile grid", "5"],
];
const SVG = "http://www.w3.org/2000/svg";

export const DEFAULTS = () => ({
  slide: { on: true, opacity: 100 },
  mask: { on: true, opacity: 30 },
  outlines: { on: true, opacity: 100 },
  uncertainty: { on: false, opacity: 70 },
  source: { on: false, opacity: 80 },
  grid: { on: false, opacity: 45 },
});

export const keyOf = Object.fromEntries(LAYERS.map(([name, , key]) => [key, name]));

export const element = (name, text = "", attributes = {}) => {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

const byId = (id) => document.getElementById(id);
const grouped = (number) => number.toLocaleString("en");
const percent = (share) => `${(100 * share).toFixed(share < 0.1 && share > 0 ? 1 : 0)} %`;

export function showFacts(facts, busy = false) {
  const { counts, mpp, height, width } = facts;
  const [rows, cols, scale] = facts.slide ?? [height, width, mpp];
  const refined = counts.tissue ? ` (${percent(counts.refined / counts.tissue)})` : "";
  const unreadable = counts.unreadable ? `, ${counts.unreadable} unreadable or crashed` : "";
  const millimetres = (pixels) => ((pixels * mpp) / 1000).toFixed(1);
  document.title = `${facts.name} – wsi-seg view`;
  byId("name").textContent = facts.name;
  byId("facts").textContent = [
    `${grouped(cols)} × ${grouped(rows)} px at ${+scale.toPrecision(4)} µm/px`,
    `${millimetres(width)} × ${millimetres(height)} mm`,
    `${grouped(counts.tissue)} tiles with tissue, ${grouped(counts.refined)} refined${refined}${unreadable}`,
    `${facts.model}${facts.rule ? `, ${facts.rule}` : ""}`,
  ].join("\n");
  const open = facts.complete || busy ? [] : ["Some chosen tiles still wait for Model 2; wsi-seg refine goes on with them."];
  byId("notes").replaceChildren(...[...facts.notes, ...open].map((note) => element("p", note)));
}

export function makeLayers(facts, layers, changed) {
  byId("layers").replaceChildren(...LAYERS.map(([name, title, key]) => {
    const item = element("li"), line = element("div", "", { class: "line" }), label = element("label");
    const box = element("input", "", { type: "checkbox", id: `layer-${name}` });
    const range = element("input", "", {
      type: "range", min: 5, max: 100, step: 5, id: `opacity-${name}`, "aria-label": `Opacity of ${title.toLowerCase()}`,
    });
    label.append(box, element("span", title), element("kbd", key));
    line.append(label, range);
    item.append(line, ...legend(name, facts));
    box.addEventListener("change", () => changed(name, { on: box.checked }));
    range.addEventListener("input", () => changed(name, { opacity: +range.value }));
    return item;
  }));
  showLayers(layers);
}

export function showLayers(layers) {
  for (const [name] of LAYERS) {
    const { on, opacity } = layers[name];
    byId(`layer-${name}`).checked = on;
    Object.assign(byId(`opacity-${name}`), { value: opacity, disabled: !on });
    const told = byId(`legend-${name}`);
    if (told) told.hidden = !(on || (name === "mask" && layers.outlines.on));
  }
}

function legend(name, facts) {
  const box = element("div", "", { class: "legend", id: `legend-${name}` });
  if (name === "mask") {
    box.append(...facts.classes.map(([text, colour]) => swatch(text, `rgb(${colour.join()})`)));
  } else if (name === "source") {
    box.append(...facts.sources.map(([text, colour]) => swatch(text, `rgb(${colour.join()})`)));
  } else if (name === "uncertainty") {
    const { kind, highest, scale } = facts.uncertainty;
    const marks = element("span", "", { class: "marks" });
    marks.append(...scale.filter((_, index) => index % 2 === 0).map(([u]) => element("span", String(+u.toFixed(2)))));
    const said = `Model 1’s ${kind.replace("_", " ")}: near, of each pixel; far, the mean of each tile, here up to ${highest.toFixed(2)}.`;
    box.append(heat(scale), marks, element("span", said));
  } else return [];
  return [box];
}

function drawn(name, attributes, ...parts) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...parts);
  return made;
}

function swatch(text, colour) {
  const made = element("span", "", { class: "swatch" });
  const square = drawn("rect", { width: 12, height: 12, rx: 3, fill: colour });
  made.append(drawn("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, square), element("span", text));
  return made;
}

// As it looks on glass, which is white on a dark page, too.
function heat(scale) {
  const stops = scale.map(([, [r, g, b, opacity]], index) =>
    drawn("stop", { offset: index / (scale.length - 1), "stop-color": `rgb(${r},${g},${b})`, "stop-opacity": opacity / 255 }));
  const gradient = drawn("linearGradient", { id: "heat" }, ...stops);
  const bars = ["#fff", "url(#heat)"].map((fill) => drawn("rect", { width: 100, height: 4, fill }));
  const attributes = { viewBox: "0 0 100 4", preserveAspectRatio: "none", class: "heat", "aria-hidden": "true" };
  return drawn("svg", attributes, gradient, ...bars);
}

export function showTile(told) {
  byId("no-tile").hidden = Boolean(told);
  byId("tile-title").textContent = told ? `Tile, row ${told.row}, column ${told.col}` : "Tile";
  byId("row").replaceChildren(...(told ? rows(told) : []).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

function rows(told) {
  const found = [["Source", told.source]];
  if ("uncertainty" in told) {
    found.push(["Uncertainty", told.uncertainty === null ? "not known" : told.uncertainty.toFixed(4)]);
    const chosen = told.round < 0 ? "no" : told.round === 0 ? "by the run" : `by refinement ${told.round}`;
    found.push(["Chosen for Model 2", chosen]);
    if (told.round >= 0) found.push(["Place in that order", String(told.rank + 1)]);
    if (told.disagreement !== null) found.push(["Pixels changed", percent(told.disagreement)]);
    if (told.milliseconds !== null) found.push(["Time", `${Math.round(told.milliseconds)} ms`]);
  }
  return found;
}
