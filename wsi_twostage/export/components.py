"""Connected components of a label image of any size, block by block, each of them whole and exactly once.

A block is labelled together with one row and one column of its neighbours above and to the left, so that
every pixel lattice point lies inside of exactly one block, and a component that goes on in another block
shares pixels with it. What is known of a component (sums over its pixels, corners of its outline) can be
added up, so no pixel of a component is kept or read twice, however many blocks it crosses. Components inside
of a block are passed on at once; the others when the row of blocks is done below which they do not go on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label as label_components

from wsi_twostage.export.outlines import corners, crossings
from wsi_twostage.export.parts import FIELDS, PART, Components
from wsi_twostage.tiles import Box


@dataclass(frozen=True, eq=False)
class Cells:
    """Values on square cells of pixels; the first cell begins with the block."""

    values: NDArray[Any]  # (rows, cols)
    edge: int  # pixels of a cell's side

    def at(self, row: NDArray[np.int64], col: NDArray[np.int64]) -> NDArray[Any]:
        """Values at pixels of the block."""
        return np.asarray(self.values[row // self.edge, col // self.edge])


@dataclass(frozen=True, eq=False)
class Block:
    """A part of the image, with what lies on its pixels."""

    box: Box
    labels: NDArray[np.uint8]  # (H, W), 0 is background
    keys: NDArray[np.integer]
    """(H, W); 0 is background, and neighbours are of one component where they have the same key."""
    uncertainty: Cells  # 0..1
    sources: Cells  # one bit each


@dataclass(frozen=True, eq=False)
class Framed:
    """A block and the keys around it."""

    block: Block
    keys: NDArray[np.integer]
    """One more row above and column to the left; where the image ends, one more of zeros at that end, too."""
    last: tuple[bool, bool]
    """Whether the image ends (below, to the right)."""


@dataclass(frozen=True, eq=False)
class Found:
    """Components of a block."""

    box: Box
    whole: Components
    open: Components
    """Parts of those that may go on in other blocks."""
    above: NDArray[np.int64]  # (W + 1,) rows of ``open`` on the row above, from the corner on; -1: background
    left: NDArray[np.int64]  # (H,) on the column to the left
    bottom: NDArray[np.int64]  # (W,) on the own last row
    right: NDArray[np.int64]  # (H,) on the own last column


def framed(blocks: Iterable[Block], height: int, width: int) -> Iterator[Framed]:
    """Blocks in reading order, with the keys of their neighbours; keeps one row of pixels."""
    above: NDArray[np.integer] = np.zeros(
        width + 1, np.int64
    )  # keys of the last row of the blocks above; the first is outside
    below = above.copy()
    left: NDArray[np.integer] = above[:0]
    for block in blocks:
        box = block.box
        if box.left == 0:
            above, below, left = below, np.zeros_like(above), np.zeros(box.height, np.int64)
        last = box.bottom == height, box.right == width
        keys = np.zeros((box.height + 1 + last[0], box.width + 1 + last[1]), block.keys.dtype)
        keys[0, : box.width + 1] = above[box.left : box.right + 1]
        keys[1 : box.height + 1, 0] = left
        keys[1 : box.height + 1, 1 : box.width + 1] = block.keys
        below[box.left + 1 : box.right + 1], left = block.keys[-1], block.keys[:, -1]
        yield Framed(block, keys, last)


def find(framed: Framed, width: int) -> Found:
    """Components of one block of an image of this width."""
    block, box = framed.block, framed.block.box
    rows, cols = slice(1, box.height + 1), slice(1, box.width + 1)
    if not framed.keys.any():
        nothing, row, col = Components.none(), np.full(box.width, -1), np.full(box.height, -1)
        return Found(box, nothing, nothing, np.append(row, -1), col, row, col)
    found = np.asarray(label_components(framed.keys, background=0, connectivity=1))
    table = _measure(block, found[rows, cols], int(found.max()), width)
    table["perimeter"] = crossings(found, framed.keys)[1:]
    turns = corners(found, box.top, box.left)
    turns["owner"] -= 1
    edges = [
        found[0, : box.width + 1],
        found[rows, 0],
        found[box.height, cols],
        found[rows, box.width],
    ]
    shared = np.zeros(len(table) + 1, np.bool_)
    for edge, ends in zip(edges, (False, False, *framed.last), strict=True):
        if not ends:
            shared[edge] = True
    both = Components(table, turns)
    place = np.append(-1, np.where(shared[1:], np.cumsum(shared[1:]) - 1, -1))  # of a label in ``open``
    return Found(box, both.where(~shared[1:]), both.where(shared[1:]), *(place[edge] for edge in edges))


def _measure(block: Block, found: NDArray[np.integer], count: int, width: int) -> NDArray[np.void]:
    """The table of a block's own pixels; a component that has none there adds nothing."""
    at = np.flatnonzero(found)
    owner, label = found.ravel()[at] - 1, block.labels.ravel()[at]
    row, col = np.divmod(at, block.box.width)
    uncertainty, sources = block.uncertainty.at(row, col), block.sources.at(row, col)
    row, col = row + block.box.top, col + block.box.left
    flat = row * width + col
    table = np.zeros(count, PART)
    table["area"] = np.bincount(owner, minlength=count)
    for name, values in (("rows", row), ("cols", col), ("uncertainty", uncertainty)):
        table[name] = np.bincount(owner, values, minlength=count)
    table["label"][owner] = label
    for name, values, nothing in (
        ("first", flat, np.iinfo(np.int64).max),
        ("top", row, np.iinfo(np.int32).max),
        ("left", col, np.iinfo(np.int32).max),
        ("bottom", row + 1, 0),
        ("right", col + 1, 0),
        ("sources", sources, 0),
    ):
        column = np.full(count, nothing, table[name].dtype)
        FIELDS[name][1].at(column, owner, values.astype(column.dtype))
        table[name] = column
    return table


