// The slide and the pictures over it, all placed in fine pixels of the mask, and the way to them.

import { element } from "./panel.js";

const OSD = window.OpenSeadragon;
const TILE = 512;
const ORDER = ["slide", "uncertainty", "source", "mask", "outlines"];

export class World {
  constructor(facts, layers) {
    this.facts = facts;
    this.layers = layers; // name -> {on, opacity}
    this.images = {}; // name -> its picture; null while a new one is fetched
    this.turns = {};
    // OpenSeadragon would write a style into the page, which the page's policy forbids; viewer.css has it.
    document.head.append(element("style", "", { "data-openseadragon-mobile-css": "" }));
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.osd = OSD({
      element: document.getElementById("slide"),
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: true,
      navigatorId: "navigator",
      navigatorAutoFade: false,
      navigatorOpacity: 1,
      preserveViewport: true,
      navigatorDisplayRegionColor: "#176b87",
      keyboardNavEnabled: false,
      animationTime: still ? 0 : 0.5,
      maxZoomPixelRatio: 6,
      minZoomImageRatio: 0.6,
      visibilityRatio: 0.3,
      imageLoaderLimit: 8,
      maxTilesPerFrame: 8,
      maxImageCacheCount: 400,
      clickTimeThreshold: Infinity, // a slow finger chooses a tile, too; what moves is a drag
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: true },
    });
    this.osd.canvas.setAttribute("role", "application");
    this.osd.canvas.setAttribute("aria-label", "Slide; arrows move, plus and minus zoom");
    ORDER.forEach((name) => this.update(name));
  }

  // A picture of a layer, as OpenSeadragon asks for its tiles: level 0 is its finest, ours is, too, but counts down.
  source(name) {
    const { height, width, levels } = this.facts.pyramids[name];
    const revision = this.facts.revision;
    const last = levels - 1;
    return {
      height, width, tileSize: TILE, minLevel: 0, maxLevel: last,
      getTileUrl: (level, col, row) => `tiles/${name}/${revision}/${last - level}/${row}/${col}`,
      // A level of an odd size has one pixel more than half of the finer one; its last tile is as large as it is.
      getTileBounds(level, col, row, inPixels) {
        const step = 2 ** (last - level);
        const size = (whole, at) => Math.min(TILE, Math.ceil(whole / step) - at * TILE);
        const w = size(width, col), h = size(height, row);
        if (inPixels) return new OSD.Rect(0, 0, w, h);
        const unit = step / width;
        return new OSD.Rect(col * TILE * unit, row * TILE * unit, w * unit, h * unit);
      },
    };
  }

  // Make the picture of a layer what `layers` says; it is fetched when it is first shown.
  update(name) {
    if (!ORDER.includes(name)) return;
    const { on, opacity } = this.layers[name];
    const shown = this.picturesOf(name);
    if (on && !shown.length) this.add(name);
    for (const item of shown) {
      if (on || item === this.images[name]) item.setOpacity(on ? opacity / 100 : 0);
      else this.osd.world.removeItem(item);
    }
  }

  // The pictures of a layer, the oldest first: while a new one is fetched there are several.
  picturesOf(name) {
    const world = this.osd.world;
    const items = Array.from({ length: world.getItemCount() }, (_, index) => world.getItemAt(index));
    return items.filter((item) => item.layer === name);
  }

  add(name) {
    const { width, size } = this.facts.pyramids[name];
    const turn = this.turn(name);
    this.images[name] = null;
    this.osd.addTiledImage({
      tileSource: this.source(name),
      x: 0, y: 0, width: (width * size) / this.facts.width,
      opacity: this.layers[name].on ? this.layers[name].opacity / 100 : 0,
      success: ({ item }) => {
        if (turn !== this.turns[name]) return this.osd.world.removeItem(item);
        item.layer = name;
        this.images[name] = item;
        this.sort();
        this.update(name);
        this.replace(name, item);
      },
    });
  }

  // The next picture of a layer; one that was asked for before is not wanted any more.
  turn(name) {
    this.turns[name] = (this.turns[name] ?? 0) + 1;
    return this.turns[name];
  }

  // The old pictures stay until the new one is there, so that nothing flickers.
  replace(name, item) {
    const remove = () => {
      const items = this.picturesOf(name);
      items.slice(0, Math.max(items.indexOf(item), 0)).forEach((old) => this.osd.world.removeItem(old));
    };
    if (item.getFullyLoaded() || item.getOpacity() === 0) remove();
    else item.whenFullyLoaded(remove);
  }

  sort() {
    const world = this.osd.world;
    const items = Array.from({ length: world.getItemCount() }, (_, index) => world.getItemAt(index));
    items.sort((a, b) => ORDER.indexOf(a.layer) - ORDER.indexOf(b.layer));
    items.forEach((item, index) => world.setItemIndex(item, index));
  }

  // The result has changed: fetch what is shown again, and forget what is not.
  refresh(facts) {
    this.facts = facts;
    for (const name of ORDER.slice(1)) {
      if (this.layers[name].on) this.add(name);
      else {
        this.turn(name);
        this.picturesOf(name).forEach((item) => this.osd.world.removeItem(item));
        this.images[name] = null;
      }
    }
  }

  get loaded() {
    const shown = ORDER.filter((name) => this.layers[name].on);
    return shown.every((name) => this.images[name]?.getFullyLoaded());
  }

  // Places: {row, col} in fine pixels; on the screen in CSS pixels from the stage's corner.
  toScreen({ row, col }) {
    const { width } = this.facts;
    return this.osd.viewport.pixelFromPoint(new OSD.Point(col / width, row / width), true);
  }

  toSlide(pixel) {
    const { x, y } = this.osd.viewport.pointFromPixel(pixel, true);
    return { row: y * this.facts.width, col: x * this.facts.width };
  }

  // Micrometres per pixel of the screen; `now`, or where it is on its way to.
  mpp(now = true) {
    const { viewport } = this.osd;
    return (this.facts.mpp * this.facts.width) / (viewport.getZoom(now) * viewport.getContainerSize().x);
  }

  get centre() {
    const { x, y } = this.osd.viewport.getCenter();
    return { row: y * this.facts.width, col: x * this.facts.width };
  }

  // What is shown, as a box of whole fine pixels inside the slide; null where none of it is.
  get box() {
    const { x, y, width, height } = this.osd.viewport.getBounds();
    const scale = this.facts.width;
    const top = Math.max(0, Math.floor(y * scale)), left = Math.max(0, Math.floor(x * scale));
    const bottom = Math.min(this.facts.height, Math.ceil((y + height) * scale));
    const right = Math.min(this.facts.width, Math.ceil((x + width) * scale));
    return bottom > top && right > left ? { top, left, height: bottom - top, width: right - left } : null;
  }

  go({ row, col, mpp }) {
    const { viewport } = this.osd;
    const { width } = this.facts;
    viewport.panTo(new OSD.Point(col / width, row / width), true);
    viewport.zoomTo((this.facts.mpp * width) / (mpp * viewport.getContainerSize().x), null, true);
  }

  zoomBy(factor) {
    this.osd.viewport.zoomBy(factor);
    this.osd.viewport.applyConstraints();
  }

  // By parts of what is shown.
  moveBy(right, down) {
    const { width, height } = this.osd.viewport.getBounds();
    this.osd.viewport.panBy(new OSD.Point(right * width, down * height));
    this.osd.viewport.applyConstraints();
  }

  // With a margin.
  whole(at_once = false) {
    const width = 1, height = this.facts.height / this.facts.width, margin = 0.03 * Math.max(width, height);
    this.osd.viewport.fitBounds(new OSD.Rect(-margin, -margin, width + 2 * margin, height + 2 * margin), at_once);
  }
}
