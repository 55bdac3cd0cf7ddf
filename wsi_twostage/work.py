"""What a task needs to know, what it tells, and how it goes through the windows of its tiles."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from wsi_twostage import stopping
from wsi_twostage.errors import DeviceFull, StoreError, UnreadableRegion, WriteError
from wsi_twostage.lock import is_here, this_process
from wsi_twostage.mask import MaskPyramid, Shard
from wsi_twostage.mask.layout import read_attributes
from wsi_twostage.models.runner import ModelRef
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.pixels import Pixels
from wsi_twostage.slide import Identity
from wsi_twostage.tiles import Tile, Window, merge
from wsi_twostage.watchdog import PATIENCE_S, ended_after


@dataclass(frozen=True)
class Work:
    """Everything that is the same for all tasks of a run; small, and picklable."""

    fine: Pixels
    coarse: Pixels
    around: Pixels
    """The level of Model 2's context."""
    overview: Pixels
    mask: MaskPyramid
    model: ModelRef
    spec: BundleSpec
    slide: Identity
    run: str
    """Who holds the store: another run's tasks must not write to it."""
    uncertainty: str = "entropy"
    until: float | None = None
    """When to stop, in seconds of `time.time`; windows that are at work are finished."""
    spare: int = 0
    """How many more windows each thread is to have time for by then, once it has stopped."""
    patience: float = PATIENCE_S
    """Seconds for a window or a write; a worker process in which one takes longer ends."""

    def over(self, in_seconds: float = 0.0) -> bool:
        """Whether to stop, given how long the next piece of work takes."""
        return stopping.over(self.until, in_seconds=in_seconds, run=self.run)

    def watched(self, what: str) -> AbstractContextManager[None]:
        """Around what may hang; the process that leads the run is left to its user."""
        return ended_after(None if is_here(self.run) else self.patience, what)

    def ensure_sound(self) -> None:
        """What was read comes from the slide that the run began with, and what is written goes to its store.

        Raises
        ------
        SlideError
            The slide was replaced.
        StoreError
            As of `ensure_ours`.
        """
        self.slide.ensure_same()
        self.ensure_ours()

    def ended(self) -> bool:
        """Whether the store is there for this process, and another run holds it, or nobody."""
        found = read_attributes(self.mask.path)
        return found is not None and found["manifest"].get("held_by") != self.run

    def ensure_ours(self) -> None:
        """A task that outlived its run must not write into the next one's store.

        Raises
        ------
        StoreError
            The store is not there for this process, or another run holds it.
        """
        found = read_attributes(self.mask.path)
        if found is None:
            raise StoreError(f"{self.mask.path} cannot be seen; it must lie where all workers can write")
        held_by = found["manifest"].get("held_by")
        if held_by != self.run:
            raise StoreError(f"{self.mask.path} is now held by {held_by or 'nobody'}")


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
    unreadable: tuple[Tile, ...] = ()
    clock: Clock = field(default_factory=Clock)
    milliseconds: tuple[float, ...] = ()
    """What each tile cost, if it was measured: reading and the network."""
    crashed: tuple[Tile, ...] = ()
    """Tiles that end whatever worker they come to."""


class WindowShape(TypedDict):
    """How tiles are merged for a network."""

    limit: int  # tiles of a window, at most
    halo: int  # fine pixels around it


def through_windows(
    work: Work,
    tiles: Iterable[Tile],
    *,
    limit: int,
    halo: int,
    predict: Callable[[Window], NDArray[np.uint8]],
) -> Iterator[tuple[Window, NDArray[np.uint8] | None]]:
    """Predict tiles in merged windows; an answer may hold more than the window's tiles.

    Left out is what would end after the run is to stop, or leave too little time for `Work.spare` windows.

    Where a window cannot be read it falls into its tiles, so that a hole in the file costs the tiles that
    touch it and no more; such a tile comes with None. So does one that no device has the memory for, but a
    tile that is too large alone ends the run.
    """
    grid = work.mask.spec.tiles
    queue, spent = merge(tiles, grid, limit=limit, halo=halo)[::-1], list[float]()
    while queue:
        window = queue.pop()
        usual = fmean(spent[1:]) if spent[1:] else 0.0  # the first one may have had to warm up
        if work.over(max(spent, default=0.0) + work.spare * usual):
            return
        start = time.perf_counter()
        try:
            with work.watched(f"{window.box}"):
                answer = predict(window)
        except (UnreadableRegion, DeviceFull) as error:
            if len(window.tiles) > 1:
                queue.extend(merge((tile,), grid, limit=1, halo=halo)[0] for tile in reversed(window.tiles))
            elif isinstance(error, DeviceFull):
                raise
            else:
                yield window, None
        else:
            spent.append(time.perf_counter() - start)
            yield window, answer


@dataclass(frozen=True)
class Job:
    """A task on one shard."""

    shard: Shard
    task: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    """After the work and the shard; the first are the tiles, if it has some."""
    instead: Callable[..., Any] | None = None
    """What takes the task's place if it ends its workers; None: the run cannot do without it."""

    @property
    def tiles(self) -> tuple[Tile, ...]:
        return self.arguments[0] if self.arguments else ()

    def halves(self) -> tuple["Job", "Job"]:
        """The same, each on half of the tiles."""
        tiles, *rest = self.arguments
        middle = len(tiles) // 2
        first, second = (replace(self, arguments=(part, *rest)) for part in (tiles[:middle], tiles[middle:]))
        return first, second


def perform(work: Work, jobs: Sequence[Job]) -> list[tuple[Shard, Any]]:
    """What each job gives, and which shard it was about; all that ever runs on a worker.

    Raises
    ------
    WriteError
        The store cannot be written.
    """
    try:
        return [(job.shard, job.task(work, job.shard, *job.arguments)) for job in jobs]
    except OSError as error:
        raise WriteError.of(f"{work.mask.path} ({this_process()})", error) from error


def give_up(work: Work, shard: Shard, tiles: tuple[Tile, ...], *more: object) -> Done:
    """In the place of a task that ends its workers."""
    return Done((), np.zeros(0, np.float32), crashed=tiles)
