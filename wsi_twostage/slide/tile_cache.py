"""Decoded tiles that a read cut into, kept for the neighbouring read that needs the rest; bounded."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray


class TileCache:
    """The tiles used last, up to so many bytes; threads share it."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit = limit_bytes
        self.held = 0
        self._tiles: OrderedDict[Hashable, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()
        self._turns = [threading.Lock() for _ in range(256)]

    def obtain(
        self, key: Hashable, make: Callable[[], NDArray[np.uint8]], *, wait: bool = True
    ) -> NDArray[np.uint8] | None:
        """The tile, made if it is not there; of two threads that want one, the second waits for the first.

        None if it would have to ``wait``, and is not to.
        """
        turn = self._turns[hash(key) % len(self._turns)]
        if not turn.acquire(blocking=wait):
            return None
        try:
            tile = self.get(key)
            if tile is None:
                tile = make()
                self.put(key, tile)
            return tile
        finally:
            turn.release()

    def get(self, key: Hashable) -> NDArray[np.uint8] | None:
        """The tile, if it is still there; it is not to be written to."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: Hashable, tile: NDArray[np.uint8]) -> None:
        """Keep a tile, and forget those that were not used for the longest time."""
        with self._lock:
            if key in self._tiles or tile.nbytes > self.limit:
                return
            self._tiles[key] = tile
            self.held += tile.nbytes
            while self.held > self.limit:
                self.held -= self._tiles.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget them all."""
        with self._lock:
            self._tiles.clear()
            self.held = 0
