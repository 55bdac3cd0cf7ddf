// Open a result with Viv's loader and with zarrita, which Viv and Vizarr read by, and print what they see.
//     node read.mjs http://127.0.0.1:8000/slide.seg.ome.zarr
import { createHash } from "node:crypto";
import { loadOmeZarr } from "@vivjs/loaders";
import * as zarr from "zarrita";

const url = process.argv[2];
const digest = (data) =>
  createHash("sha256").update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)).digest("hex");

async function labels() {
  const root = zarr.root(new zarr.FetchStore(`${url}/labels/segmentation`));
  const { attrs } = await zarr.open(root, { kind: "group" });
  const levels = [];
  for (const { path } of attrs.ome.multiscales[0].datasets) {
    const { data, shape } = await zarr.get(await zarr.open(root.resolve(path), { kind: "array" }));
    levels.push({ shape, sha256: digest(data) });
  }
  return { levels, colours: attrs.ome["image-label"].colors };
}

async function image() {
  const { data, metadata } = await loadOmeZarr(url, { type: "multiscales" });
  const levels = [];
  for (const source of data) {
    const channels = [];
    for (const c of [0, 1, 2]) channels.push(digest((await source.getRaster({ selection: { c } })).data));
    levels.push({ shape: source.shape, channels });
  }
  return { levels, axes: data[0].labels, omero: metadata.omero ?? metadata.ome?.omero };
}

console.log(JSON.stringify({ labels: await labels(), image: await image() }));
