"""Integer geometry of tiles, halos and windows; no pixels.

Everything is (row, col) or (height, width), half-open, in pixels of the level that is named.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

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

    def relative_to(self, other: Self) -> Self:
        """The same pixels, counted from the corner of ``other``."""
        return type(self)(self.top - other.top, self.left - other.left, self.height, self.width)

    def coarser(self, ratio: int) -> Self:
        """The box on a level ``ratio`` times coarser; pixels covered in part are included."""
        top, left = self.top // ratio, self.left // ratio
        return type(self)(top, left, -(-self.bottom // ratio) - top, -(-self.right // ratio) - left)


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
    """A rectangle of tiles that a network sees at once."""

    box: Box
    """Core of the window, halo excluded, clipped to the image."""
    tiles: tuple[Tile, ...]
    """The tiles that fill the core, row by row."""


def merge(tiles: Iterable[Tile], grid: TileGrid, *, limit: int) -> list[Window]:
    """Cover exactly ``tiles`` with rectangles of at most ``limit`` x ``limit`` tiles.

    Neighbours share one window, so their common halo is read and computed once. Greedy: from the
    first free tile (in reading order) to the right, then down while whole rows are free.
    """
    free = set(tiles)
    windows = []
    for tile in sorted(free):
        if tile not in free:
            continue
        width = 1
        while width < limit and Tile(tile.row, tile.col + width) in free:
            width += 1
        cols = range(tile.col, tile.col + width)
        height = 1
        while height < limit and all(Tile(tile.row + height, col) in free for col in cols):
            height += 1
        members = tuple(Tile(row, col) for row in range(tile.row, tile.row + height) for col in cols)
        free.difference_update(members)
        first, last = grid.box(members[0]), grid.box(members[-1])
        box = Box(first.top, first.left, last.bottom - first.top, last.right - first.left)
        windows.append(Window(box, members))
    return windows
