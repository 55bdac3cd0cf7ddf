"""What a task needs to know, what it tells, and how it goes through the windows of its tiles."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from wsi_twostage import stopping
from wsi_twostage.errors import UnreadableRegion
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.models.runner import ModelRef
from wsi_twostage.pixels import Pixels
from wsi_twostage.tiles import Tile, TileGrid, Window, merge


@dataclass(frozen=True)
class Work:
    """Everything that is the same for all tasks of a run; small, and picklable."""

    fine: Pixels
    coarse: Pixels
    around: Pixels
    """The level of Model 2's context."""
    mask: MaskPyramid
    model: ModelRef
    uncertainty: str = "entropy"
    until: float | None = None
    """When to stop, in seconds of `time.time`; windows that are at work are finished."""


@dataclass
class Clock:
    """Seconds of a task by what they went to."""

    read: float = 0.0
    network: float = 0.0
    write: float = 0.0
    megapixels: float = 0.0
    """That went through the network, halo included."""

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Add the time of the block to a field."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, what, getattr(self, what) + time.perf_counter() - start)

    def add(self, other: "Clock") -> None:
        """Add another clock's times to this one."""
        for name in ("read", "network", "write", "megapixels"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True)
class Done:
    """What a finished task tells: a value per tile, and where the time went."""

    tiles: tuple[Tile, ...]
    """The tiles with an answer."""
    values: NDArray[np.float32]
    """One per tile: uncertainty after stage 1, disagreement with Model 1 after stage 2."""
    unreadable: tuple[Tile, ...]
    clock: Clock = field(default_factory=Clock)
    milliseconds: tuple[float, ...] = ()
    """What each tile cost, if it was measured: reading and the network, shared by the tiles of a window."""


class WindowShape(TypedDict):
    """How tiles are merged for a network."""

    limit: int  # tiles of a window, at most
    halo: int  # fine pixels around it


def through_windows(
    tiles: Iterable[Tile],
    grid: TileGrid,
    *,
    limit: int,
    halo: int,
    predict: Callable[[Window], NDArray[np.uint8]],
    done: frozenset[Tile] = frozenset(),
    until: float | None = None,
) -> Iterator[tuple[Window, NDArray[np.uint8] | None]]:
    """Predict tiles in merged windows; an answer may hold more than the window's tiles.

    Windows of nothing but ``done`` tiles are left out; so is what would end after ``until``.

    Where a window cannot be read it falls into its tiles, so that a hole in the file costs the tiles that
    touch it and no more; such a tile comes with None.
    """
    queue, longest = merge(tiles, grid, limit=limit, halo=halo)[::-1], 0.0
    while queue:
        window = queue.pop()
        if done.issuperset(window.tiles):
            continue
        if stopping.over(until, in_seconds=longest):
            return
        start = time.perf_counter()
        try:
            answer = predict(window)
        except UnreadableRegion:
            if len(window.tiles) == 1:
                yield window, None
            else:
                queue.extend(merge((tile,), grid, limit=1, halo=halo)[0] for tile in reversed(window.tiles))
        else:
            longest = max(longest, time.perf_counter() - start)
            yield window, answer
