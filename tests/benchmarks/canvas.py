"""Two-stage against refining everything, on a slide with ground truth.

    python tests/benchmarks/canvas.py DATA [--columns 12] [--budget 5% 10% 20% 40%] [--model BUNDLE]

The slide: the held-out NuInsSeg patches that the bundle's card names, side by side on white, as a tiled
TIFF with a level for Model 1. The rival is `--refine all` on the same slide in the same run.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from measure import Run, dice, dice_between, overlap, run
from numpy.typing import NDArray

from wsi_twostage.mask import MaskPyramid
from wsi_twostage.models.bundle import SHIPPED, read_spec
from wsi_twostage.training.data import Folder, read_folder

BORDER = 1024  # px of white around the patches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/")
    parser.add_argument("--columns", type=int, default=12)
    parser.add_argument("--budget", nargs="*", default=["5%", "10%", "20%", "40%"])
    parser.add_argument("--model", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    image, truth = canvas(arguments.data, arguments.model, arguments.columns)
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "canvas.tiff"
        write(slide, image)
        rules = [["--refine", "all"], [], ["--refine", "none"], *(["--budget", b] for b in arguments.budget)]
        print(f"{image.shape[1]} x {image.shape[0]} px\n")
        print("| rule | tiles refined | Dice to truth (%) | gap | Dice to --refine all (%) | s | speed-up |")
        print("|---|---|---|---|---|---|---|")
        reference: Run | None = None
        for i, rule in enumerate(rules):
            done = run(slide, Path(folder) / f"{i}.zarr", "--model", str(arguments.model), *rule)
            found = against(done.store, truth)
            if reference is None:
                reference, best = done, found
            print(
                f"| {' '.join(rule) or 'default'} | {done.result['refined'] / done.result['tissue']:.1%} "
                f"| {found:.2f} | {best - found:.2f} | {dice_between(done.store, reference.store):.2f} "
                f"| {done.wall:.1f} | {reference.wall / done.wall:.1f} |",
                flush=True,
            )


def canvas(data: Path, model: Path, columns: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image (H, W, 3) and truth (H, W) of the held-out patches, row by row."""
    held_out = {f"nuinsseg/{stem}" for stem in read_spec(model).card["held_out"]["nuinsseg"]}
    patches = [sample for sample in read_folder(Folder(data / "nuinsseg")) if sample.name in held_out]
    side = patches[0].image.shape[1]
    rows = -(-len(patches) // columns)
    height, width = rows * side + 2 * BORDER, columns * side + 2 * BORDER
    image, truth = np.full((height, width, 3), 244, np.uint8), np.zeros((height, width), np.uint8)
    for i, patch in enumerate(patches):
        top, left = BORDER + i // columns * side, BORDER + i % columns * side
        image[top : top + side, left : left + side] = patch.image.permute(1, 2, 0).numpy()
        truth[top : top + side, left : left + side] = patch.mask[0].numpy() > 0
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
