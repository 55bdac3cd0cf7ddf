"""Where the tiles of a picture lie at 1, 1/2, 1/4, ... of its resolution; no pixels."""

from dataclasses import dataclass
from typing import Self

from wsi_twostage.tiles import Box, Tile, TileGrid

TILE = 512
"""Edge of what is sent at once, in pixels: a chunk of the mask."""


@dataclass(frozen=True, slots=True)
class Pyramid:
    """Levels of a picture, finest first; an odd last row or column is kept."""

    height: int  # pixels of level 0 (> 0)
    width: int  # pixels of level 0 (> 0)
    size: float
    """Fine pixels of the mask per pixel of level 0; all pictures share the corner of the first pixel."""
    levels: int

    @classmethod
    def of(cls, height: int, width: int, size: float = 1.0) -> Self:
        """As many levels as it takes to one tile.

        >>> Pyramid.of(5934, 4440).levels
        5
        """
        return cls(height, width, size, ((max(height, width) - 1) // TILE).bit_length() + 1)

    def grid(self, level: int) -> TileGrid:
        """A level, in its own pixels, cut into tiles."""
        return TileGrid(-(-self.height // 2**level), -(-self.width // 2**level), TILE)

    def box(self, level: int, tile: Tile) -> Box | None:
        """Pixels of a tile in its level, clipped to it; None where there is no such tile."""
        if not 0 <= level < self.levels:
            return None
        grid = self.grid(level)
        inside = 0 <= tile.row < grid.rows and 0 <= tile.col < grid.cols
        return grid.box(tile) if inside else None
