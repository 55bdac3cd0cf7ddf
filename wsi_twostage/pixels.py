"""What the stages read from: anything with a size and ``read(box)``; and an image in memory as one."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import UnreadableRegion
from wsi_twostage.tiles import Box

BACKGROUND = 255  # glass: what lies outside of an image
LEAST_HOLE_PX = 16  # of the overview; a hole in the file costs no more around it


class Pixels(Protocol):
    """An RGB image that is read in boxes, each of which may reach outside of it."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def read(self, box: Box) -> NDArray[np.uint8]:
        """(box.height, box.width, 3); white outside of the image."""
        ...


@dataclass(frozen=True, eq=False)
class Image:
    """An image in memory."""

    array: NDArray[np.uint8]  # (H, W, 3)

    @property
    def height(self) -> int:
        return int(self.array.shape[0])

    @property
    def width(self) -> int:
        return int(self.array.shape[1])

    def read(self, box: Box) -> NDArray[np.uint8]:
        """(box.height, box.width, 3); white outside of the image."""
        out = np.full((box.height, box.width, 3), BACKGROUND, np.uint8)
        inside = box.clip(self.height, self.width)
        out[inside.relative_to(box).slices] = self.array[inside.slices]
        return out

    def coarser(self, ratio: int) -> "Image":
        """Means of cells of ``ratio`` x ``ratio`` px, over the part of each cell that is in the image."""
        rows, cols = range(0, self.height, ratio), range(0, self.width, ratio)
        sums = np.add.reduceat(np.add.reduceat(self.array.astype(np.float64), rows, axis=0), cols, axis=1)
        heights = np.minimum(ratio, self.height - np.asarray(rows))
        widths = np.minimum(ratio, self.width - np.asarray(cols))
        return Image(np.rint(sums / (heights[:, None] * widths)[..., None]).astype(np.uint8))


def read_around_holes(
    pixels: Pixels, box: Box, *, least: int = LEAST_HOLE_PX
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Pixels of a box (H, W, 3), black where they cannot be read, and where that is (H, W).

    What fails is read again in parts, down to ``least`` px.
    """
    try:
        return pixels.read(box), np.zeros((box.height, box.width), np.bool_)
    except UnreadableRegion:
        rgb = np.zeros((box.height, box.width, 3), np.uint8)
        holes = np.ones((box.height, box.width), np.bool_)
        edge = max(box.height, box.width) // 2
        if edge >= least:
            for part in box.parts(edge):
                inner = part.relative_to(box).slices
                rgb[inner], holes[inner] = read_around_holes(pixels, part, least=least)
        return rgb, holes
