"""Which tiles are refined together, and in which order their shards get their turn."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.dispatch import Call
from wsi_twostage.mask import Shard
from wsi_twostage.selection import Selection
from wsi_twostage.tiles import Box, Tile, TileGrid

FIRST_BATCH = 64
"""Tiles: a few seconds of work on two cores, and a part of a second on a GPU."""


def batches(patches: Selection) -> Iterator[NDArray[np.bool_]]:
    """The chosen tiles in falling order, each batch (rows, cols) twice as large as the one before.

    What is worth most comes first, and neighbours still meet in one window. Which tiles share a batch
    follows from the selection alone, so that a run which is interrupted and goes on sees the same windows.
    """
    first, size = 0, FIRST_BATCH
    while first < len(patches.order):
        batch = np.zeros(patches.chosen.shape, np.bool_)
        batch.ravel()[patches.order[first : first + size]] = True
        yield batch
        first, size = first + size, 2 * size


def chosen_tiles(grid: TileGrid, box: Box, chosen: NDArray[np.bool_]) -> tuple[Tile, ...]:
    """The chosen tiles of a box of whole tiles."""
    top, left = box.top // grid.tile, box.left // grid.tile
    part = chosen[top : -(-box.bottom // grid.tile), left : -(-box.right // grid.tile)]
    return tuple(Tile(int(row) + top, int(col) + left) for row, col in np.argwhere(part))


class Turns:
    """Calls in order, but never two at work on one shard; where all wait for such, it stops for now.

    The second argument of a call is its shard.
    """

    def __init__(self, calls: Iterable[Call]) -> None:
        self._waiting, self._busy = list(calls), set[Shard]()

    def counts(self) -> Counter[Shard]:
        """How many calls each shard has."""
        return Counter(call.arguments[1] for call in self._waiting)

    def __iter__(self) -> Self:
        return self

    def __len__(self) -> int:
        """Calls that have not had their turn."""
        return len(self._waiting)

    def __next__(self) -> Call:
        for place, call in enumerate(self._waiting):
            shard = call.arguments[1]
            if shard not in self._busy:
                self._busy.add(shard)
                return self._waiting.pop(place)
        raise StopIteration

    def finished(self, shard: Shard) -> None:
        """The call on this shard is done."""
        self._busy.discard(shard)
