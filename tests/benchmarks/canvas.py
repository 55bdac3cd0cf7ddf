"""A slide with ground truth to measure on: held-out patches side by side on white.

    python tests/benchmarks/canvas.py DATA FOLDER [--copies 1]
    wsi-seg curve nuclei-he --data FOLDER -o curve.json --picture curve.png

Writes FOLDER/images/canvas.tiff, a tiled TIFF with levels 4 and 16 times coarser, and its truth to
FOLDER/masks/canvas.tif. The patches are those of NuInsSeg that the bundle's card names as held out.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from wsi_twostage.models.header import SHIPPED, read_spec
from wsi_twostage.training.data import Folder, read_folder

BORDER = 1024  # px of white around the patches
SIDE = 512  # px of a patch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/")
    parser.add_argument("folder", type=Path, help="where images/ and masks/ go")
    parser.add_argument("--copies", type=int, default=1, help="turn and mirror the patches: up to 8")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    image, truth = canvas(arguments.data, arguments.model, arguments.copies)
    for name in ("images", "masks"):
        (arguments.folder / name).mkdir(parents=True, exist_ok=True)
    write(arguments.folder / "images" / "canvas.tiff", image)
    tifffile.imwrite(arguments.folder / "masks" / "canvas.tif", truth, compression="deflate")
    print(f"{arguments.folder}: {image.shape[1]} x {image.shape[0]} px")


def canvas(data: Path, model: Path, copies: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image (H, W, 3) and truth (H, W) of the held-out patches, row by row."""
    held_out = frozenset(read_spec(model).card["held_out"]["nuinsseg"])
    patches = read_folder(Folder(data / "nuinsseg", only=held_out))
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
