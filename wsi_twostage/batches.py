"""Which tiles are refined together, and in which order their shards get their turn."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.dispatch import Call
from wsi_twostage.mask import MaskSpec, Shard
from wsi_twostage.selection import Selection
from wsi_twostage.tiles import Tile
from wsi_twostage.work import Job

FIRST_BATCH = 64
"""Tiles: a few seconds of work on two cores, and a part of a second on a GPU."""


def batches(patches: Selection) -> Iterator[NDArray[np.bool_]]:
    """The chosen tiles in falling order, each batch (rows, cols) twice as large as the one before.

    What is worth most comes first, and a shard is still not written again for every few tiles.
    """
    first, size = 0, FIRST_BATCH
    while first < len(patches.order):
        batch = np.zeros(patches.chosen.shape, np.bool_)
        batch.ravel()[patches.order[first : first + size]] = True
        yield batch
        first, size = first + size, 2 * size


_TASKS, _TASKS_PER_THREAD = 64, 4
"""At least so many: with fewer, some threads end long before the others."""


def tiles_of_shards(spec: MaskSpec, chosen: NDArray[np.bool_]) -> dict[Shard, tuple[Tile, ...]]:
    """The chosen tiles, (rows, cols), of each shard that has some; row by row."""
    shards = spec.shards(0)
    edge, cols = shards.tile // spec.tile, shards.cols
    places = np.argwhere(chosen)
    number = places[:, 0] // edge * cols + places[:, 1] // edge
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    return {
        Shard(0, *divmod(int(number[part[0]]), cols)): tuple(Tile(*place) for place in places[part].tolist())
        for part in np.split(order, starts)[1:]
    }


def full_weight(total: int, *, limit: int, threads: int) -> float:
    """Of a parcel: ``limit``, or less where the whole is little for so many threads."""
    return min(limit, total / (_TASKS + _TASKS_PER_THREAD * threads))


def parcels(jobs: Sequence[Job], weights: Sequence[int], *, limit: int, threads: int) -> Iterator[list[Job]]:
    """Jobs in their order, so many together that a task is worth its way, but enough tasks for all threads.

    A parcel is full as `full_weight` says.
    """
    full = full_weight(sum(weights), limit=limit, threads=threads)
    parcel, inside = list[Job](), 0
    for job, weight in zip(jobs, weights, strict=True):
        parcel.append(job)
        inside += weight
        if inside >= full:
            yield parcel
            parcel, inside = [], 0
    if parcel:
        yield parcel


class Turns:
    """Calls in order, but never two at work on one shard; where all wait for such, it stops for now.

    The second argument of a call are its jobs.
    """

    def __init__(self, calls: Iterable[Call]) -> None:
        self._waiting, self._busy = list(calls), set[Shard]()

    def counts(self) -> Counter[Shard]:
        """How many jobs each shard has."""
        return Counter(job.shard for call in self._waiting for job in call.arguments[1])

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Call:
        for place, call in enumerate(self._waiting):
            shards = {job.shard for job in call.arguments[1]}
            if self._busy.isdisjoint(shards):
                self._busy |= shards
                return self._waiting.pop(place)
        raise StopIteration

    def finished(self, shard: Shard) -> None:
        """The job on this shard is done."""
        self._busy.discard(shard)
