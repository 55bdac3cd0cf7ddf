// The page: opens the world, and ties keys, panel, link and refinement to it.

import { drawMarks, scaleBar } from "./marks.js";
import { DEFAULTS, keyOf, makeLayers, showFacts, showLayers, showTile } from "./panel.js";
import { World } from "./world.js";

const byId = (id) => document.getElementById(id);
const layers = DEFAULTS();
let world, chosen = null, shown = null, refining = { busy: false };

async function ask(path, options) {
  const reply = await fetch(path, { cache: "no-store", ...options });
  if (!reply.ok) throw new Error(await reply.text());
  return reply.json();
}

const send = (path, told) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: told && JSON.stringify(told) });

let quiet;
function say(text, seconds = 6) {
  byId("said").textContent = text;
  byId("said").classList.add("on");
  clearTimeout(quiet);
  quiet = setTimeout(() => byId("said").classList.remove("on"), 1000 * seconds);
}

// Layers

function change(name, what) {
  Object.assign(layers[name], what);
  showLayers(layers);
  world.update(name);
  draw();
  remember();
}

// The view, and the link to it

function draw() {
  drawMarks(world, byId("marks"), { grid: layers.grid, chosen });
  const mpp = world.mpp(), { px, text } = scaleBar(mpp);
  byId("bar").style.width = `${px}px`;
  byId("length").textContent = text;
  const magnification = 10 / mpp; // 40 x is 0.25 um/px
  byId("magnification").textContent = `${magnification < 10 ? magnification.toPrecision(2) : Math.round(magnification)}× · ${mpp.toPrecision(3)} µm/px`;
}

function link() {
  const { row, col } = world.centre;
  const on = Object.entries(layers).filter(([, layer]) => layer.on).map(([name, layer]) => `${name}:${layer.opacity}`);
  const parts = [`row=${Math.round(row)}`, `col=${Math.round(col)}`, `mpp=${world.mpp(false).toPrecision(4)}`, `layers=${on.join()}`];
  if (chosen) parts.push(`tile=${chosen.row},${chosen.col}`);
  return `#${parts.join("&")}`;
}

function remember() {
  history.replaceState(null, "", link());
}

// What a link says; what it does not say, or says wrongly, stays as it is.
function restore() {
  const told = new URLSearchParams(location.hash.slice(1));
  if (told.has("layers")) {
    for (const layer of Object.values(layers)) layer.on = false;
    for (const part of told.get("layers").split(",")) {
      const [name, opacity] = part.split(":");
      if (Object.hasOwn(layers, name)) Object.assign(layers[name], { on: true, opacity: Math.min(Math.max(+opacity || 50, 5), 100) });
    }
  }
  const [row, col, mpp] = ["row", "col", "mpp"].map((name) => parseFloat(told.get(name)));
  const tile = (told.get("tile") ?? "").match(/^(\d{1,6}),(\d{1,6})$/);
  return { place: Number.isFinite(row) && Number.isFinite(col) && mpp > 0 ? { row, col, mpp } : null, tile: tile && { row: +tile[1], col: +tile[2] } };
}

async function copyLink() {
  remember();
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link to this view is copied.");
  } catch {
    say("The link to this view is in the address bar.");
  }
}

// Tiles

async function choose(tile) {
  const { facts } = world;
  const inside = tile && tile.row >= 0 && tile.col >= 0 && tile.row * facts.tile < facts.height && tile.col * facts.tile < facts.width;
  chosen = inside ? tile : null;
  draw();
  remember();
  try {
    const told = chosen && (await ask(`tile/${tile.row}/${tile.col}`));
    if (chosen && (told.row !== chosen.row || told.col !== chosen.col)) return; // another was chosen meanwhile
    showTile(told);
    const hidden = byId("tile").getBoundingClientRect().bottom - byId("refine").parentElement.getBoundingClientRect().top;
    if (told && hidden > 0) byId("panel").scrollBy(0, hidden);
    if (told && byId("panel").classList.contains("away")) say(`${byId("tile-title").textContent}: ${inWords(told)}`);
  } catch (error) {
    say(error.message);
  }
}

const inWords = ({ source, uncertainty }) => (uncertainty == null ? source : `${source}, uncertainty ${uncertainty.toFixed(3)}`);

// Refining

let counting;
function count() {
  clearTimeout(counting);
  counting = setTimeout(async () => {
    const box = world.box;
    try {
      shown = box ? (await ask(`shown/${box.top}/${box.left}/${box.height}/${box.width}`)).left : 0;
    } catch {
      shown = null;
    }
    showRefining();
  }, 150);
}

