"""The levels of a slide's copy: what a worker writes of them, block by block and then shard by shard.

A block of level 0 is read once; a worker that has it writes the shards that it covers on the finest levels,
and the sums of its pixels over cells, from which the coarser levels are made at the end. Each pixel of a
level is what `Slide.view` gives at that downsample: a stored level where there is one, else the exact mean.
So a run on the copy gives the mask of a run on the slide, wherever both take the same downsample: within 10 %
`Slide.view_at` takes a level that is stored, and the copy stores all halvings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_twostage.slide import Identity, View
from wsi_twostage.slide.ome_zarr import OURS
from wsi_twostage.slide.resample import cell_sums, divide, shrink
from wsi_twostage.tiles import Box, Tile, TileGrid

BLOCK = 2048
"""Edge, in px of level 0, of what a worker holds: 12.6 MB. Its shards on levels 0, 1 and 2 are its own."""
CHUNK = 512  # px: the least that a reader decodes; a shard of level 2 is one
FINE = 3  # levels whose shards lie in one block; the others are made from its sums, of 8 x 8 px: 16 bits


@dataclass(frozen=True, eq=False)
class Pyramid:
    """The levels to write, and what they are made from."""

    root: Path
    views: tuple[View, ...]
    """The slide at downsamples 1, 2, 4, ..."""
    slide: Identity
    """As the copy says whose it is."""

    def read(self, index: int, box: Box) -> NDArray[np.uint8]:
        """Pixels of a view, (H, W, 3); SlideError also where they are those of another slide."""
        pixels = self.views[index].read(box)
        self.slide.ensure_same()
        return pixels

    def level(self, index: int) -> zarr.Array[Any]:
        return self._array(str(index))

    def state(self, name: str) -> zarr.Array[Any]:
        return self._array(f"{OURS}/{name}")

    def _array(self, path: str) -> zarr.Array[Any]:
        return zarr.open_array(self.root, path=path, mode="r+")

    @property
    def blocks(self) -> TileGrid:
        return TileGrid(self.views[0].height, self.views[0].width, BLOCK)

    @property
    def shards(self) -> Iterator[tuple[int, Box]]:
        """Those above the blocks' own, each with its level."""
        for index, view in enumerate(self.views[FINE:], FINE):
            for box in Box(0, 0, view.height, view.width).parts(BLOCK):
                yield index, box

    def summed(self, index: int) -> bool:
        """Whether a level comes from the pixels of level 0: it is not made from a coarser stored one."""
        return self.views[index].level.index == 0


def write_block(pyramid: Pyramid, tile: Tile) -> float:
    """Everything that comes from one block of level 0; gives its megapixels."""
    box = pyramid.blocks.box(tile)
    full = pyramid.read(0, box)
    for index, view in enumerate(pyramid.views[:FINE]):
        there, cell = _part(box, view, 2**index), 2**index
        own = pyramid.summed(index)
        pixels = full if index == 0 else shrink(full, cell, cell) if own else pyramid.read(index, there)
        _put(pyramid.level(index), there, pixels)
    if any(map(pyramid.summed, range(FINE, len(pyramid.views)))):
        cell = 2**FINE
        there = Box(box.top // cell, box.left // cell, -(-box.height // cell), -(-box.width // cell))
        _put(pyramid.state("sums"), there, cell_sums(full, cell, cell).astype(np.uint16))
    pyramid.state("done")[tile.row, tile.col] = True
    return box.area / 1e6


def write_coarse(pyramid: Pyramid, index: int, box: Box) -> float:
    """One shard of a level above the blocks' own; gives its megapixels."""
    more = 2 ** (index - FINE)
    if not pyramid.summed(index):
        _put(pyramid.level(index), box, pyramid.read(index, box))
        return box.area / 1e6
    pixels = np.empty((box.height, box.width, 3), np.uint8)
    step, sums = max(BLOCK // more, 1), pyramid.state("sums")
    full = pyramid.views[0]
    for part in box.parts(step):  # as many sums as a block has pixels, whatever the level
        of_sums = part.times(more).clip(*sums.shape[1:])
        found = np.asarray(sums[:, *of_sums.slices]).transpose(1, 2, 0)
        total = np.add.reduceat(found, range(0, found.shape[0], more), axis=0, dtype=np.uint32)
        total = np.add.reduceat(total, range(0, found.shape[1], more), axis=1)
        rows = _cells(part.top, part.bottom, 2**index, full.height)
        cols = _cells(part.left, part.right, 2**index, full.width)
        pixels[part.relative_to(box).slices] = divide(total, rows, cols)
    _put(pyramid.level(index), box, pixels)
    return box.area / 1e6


def _cells(first: int, last: int, cell: int, size: int) -> NDArray[np.float64]:
    """Pixels of level 0 in each of the cells, along an axis of ``size`` px."""
    return np.diff(np.minimum(np.arange(first, last + 1) * cell, size)).astype(np.float64)


def _part(box: Box, view: View, downsample: int) -> Box:
    """A block on a coarser level."""
    top, left = box.top // downsample, box.left // downsample
    bottom, right = -(-box.bottom // downsample), -(-box.right // downsample)
    return Box(top, left, min(bottom, view.height) - top, min(right, view.width) - left)


def _put(array: zarr.Array[Any], box: Box, pixels: NDArray[Any]) -> None:
    """(H, W, 3) into (3, rows, cols)."""
    array[:, *box.slices] = np.ascontiguousarray(pixels.transpose(2, 0, 1))
