"""A slide with ground truth to measure on: held-out patches side by side on white.

    python tests/benchmarks/canvas.py DATA FOLDER [--copies 1]
    wsi-seg curve nuclei-he --data FOLDER -o curve.json --picture curve.png

Writes FOLDER/images/canvas.tiff, a tiled TIFF with levels 4 and 16 times coarser, its truth to
FOLDER/masks/canvas.tif, and where the patches are, as its tissue, to FOLDER/tissue/canvas.png. The
patches are those of NuInsSeg that the bundle's card names as held out.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from wsi_twostage.curves.truth import Labelled
from wsi_twostage.models.header import SHIPPED, read_spec
from wsi_twostage.training.data import Folder, read_folder

BORDER = 1024  # px of white around the patches
SIDE = 512  # px of a patch
COARSE = 16  # px of the slide per px of the tissue's image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/")
    parser.add_argument("folder", type=Path, help="where images/, masks/ and tissue/ go")
    parser.add_argument("--copies", type=int, default=1, help="turn and mirror the patches: up to 8")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    slide, truth = make(arguments.folder, arguments.data, arguments.model, arguments.copies)
    print(f"{slide.slide}: {truth.shape[1]} x {truth.shape[0]} px")


def make(
    folder: Path, data: Path, model: Path = SHIPPED, copies: int = 1
) -> tuple[Labelled, NDArray[np.uint8]]:
    """The slide with its truth and its tissue, written to ``folder``; and the truth, (H, W)."""
    image, truth = canvas(data, model, copies)
    where = np.zeros([side // COARSE for side in truth.shape], np.uint8)
    for rows, cols in places(copies * len(held_out_of(model))):
        where[rows.start // COARSE : rows.stop // COARSE, cols.start // COARSE : cols.stop // COARSE] = 255
    names = ("images/canvas.tiff", "masks/canvas.tif", "tissue/canvas.png")
    slide, mask, tissue = (folder / name for name in names)
    for path in (slide, mask, tissue):
        path.parent.mkdir(parents=True, exist_ok=True)
    write(slide, image)
    tifffile.imwrite(mask, truth, compression="deflate")
    Image.fromarray(where).save(tissue)
    return Labelled(slide, mask, tissue), truth


def canvas(data: Path, model: Path, copies: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image (H, W, 3) and truth (H, W) of the held-out patches, row by row."""
    patches = read_folder(Folder(data / "nuinsseg", only=held_out_of(model)))
    pairs = []
    for turn in range(copies):
        for patch in patches:
            both = torch.cat([patch.image, patch.mask]).rot90(turn % 4, (1, 2))
            pairs.append((both if turn < 4 else both.flip(2)).permute(1, 2, 0).numpy())
    cells = places(len(pairs))
    height, width = (max(cell[axis].stop for cell in cells) + BORDER for axis in (0, 1))
    image, truth = np.full((height, width, 3), 244, np.uint8), np.zeros((height, width), np.uint8)
    for cell, pair in zip(cells, pairs, strict=True):
        image[cell], truth[cell] = pair[..., :3], pair[..., 3] > 0
    return image, truth


def held_out_of(model: Path) -> frozenset[str]:
    """The patches of NuInsSeg that a bundle was not made with."""
    return frozenset(read_spec(model).card["held_out"]["nuinsseg"])


def places(count: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each patch."""
    columns = math.isqrt(count)
    corners = ((BORDER + i // columns * SIDE, BORDER + i % columns * SIDE) for i in range(count))
    return [(slice(top, top + SIDE), slice(left, left + SIDE)) for top, left in corners]


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


if __name__ == "__main__":
    main()
