"""Integer geometry of tiles, halos and windows; no pixels.

Everything is (row, col) or (height, width), half-open, in pixels of the level that is named.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels: rows ``top <= y < bottom``, columns ``left <= x < right``."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an array (rows, cols); only for boxes that start inside the array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grow(self, halo: int) -> Self:
        """The box with ``halo`` more pixels on each side; may reach outside of the image."""
        return type(self)(self.top - halo, self.left - halo, self.height + 2 * halo, self.width + 2 * halo)

    def clip(self, height: int, width: int) -> Self:
        """The part inside an image of this size; empty (area 0) when there is none."""
        top, left = min(max(self.top, 0), height), min(max(self.left, 0), width)
        bottom, right = max(top, min(self.bottom, height)), max(left, min(self.right, width))
        return type(self)(top, left, bottom - top, right - left)

    def hull(self, other: Self) -> Self:
        """The least box over both."""
        top, left = min(self.top, other.top), min(self.left, other.left)
        bottom, right = max(self.bottom, other.bottom), max(self.right, other.right)
        return type(self)(top, left, bottom - top, right - left)

    def times(self, factor: int) -> Self:
        """The box on a level ``factor`` times finer."""
        return type(self)(*(factor * n for n in (self.top, self.left, self.height, self.width)))

    def relative_to(self, other: Self) -> Self:
        """The same pixels, counted from the corner of ``other``."""
        return type(self)(self.top - other.top, self.left - other.left, self.height, self.width)

    def coarser(self, ratio: int) -> Self:
        """The box on a level ``ratio`` times coarser; pixels covered in part are included."""
        top, left = self.top // ratio, self.left // ratio
        return type(self)(top, left, -(-self.bottom // ratio) - top, -(-self.right // ratio) - left)

    def parts(self, edge: int) -> Iterator[Self]:
        """The box in squares of ``edge`` px, row by row; the last ones are cut."""
        for top in range(self.top, self.bottom, edge):
            for left in range(self.left, self.right, edge):
                yield type(self)(top, left, min(edge, self.bottom - top), min(edge, self.right - left))


class Tile(NamedTuple):
    """Position of a tile in its grid."""

    row: int
    col: int


@dataclass(frozen=True, slots=True)
class TileGrid:
    """An image cut into square tiles; the last row and column are clipped, never dropped."""

    height: int  # pixels of the fine level (> 0)
    width: int  # pixels of the fine level (> 0)
    tile: int  # edge of a full tile in pixels (> 0)

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.tile) < 1:
            raise ConfigError(
                f"a grid needs positive sizes; got {self.height} x {self.width} px in tiles of {self.tile} px"
            )

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile)

    @property
    def cols(self) -> int:
        return -(-self.width // self.tile)

    def __len__(self) -> int:
        return self.rows * self.cols

    def __iter__(self) -> Iterator[Tile]:
        return (Tile(row, col) for row in range(self.rows) for col in range(self.cols))

    def box(self, tile: Tile) -> Box:
        """Pixels of one tile, clipped to the image."""
        return Box(tile.row * self.tile, tile.col * self.tile, self.tile, self.tile).clip(
            self.height, self.width
        )

    def areas(self, rows: NDArray[np.int32], cols: NDArray[np.int32]) -> NDArray[np.int64]:
        """Pixels of tiles, clipped to the image, (n,)."""
        heights = np.minimum(self.height - rows.astype(np.int64) * self.tile, self.tile)
        widths = np.minimum(self.width - cols.astype(np.int64) * self.tile, self.tile)
        return heights * widths

    def coarser(self, ratio: int) -> Self:
        """The same tiles on a level ``ratio`` times coarser.

        Raises
        ------
        ConfigError
            A tile would not be a whole number of coarse pixels.
        """
        if self.tile % ratio:
            raise ConfigError(
                f"tile={self.tile} px is not a multiple of ratio={ratio}; "
                f"use {max(self.tile // ratio, 1) * ratio}"
            )
        return type(self)(-(-self.height // ratio), -(-self.width // ratio), self.tile // ratio)


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of whole tiles that a network sees at once."""

    box: Box
    """Core of the window, halo excluded; reaches past the image where its last tiles do."""
    tiles: tuple[Tile, ...]
    """The tiles that were asked for, row by row; others may lie between them."""


def merge(tiles: Iterable[Tile], grid: TileGrid, *, limit: int, halo: int) -> list[Window]:
    """Cover ``tiles`` with compact windows of at most ``limit`` tiles, at a small cost in pixels.

    A window costs its pixels with ``halo`` px more on each side. First come rectangles that hold nothing
    but ``tiles``; then windows are joined as long as the joint one costs less than the two.
    """
    windows = list(_rectangles(tiles, limit))  # boxes of tiles

    def cost(box: Box) -> int:
        return box.times(grid.tile).grow(halo).area

    def saved(one: Box, two: Box) -> int:
        both = one.hull(two)
        return cost(one) + cost(two) - cost(both) if _fits(both.height, both.width, limit) else 0

    def rank(pair: tuple[Box, Box]) -> tuple[int, ...]:
        """What joining them saves; of equals the last in reading order."""
        return saved(*pair), *_corners(pair[0]), *_corners(pair[1])

    while limit > 1 and len(windows) > 1:
        one, two = max(combinations(windows, 2), key=rank)
        if saved(one, two) <= 0:
            break
        windows = [window for window in windows if window not in (one, two)] + [one.hull(two)]

    free, found = sorted(set(tiles)), []
    for window in sorted(windows, key=_corners):
        inside = tuple(
            t for t in free if window.top <= t.row < window.bottom and window.left <= t.col < window.right
        )
        free = [t for t in free if t not in inside]
        found.append(Window(window.times(grid.tile), inside))
    return [window for window in found if window.tiles]


def _corners(box: Box) -> tuple[int, ...]:
    return box.top, box.left, box.bottom, box.right


def _fits(height: int, width: int, limit: int) -> bool:
    """Whether a window of so many tiles is small enough, and not a strip whose halo costs too much."""
    return height * width <= limit and max(height, width) ** 2 <= 2 * limit


def _rectangles(tiles: Iterable[Tile], limit: int) -> Iterator[Box]:
    """Boxes, in tiles, that cover exactly ``tiles``.

    Greedy: from the first free tile in reading order to the right, then down while whole rows are free.
    """
    free = set(tiles)
    for tile in sorted(free):
        if tile not in free:
            continue
        width = 1
        while _fits(1, width + 1, limit) and Tile(tile.row, tile.col + width) in free:
            width += 1
        cols = range(tile.col, tile.col + width)
        height = 1
        while _fits(height + 1, width, limit) and all(Tile(tile.row + height, c) in free for c in cols):
            height += 1
        free.difference_update(Tile(row, col) for row in range(tile.row, tile.row + height) for col in cols)
        yield Box(tile.row, tile.col, height, width)
