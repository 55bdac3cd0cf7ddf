"""Where the tissue is: Otsu's threshold on the colourfulness of a small overview, and what is dark."""

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.tiles import TileGrid

TISSUES = ("otsu", "none")
"""What stands for the tissue where it is no file, on the command line and in a manifest."""

# Colourfulness (largest minus smallest of R, G, B; 0..255) below the first is glass however the histogram
# falls, above the second tissue: a blank slide has none, and one full of tissue is not split in two.
_GLASS, _STAINED = 9, 22
_STRONG = 30  # so colourful is ink, too, and all that is more counts as this: else ink outweighs pale tissue
# Pigment, folds and silver are dark: the largest of R, G, B is below the second, and well below that of the
# glass, which in a dim scan is dark itself. Below the first nothing was scanned.
_DARK, _DARKER = (24, 150), 0.62
_RADIUS_PX = 1  # of the smoothing box: 24 um at 8 um per pixel


def tissue_mask(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tissue of an overview, (H, W, 3) at about 8 um per pixel -> (H, W).

    Gaps up to 4 px are closed and the outline is widened by a pixel: faint edges are kept rather than lost.
    """
    red, green, blue = np.moveaxis(_box_mean(rgb, _RADIUS_PX), 2, 0)  # (H, W) each
    largest, smallest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    colourfulness = largest - smallest
    threshold = min(max(otsu(np.minimum(colourfulness, _STRONG)), _GLASS), _STAINED)
    dark = (largest > _DARK[0]) & (largest < min(_DARK[1], _DARKER * _brightest(largest)))
    dark = _dilate(_erode(dark, 1), 1)  # no lines: what was not scanned has edges
    return _erode(_dilate((colourfulness > threshold) | dark, 3), 2)


def _brightest(values: NDArray[np.uint8]) -> int:
    """What a hundredth at most is brighter than."""
    count = np.bincount(values.ravel(), minlength=256).cumsum()
    return int(np.searchsorted(count, 0.99 * count[-1]))


def otsu(values: NDArray[np.uint8]) -> int:
    """The t that parts ``values <= t`` from ``values > t`` with the largest variance between the parts."""
    count = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    level = np.arange(256)
    below, above = count.cumsum(), count.sum() - count.cumsum()
    sum_below = (count * level).cumsum()
    sum_above = sum_below[-1] - sum_below
    distance = sum_below / np.maximum(below, 1) - sum_above / np.maximum(above, 1)
    return int(np.argmax(below * above * distance**2))


def tissue_tiles(mask: NDArray[np.bool_], grid: TileGrid, scale: float) -> NDArray[np.float32]:
    """Fraction of tissue in each tile of ``grid`` -> (grid.rows, grid.cols), 0..1, by exact area.

    ``scale`` is the number of the grid's pixels per pixel of the mask. What lies past the mask's edge (the
    odd edge of a level) is like the nearest pixel of the mask.
    """
    rows = _overlap(grid.rows, grid.tile / scale, grid.height / scale, mask.shape[0])
    cols = _overlap(grid.cols, grid.tile / scale, grid.width / scale, mask.shape[1])
    fraction: NDArray[np.float32] = rows @ mask.astype(np.float32) @ cols.T
    return fraction.clip(0, 1)  # sums of float32 may end a hair above 1


def _overlap(tiles: int, tile: float, extent: float, pixels: int) -> NDArray[np.float32]:
    """Part of each tile that lies in each pixel, along an axis -> (tiles, pixels); rows sum to 1."""
    edges = np.minimum(np.arange(tiles + 1) * tile, extent)[:, None]
    begin, end = np.minimum(edges[:-1], pixels - 1), np.minimum(edges[1:], pixels)
    end = np.where(edges[:-1] >= pixels - 1, pixels, end)  # within the last pixel, or past it
    pixel = np.arange(pixels)
    length = np.maximum(np.minimum(end, pixel + 1) - np.maximum(begin, pixel), 0)  # (tiles, pixels)
    part: NDArray[np.float64] = length / length.sum(axis=1, keepdims=True)
    return part.astype(np.float32)


def _box_mean(rgb: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """Mean over a box of ``2 * radius + 1`` px, edges repeated; (H, W, C) -> (H, W, C)."""
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((radius, radius), (radius, radius), (0, 0)), mode="edge")
    size = 2 * radius + 1
    lines = np.zeros((height, *padded.shape[1:]), np.uint16)
    for offset in range(size):
        lines += padded[offset : offset + height]
    total = np.zeros(rgb.shape, np.uint16)
    for offset in range(size):
        total += lines[:, offset : offset + width]
    return (total // size**2).astype(np.uint8)


def _dilate(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Each pixel is set that has a set one within a square of ``2 * radius + 1`` px around it."""
    for axis in (0, 1):
        grown = mask.copy()
        for offset in range(1, radius + 1):
            ahead, behind = [slice(None)] * 2, [slice(None)] * 2
            ahead[axis], behind[axis] = slice(offset, None), slice(None, -offset)
            grown[tuple(ahead)] |= mask[tuple(behind)]
            grown[tuple(behind)] |= mask[tuple(ahead)]
        mask = grown
    return mask


def _erode(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """The reverse of `_dilate`; the image's border does not erode."""
    return ~_dilate(~mask, radius)
