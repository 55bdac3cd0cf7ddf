"""Two-stage against refining everything, on a slide with ground truth.

    python tests/benchmarks/canvas.py DATA [--copies 1] [--budget 5% 10% 20% 40%] [--model BUNDLE]

The slide: the held-out NuInsSeg patches that the bundle's card names, side by side on white, as a tiled
TIFF with levels 4 and 16 times coarser. The rival is `--refine all` on the same slide in the same run.
Beside each gap: that of the same share of tiles chosen by an oracle, who knows what each would gain, and
drawn at random.
"""

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
import tifffile
import torch
from measure import Run, dice, dice_between, overlap, run
from numpy.typing import NDArray

from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.models.bundle import SHIPPED, read_spec
from wsi_twostage.tiles import Tile
from wsi_twostage.training.data import Folder, read_folder

BORDER = 1024  # px of white around the patches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/")
    parser.add_argument("--copies", type=int, default=1, help="turn and mirror the patches: up to 8")
    parser.add_argument("--budget", nargs="*", default=["5%", "10%", "20%", "40%"])
    parser.add_argument("--model", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    image, truth = canvas(arguments.data, arguments.model, arguments.copies)
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "canvas.tiff"
        write(slide, image)
        rules = [["--refine", "all"], ["--refine", "none"], [], *(["--budget", b] for b in arguments.budget)]
        print(f"{image.shape[1]} x {image.shape[0]} px\n")
        print(
            "| rule | tiles refined | Dice to truth (%) | gap | oracle's gap | random's gap "
            "| Dice to --refine all (%) | s | speed-up |"
        )
        print("|" + "---|" * 9)
        runs: list[Run] = []
        for i, rule in enumerate(rules):
            done = run(slide, Path(folder) / f"{i}.zarr", "--model", str(arguments.model), *rule)
            runs.append(done)
            reference, found = runs[0], against(done.store, truth)
            best, share = against(reference.store, truth), done.result["refined"] / done.result["tissue"]
            gaps = [best - found]
            if i > 1:
                gaps += [best - rival for rival in rivals(runs[0].store, runs[1].store, truth, share)]
            cells = " | ".join(f"{gap:.2f}" for gap in gaps) + " | " * (3 - len(gaps))
            print(
                f"| {' '.join(rule) or 'default'} | {share:.1%} | {found:.2f} | {cells} "
                f"| {dice_between(done.store, reference.store):.2f} "
                f"| {done.wall:.1f} | {reference.wall / done.wall:.1f} |",
                flush=True,
            )


def tile_counts(
    everything: MaskPyramid, nothing: MaskPyramid, truth: NDArray[np.uint8]
) -> tuple[list[Tile], NDArray[np.float64]]:
    """The tissue tiles, and their pixels in both, in the mask, in the truth, (tiles, 2 models, 3)."""
    source, grid = everything.read_source(), everything.spec.tiles
    tiles = [tile for tile in grid if source[tile] != Source.BACKGROUND]
    counts = []
    for tile in tiles:
        box = grid.box(tile)
        counts.append([overlap(store.read(box), truth[box.slices]) for store in (nothing, everything)])
    return tiles, np.array(counts, np.float64)


def rivals(
    everything: MaskPyramid, nothing: MaskPyramid, truth: NDArray[np.uint8], share: float
) -> tuple[float, float]:
    """Dice in percent where an oracle, and where chance, chooses this share of the tissue tiles."""
    _, counts = tile_counts(everything, nothing, truth)
    level, change = dice(counts[:, 1].sum(0)) / 100, counts[:, 1] - counts[:, 0]
    gain = 2 * change[:, 0] - level * change[:, 1]  # derivative of 2 I / (P + T), times P + T
    found = []
    for order in (gain, np.random.RandomState(0).rand(len(counts))):
        chosen = np.argsort(-order, kind="stable")[: round(share * len(counts))]
        mixed = counts[:, 0].copy()
        mixed[chosen] = counts[chosen, 1]
        found.append(dice(mixed.sum(0)))
    return found[0], found[1]


def canvas(data: Path, model: Path, copies: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image (H, W, 3) and truth (H, W) of the held-out patches, row by row."""
    held_out = {f"nuinsseg/{stem}" for stem in read_spec(model).card["held_out"]["nuinsseg"]}
    patches = [sample for sample in read_folder(Folder(data / "nuinsseg")) if sample.name in held_out]
    side, pairs = patches[0].image.shape[1], []
    for turn in range(copies):
        for patch in patches:
            both = torch.cat([patch.image, patch.mask]).rot90(turn % 4, (1, 2))
            pairs.append((both if turn < 4 else both.flip(2)).permute(1, 2, 0).numpy())
    columns = math.isqrt(len(pairs))
    rows = -(-len(pairs) // columns)
    height, width = rows * side + 2 * BORDER, columns * side + 2 * BORDER
    image, truth = np.full((height, width, 3), 244, np.uint8), np.zeros((height, width), np.uint8)
    for i, pair in enumerate(pairs):
        top, left = BORDER + i // columns * side, BORDER + i % columns * side
        image[top : top + side, left : left + side] = pair[..., :3]
        truth[top : top + side, left : left + side] = pair[..., 3] > 0
    return image, truth


def write(path: Path, image: NDArray[np.uint8]) -> None:
    """A lossless tiled TIFF at 0.25 um/px with levels 1, 4 and 16."""
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for step in (1, 4, 16):
            height, width = image.shape[0] // step * step, image.shape[1] // step * step
            cells = image[:height, :width].reshape(height // step, step, width // step, step, 3)
            tiff.write(
                np.rint(cells.mean((1, 3), dtype=np.float32)).astype(np.uint8),
                tile=(256, 256),
                compression="deflate",
                photometric="rgb",
                subfiletype=int(step > 1),
                resolution=(40000 / step, 40000 / step),
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def against(store: MaskPyramid, truth: NDArray[np.uint8]) -> float:
    """Pooled Dice to the truth, in percent."""
    boxes = map(store.box, store.shards())
    return dice(sum((overlap(store.read(box), truth[box.slices]) for box in boxes), np.zeros(3, np.int64)))


if __name__ == "__main__":
    main()
