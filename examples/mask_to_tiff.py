"""Write a result's mask as a pyramidal OME-TIFF, which QuPath, OMERO and Fiji open; tile by tile.

python examples/mask_to_tiff.py slide.seg.ome.zarr mask.ome.tif
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_twostage import MaskPyramid
from wsi_twostage.tiles import TileGrid

TILE = 512


def tiles(store: MaskPyramid, level: int) -> Iterator[NDArray[np.uint8]]:
    """Full tiles of a level, row by row; beyond the edge is background."""
    grid = TileGrid(*store.shape(level), TILE)
    for tile in grid:
        full = np.zeros((TILE, TILE), np.uint8)
        box = grid.box(tile)
        full[: box.height, : box.width] = store.read(box, level)
        yield full


def main(result: Path, target: Path) -> None:
    store = MaskPyramid.open(result)
    mpp = store.spec.mpp
    scale = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp, "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    with tifffile.TiffWriter(target, bigtiff=True, ome=True) as tiff:
        for level in range(store.levels):
            extra = {"subifds": store.levels - 1, "metadata": {"axes": "YX", **scale}} if level == 0 else {}
            tiff.write(
                tiles(store, level),
                shape=store.shape(level),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="zlib",
                subfiletype=int(level > 0),
                **extra,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
