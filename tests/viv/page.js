// A result in Viv: the overview by Viv's own layer, and over it the labels in the colours that the store names.
import { Deck, OrthographicView } from "@deck.gl/core";
import { BitmapLayer } from "@deck.gl/layers";
import { MultiscaleImageLayer, loadOmeZarr } from "@hms-dbmi/viv";
import * as zarr from "zarrita";

const url = new URL(new URLSearchParams(location.search).get("source"), location.href).href;
const show = new URLSearchParams(location.search).get("show") ?? "both";
const PIXELS = 2000; // longer side of the labels that are drawn, at most

const axes = (multiscale, level) => {
  const [scale, translation] = multiscale.datasets[level].coordinateTransformations;
  const [y, x] = scale.scale.slice(-2);
  const [top, left] = translation.translation.slice(-2);
  return { y, x, top: top - y / 2, left: left - x / 2 }; // um, of the outer corner of the first pixel
};

async function labels(image) {
  const root = zarr.root(new zarr.FetchStore(`${url}/labels/segmentation`));
  const { ome } = (await zarr.open(root, { kind: "group" })).attrs;
  for (const [level, { path }] of ome.multiscales[0].datasets.entries()) {
    const array = await zarr.open(root.resolve(path), { kind: "array" });
    const [height, width] = array.shape;
    if (Math.max(height, width) > PIXELS) continue;
    const { data } = await zarr.get(array);
    const colours = new Map(ome["image-label"].colors.map((one) => [one["label-value"], one.rgba]));
    const rgba = new Uint8ClampedArray(4 * data.length);
    data.forEach((label, i) => rgba.set(colours.get(label) ?? [0, 0, 0, 0], 4 * i));
    const own = axes(ome.multiscales[0], level);
    const left = (own.left - image.left) / image.x, top = (own.top - image.top) / image.y;
    const bounds = [left, top + (height * own.y) / image.y, left + (width * own.x) / image.x, top];
    return { image: await createImageBitmap(new ImageData(rgba, width, height)), bounds };
  }
}

async function main() {
  const { data } = await loadOmeZarr(url, { type: "multiscales" });
  const { ome } = (await zarr.open(zarr.root(new zarr.FetchStore(url)), { kind: "group" })).attrs;
  const [height, width] = data[0].shape.slice(-2);
  const layers = [
    new MultiscaleImageLayer({
      id: "image",
      loader: data,
      selections: [{ c: 0 }, { c: 1 }, { c: 2 }],
      colors: ome.omero.channels.map(({ color }) => color.match(/../g).map((byte) => parseInt(byte, 16))),
      contrastLimits: ome.omero.channels.map(({ window }) => [window.start, window.end]),
      channelsVisible: [true, true, true],
    }),
  ];
  if (show !== "image") {
    const textureParameters = { minFilter: "nearest", magFilter: "nearest" };
    layers.push(
      new BitmapLayer({ id: "labels", ...(await labels(axes(ome.multiscales[0], 0))), opacity: 0.5, textureParameters })
    );
  }
  const zoom = Math.log2(Math.min(innerWidth / width, innerHeight / height)) - 0.05;
  let frames = 0; // since all is there; what came in during the first is in the second for sure
  const deck = new Deck({
    views: new OrthographicView(),
    initialViewState: { target: [width / 2, height / 2, 0], zoom },
    controller: true,
    layers,
    onAfterRender: () => {
      frames = layers.every((layer) => layer.isLoaded) ? frames + 1 : 0;
      window.drawn = frames > 1;
      if (frames === 1) requestAnimationFrame(() => deck.redraw("once more"));
    },
  });
}

main().catch((error) => (window.failed = String(error.stack ?? error)));
