// The viewer's world.js on a stand-in for OpenSeadragon that keeps one of its rules: what is not seen is not loaded.
// Prints, after each step, the pictures of the mask that are there: [revision, opacity].

const pictures = [];

class Picture {
  constructor({ opacity, tileSource }) {
    Object.assign(this, { opacity, full: false, waiting: [], revision: Number(tileSource.getTileUrl(0, 0, 0).split("/")[2]) });
  }
  setOpacity(opacity) { this.opacity = opacity; }
  getOpacity() { return this.opacity; }
  getFullyLoaded() { return this.full; }
  whenFullyLoaded(then) { this.waiting.push(then); }
  load() {
    if (!this.opacity || this.full) return;
    this.full = true;
    this.waiting.forEach((then) => then());
  }
}

const world = {
  getItemCount: () => pictures.length,
  getItemAt: (index) => pictures[index],
  getIndexOfItem: (item) => pictures.indexOf(item),
  removeItem: (item) => pictures.splice(pictures.indexOf(item), 1),
  setItemIndex() {},
};
const osd = {
  world,
  canvas: { setAttribute() {} },
  addTiledImage(told) {
    const item = new Picture(told);
    pictures.push(item);
    told.success({ item });
  },
};
const node = () => ({ append() {}, setAttribute() {}, classList: { add() {} }, style: {} });
globalThis.window = { OpenSeadragon: Object.assign(() => osd, { Rect: class {} }) };
globalThis.document = { head: node(), createElement: node, getElementById: node };
globalThis.matchMedia = () => ({ matches: false });

const { World } = await import("./world.js");

const NAMES = ["slide", "mask", "outlines", "uncertainty", "source"];
const facts = (revision) => ({
  revision, width: 900, height: 700,
  pyramids: Object.fromEntries(NAMES.map((name) => [name, { height: 700, width: 900, levels: 2, size: 1 }])),
});
const of_mask = () => pictures.filter((item) => item.layer === "mask");
const say = () => console.log(JSON.stringify(of_mask().map((item) => [item.revision, item.opacity])));
const load = () => [...pictures].forEach((item) => item.load());

function begin() {
  pictures.length = 0;
  const layers = Object.fromEntries(NAMES.map((name) => [name, { on: name !== "source", opacity: 30 }]));
  const made = new World(facts(1), layers);
  load();
  return [made, layers.mask];
}

{ // off while a new one is fetched, a revision meanwhile, and on again
  const [made, mask] = begin();
  made.refresh(facts(2));
  say();
  mask.on = false;
  made.update("mask");
  load();
  say();
  made.refresh(facts(3));
  say();
  mask.on = true;
  made.update("mask");
  load();
  say();
}
{ // two revisions, of which the second is there first
  const [made] = begin();
  made.refresh(facts(2));
  made.refresh(facts(3));
  of_mask().at(-1).load();
  load();
  say();
}
{ // another opacity while a new one is fetched
  const [made, mask] = begin();
  made.refresh(facts(2));
  mask.opacity = 5;
  made.update("mask");
  say();
}
