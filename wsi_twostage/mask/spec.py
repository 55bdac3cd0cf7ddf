"""What a mask is (sizes, scales, classes) and how its levels fall into shards; no pixels."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, Self

from wsi_twostage.errors import ConfigError
from wsi_twostage.tiles import Box, Tile, TileGrid

SHARD = 2048
"""Edge of a shard in pixels: one file, one owner, one write."""

CHUNK = 512
"""Edge of a chunk in pixels: the least that a viewer reads."""

COARSEST = 512
"""Levels are added until the longer side, in pixels, is at most this."""


class Source(IntEnum):
    """Where the labels of a tile come from."""

    BACKGROUND = 0  # no tissue, not computed
    MODEL_1 = 1
    MODEL_2 = 2
    UNREADABLE = 3  # Model 1's answer where Model 2 could not read, background where Model 1 could not
    PENDING = 4  # tissue that Model 1 has not seen yet; in unfinished stores only
    CRASHED = 5  # its task ended its worker each time; the answer is as for UNREADABLE


FAILED = (Source.UNREADABLE, Source.CRASHED)
"""What lacks an answer that it should have."""


class Shard(NamedTuple):
    """Position of a shard in the grid of its level."""

    level: int
    row: int
    col: int


@dataclass(frozen=True, slots=True)
class MaskSpec:
    """Everything that decides the shape and the metadata of a mask store."""

    height: int  # pixels of the fine level (> 0)
    width: int  # pixels of the fine level (> 0)
    mpp: float  # micrometres per pixel of the fine level (> 0)
    ratio: int  # fine pixels per pixel of Model 1, along one side (a power of two)
    tile: int  # edge of a tile in fine pixels (> 0)
    classes: tuple[str, ...]
    """Names of the labels 1, 2, ...; label 0 is background."""
    colours: tuple[tuple[int, int, int], ...]
    """Red, green, blue of each class, 0..255."""
    overview_downsample: float  # fine pixels per overview pixel, along one side (> 0)
    overview_height: int  # pixels of the overview (> 0)
    overview_width: int  # pixels of the overview (> 0)
    name: str = "segmentation"
    origin_um: float = field(default=0.0, compare=False)
    """Where the centre of the first fine pixel is, along both axes, from that of the slide's first pixel."""

    def __post_init__(self) -> None:
        _ensure_positive(self)
        _ensure_shards_shrink_to_whole_pixels(self.ratio)
        _ensure_shards_hold_whole_tiles(self.tile)
        _ensure_classes(self.classes, self.colours)
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"the mask's name {self.name!r} must be a plain file name")

    @property
    def levels(self) -> int:
        """Number of levels of the mask, and of the overview: the standard wants them equal."""
        longer, levels = max(self.height, self.width), 1
        while longer > COARSEST:
            longer, levels = -(-longer // 2), levels + 1
        return levels

    @property
    def channels(self) -> int:
        """Probabilities kept per pixel: that of the one class, or those of background and all classes."""
        return 1 if len(self.classes) == 1 else len(self.classes) + 1

    @property
    def tiles(self) -> TileGrid:
        return TileGrid(self.height, self.width, self.tile)

    @property
    def coarse(self) -> TileGrid:
        """Model 1's pixels, cut into the parts that the shards of the fine level own."""
        return TileGrid(self.height, self.width, SHARD).coarser(self.ratio)

    def shards(self, level: int) -> TileGrid:
        """A level of the mask, in its own pixels, cut into shards."""
        height, width = self._halve(self.height, self.width, level)
        return TileGrid(height, width, SHARD)

    def overview(self, level: int) -> TileGrid:
        """A level of the overview, in its own pixels, cut into chunks."""
        height, width = self._halve(self.overview_height, self.overview_width, level)
        return TileGrid(height, width, CHUNK)

    def box(self, shard: Shard) -> Box:
        """Pixels of a shard in its level, clipped to the level."""
        return self.shards(shard.level).box(Tile(shard.row, shard.col))

    def children(self, shard: Shard) -> list[Shard]:
        """The one to four shards of the next finer level under this one; none on level 0."""
        if shard.level == 0:
            return []
        finer = self.shards(shard.level - 1)
        return [
            Shard(shard.level - 1, row, col)
            for row in range(2 * shard.row, min(2 * shard.row + 2, finer.rows))
            for col in range(2 * shard.col, min(2 * shard.col + 2, finer.cols))
        ]

    def parent(self, shard: Shard) -> Shard | None:
        """The shard of the next coarser level over this one; none on the last level."""
        if shard.level + 1 == self.levels:
            return None
        return Shard(shard.level + 1, shard.row // 2, shard.col // 2)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`: JSON knows lists only, a spec must be hashable."""
        colours = tuple((red, green, blue) for red, green, blue in stored["colours"])
        return cls(**{**stored, "classes": tuple(stored["classes"]), "colours": colours})

    def _halve(self, height: int, width: int, level: int) -> tuple[int, int]:
        """Size after ``level`` halvings; an odd last row or column is kept, so never 0."""
        if not 0 <= level < self.levels:
            raise ConfigError(f"the mask has no level {level}; levels: 0..{self.levels - 1}")
        return -(-height // 2**level), -(-width // 2**level)


def _ensure_positive(spec: MaskSpec) -> None:
    """Sizes and scales are finite and above zero."""
    for name in (
        "height",
        "width",
        "mpp",
        "tile",
        "overview_downsample",
        "overview_height",
        "overview_width",
    ):
        value = getattr(spec, name)
        if not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"a mask needs {name} > 0; got {value}")


def _ensure_shards_shrink_to_whole_pixels(ratio: int) -> None:
    """A shard must be a whole number of Model 1's pixels, so that one task owns both."""
    if ratio < 1 or SHARD % ratio:
        raise ConfigError(f"ratio={ratio} does not divide a shard of {SHARD} px; use a power of two")


def _ensure_shards_hold_whole_tiles(tile: int) -> None:
    """A tile must lie in one shard, so that one task owns it."""
    if SHARD % tile:
        raise ConfigError(f"tile={tile} px does not divide a shard of {SHARD} px; use a power of two")


def _ensure_classes(classes: tuple[str, ...], colours: tuple[tuple[int, int, int], ...]) -> None:
    """One to 255 classes (labels are uint8, 0 is background), each with a colour of three bytes."""
    if not 1 <= len(classes) <= 255 or len(classes) != len(colours):
        raise ConfigError(
            f"a mask needs 1 to 255 classes and one colour each; "
            f"got {len(classes)} classes and {len(colours)} colours"
        )
    for colour in colours:
        if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
            raise ConfigError(f"a colour is red, green, blue in 0..255; got {colour}")
