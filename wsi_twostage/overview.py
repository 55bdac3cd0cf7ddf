"""The slide at a glance: read as a whole, around what cannot be read."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import UnreadableRegion
from wsi_twostage.pixels import Pixels
from wsi_twostage.tiles import Box, TileGrid

LEAST_HOLE_PX = 16  # of the overview; a hole in the file costs no more around it


def read_around_holes(pixels: Pixels, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Pixels of a box (H, W, 3), black where they cannot be read, and where that is (H, W)."""
    try:
        return pixels.read(box), np.zeros((box.height, box.width), np.bool_)
    except UnreadableRegion:
        rgb = np.zeros((box.height, box.width, 3), np.uint8)
        holes = np.ones((box.height, box.width), np.bool_)
        edge = max(box.height, box.width) // 2
        if edge >= LEAST_HOLE_PX:
            for part in box.parts(edge):
                inner = part.relative_to(box).slices
                rgb[inner], holes[inner] = read_around_holes(pixels, part)
        return rgb, holes


def read_overview(
    pixels: Pixels, grid: TileGrid, each: Callable[[Box, NDArray[np.uint8]], None] = lambda box, rgb: None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """All of a coarse level (H, W, 3), 1 / 1000 of the slide, and where it cannot be read (H, W).

    ``each`` is called with every box of ``grid`` and its pixels.
    """
    rgb = np.empty((grid.height, grid.width, 3), np.uint8)
    holes = np.zeros(rgb.shape[:2], np.bool_)
    for box in map(grid.box, grid):
        rgb[box.slices], holes[box.slices] = read_around_holes(pixels, box)
        each(box, rgb[box.slices])
    return rgb, holes
