"""The slide at a glance: read as a whole, around what cannot be read."""

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.mask import MaskSpec, Shard
from wsi_twostage.pixels import Pixels, read_around_holes
from wsi_twostage.tiles import Box, Tile, TileGrid
from wsi_twostage.work import Work


def read_overview(pixels: Pixels, grid: TileGrid) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """All of a coarse level (H, W, 3), 1 / 1000 of the slide, and where it cannot be read (H, W)."""
    rgb = np.empty((grid.height, grid.width, 3), np.uint8)
    holes = np.zeros(rgb.shape[:2], np.bool_)
    for box in map(grid.box, grid):
        rgb[box.slices], holes[box.slices] = read_around_holes(pixels, box)
    return rgb, holes


def look_at(work: Work, chunk: Shard) -> NDArray[np.bool_] | bool | None:
    """Write a chunk of the overview; gives where it cannot be read, (H, W), or that this is nowhere.

    None: the run is to stop, and nothing was done.
    """
    if work.over():
        return None
    box = box_of(work.mask.spec, chunk)
    with work.watched(f"{box} of the overview"):
        rgb, holes = read_around_holes(work.overview, box)
        work.ensure_sound()
        work.mask.write_overview(box, rgb)
    return holes if holes.any() else False


def look_away(work: Work, chunk: Shard) -> bool:
    """In the place of `look_at` where that ends its workers: black, and nothing of it can be read."""
    box = box_of(work.mask.spec, chunk)
    with work.watched(f"{box} of the overview"):
        work.ensure_sound()
        work.mask.write_overview(box, np.zeros((box.height, box.width, 3), np.uint8))
    return True


def box_of(spec: MaskSpec, chunk: Shard) -> Box:
    """A chunk of the overview, in the pixels of its level."""
    return spec.overview(chunk.level).box(Tile(chunk.row, chunk.col))