def merge(found: Iterable[Found], height: int, width: int) -> Iterator[Components]:
    """All components of an image whose blocks come in reading order, each once; sorted within a batch.

    Holds what may still go on: parts that touch the end of a block, for one row of blocks.
    """
    pending, bottom = Components.none(), np.full(width + 1, -1)  # pixel -1 is outside of the image
    row = _Row(pending, bottom)
    for each in found:
        if len(each.whole.table):
            yield each.whole.in_order()
        row.add(each)
        if each.box.right == width:
            done, pending, bottom = row.close(last=each.box.bottom == height)
            if len(done.table):
                yield done.in_order()
            row = _Row(pending, bottom)


class _Row:
    """One row of blocks: its open parts, and which of them are the same component."""

    def __init__(self, pending: Components, above: NDArray[np.int64]) -> None:
        self._parts, self._count = [pending], len(pending.table)
        self._above, self._right = above, np.zeros(0, np.int64)
        self._bottom = np.full_like(above, -1)
        self._pairs: list[NDArray[np.int64]] = []

    def add(self, found: Found) -> None:
        box, base = found.box, self._count
        self._pair(found.above + base, self._above[box.left : box.right + 1], found.above >= 0)
        if box.left:
            self._pair(found.left + base, self._right, found.left >= 0)
        self._right = np.where(found.right >= 0, found.right + base, -1)
        self._bottom[box.left + 1 : box.right + 1] = np.where(found.bottom >= 0, found.bottom + base, -1)
        self._parts.append(found.open)
        self._count += len(found.open.table)

    def _pair(self, mine: NDArray[np.int64], theirs: NDArray[np.int64], there: NDArray[np.bool_]) -> None:
        """Parts of this block and of another that share a pixel."""
        self._pairs.append(np.unique(np.stack([mine[there], theirs[there]]), axis=1))

    def close(self, *, last: bool) -> tuple[Components, Components, NDArray[np.int64]]:
        """Whole components, those that may go on below, and where these lie on the last row."""
        one, two = np.concatenate(self._pairs, axis=1)
        graph = coo_array((np.ones(len(one), np.bool_), (one, two)), shape=(self._count, self._count))
        count, group = connected_components(graph, directed=False) if self._count else (0, self._right[:0])
        merged = Components.joined(self._parts).merged(group, count)
        bottom = np.where(self._bottom >= 0, group[self._bottom], -1) if count else self._bottom
        goes_on = np.zeros(count, np.bool_)
        if not last:
            goes_on[bottom[bottom >= 0]] = True
        place = np.append(np.cumsum(goes_on) - 1, -1)  # the last one: of background
        return merged.where(~goes_on), merged.where(goes_on), place[bottom]