function showRefining() {
  const { busy, done, total } = refining;
  byId("refine").hidden = busy;
  byId("refining").hidden = !busy;
  const possible = world.facts.slide && shown > 0;
  byId("refine").disabled = !possible;
  byId("shown").textContent = !world.facts.slide ? "the slide is not here" : shown === null ? "" : shown ? `${shown} ${shown === 1 ? "tile" : "tiles"}` : "nothing left here";
  if (!busy) return;
  if (total) Object.assign(byId("progress"), { max: total, value: Math.min(done, total) });
  else byId("progress").removeAttribute("value");
  byId("at").textContent = total ? `Model 2: ${Math.min(done, total)} of ${total} tiles` : "Model 2 is being loaded …";
}

async function refine() {
  const box = world.box;
  if (!box || refining.busy || byId("refine").disabled) return;
  try {
    await take(await send("refine", box));
  } catch (error) {
    say(error.message);
  }
}

// Looks again, more often while Model 2 is at work; somebody else may refine, too.
let looking, lost = false;
async function look() {
  clearTimeout(looking);
  if (!document.hidden) {
    try {
      await take(await ask("status"));
      if (lost) say("The viewer answers again.");
      lost = false;
    } catch (error) { // a TypeError: nobody answers
      lost = true;
      say(error instanceof TypeError ? "The viewer has ended. Start wsi-seg view again." : error.message, 3600);
    }
  }
  looking = setTimeout(look, refining.busy ? 600 : 4000);
}

async function take(status) {
  const ended = refining.busy && !status.refining.busy;
  refining = status.refining;
  if (ended) say(refining.text, refining.failed ? 30 : 10);
  showRefining();
  if (status.revision !== world.facts.revision) {
    world.facts.revision = status.revision;
    const facts = await ask("facts");
    world.refresh(facts);
    showFacts(facts, refining.busy);
    count();
    if (chosen) choose(chosen);
  }
}

// Keys

function togglePanel(on = byId("panel").classList.contains("away")) {
  byId("panel").classList.toggle("away", !on);
  byId("open").setAttribute("aria-expanded", String(on));
}

const KEYS = {
  "+": () => world.zoomBy(1.5),
  "=": () => world.zoomBy(1.5),
  "-": () => world.zoomBy(1 / 1.5),
  "−": () => world.zoomBy(1 / 1.5),
  ArrowLeft: (far) => world.moveBy(-far, 0),
  ArrowRight: (far) => world.moveBy(far, 0),
  ArrowUp: (far) => world.moveBy(0, -far),
  ArrowDown: (far) => world.moveBy(0, far),
  Home: () => world.whole(),
  r: refine,
  c: copyLink,
  p: () => togglePanel(),
  h: () => byId("keys").showModal(),
  "?": () => byId("keys").showModal(),
  Escape: () => choose(null),
};

function onKey(event) {
  const typing = event.target.matches?.("input[type=range]") && /^(Arrow|Home|End|Page)/.test(event.key);
  if (event.ctrlKey || event.metaKey || event.altKey || typing || byId("keys").open) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (keyOf[key]) change(keyOf[key], { on: !layers[keyOf[key]].on });
  else if (KEYS[key]) KEYS[key](event.shiftKey ? 0.8 : 0.2);
  else return;
  event.preventDefault();
}

function listen() {
  const { osd } = world;
  osd.addHandler("update-viewport", draw);
  osd.addHandler("resize", () => { draw(); count(); });
  osd.addHandler("animation-finish", () => { remember(); count(); });
  osd.addHandler("canvas-click", ({ quick, position }) => {
    if (!quick) return;
    const { row, col } = world.toSlide(position), { tile } = world.facts;
    choose({ row: Math.floor(row / tile), col: Math.floor(col / tile) });
  });
  let failed = false;
  osd.addHandler("tile-load-failed", () => {
    if (!failed) say("A part of the picture cannot be read; it stays empty.", 12);
    failed = true;
  });
  byId("closer").addEventListener("click", KEYS["+"]);
  byId("further").addEventListener("click", KEYS["-"]);
  byId("whole").addEventListener("click", KEYS.Home);
  byId("open").addEventListener("click", KEYS.p);
  byId("help").addEventListener("click", KEYS.h);
  byId("link").addEventListener("click", copyLink);
  byId("refine").addEventListener("click", refine);
  byId("stop").addEventListener("click", () => send("stop").catch((error) => say(error.message)));
  document.addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", look);
  window.addEventListener("hashchange", () => {
    const { place, tile } = restore();
    showLayers(layers);
    Object.keys(layers).forEach((name) => world.update(name));
    if (place) world.go(place);
    choose(tile);
  });
}

async function begin() {
  const facts = await ask("facts");
  const { place, tile } = restore();
  showFacts(facts);
  makeLayers(facts, layers, change);
  world = window.world = new World(facts, layers);
  listen();
  world.osd.world.addOnceHandler("add-item", () => {
    if (place) world.go(place);
    else world.whole(true);
    if (tile) choose(tile);
    draw();
    count();
    look();
  });
}

if (matchMedia("(max-width: 760px)").matches) togglePanel(false);
begin().catch((error) => say(error.message, 3600));
