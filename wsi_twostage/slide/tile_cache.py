"""Decoded tiles that a read cut into, kept for the neighbouring read that needs the rest; bounded."""

import threading
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.recent import Recent


class TileCache(Recent[NDArray[np.uint8]]):
    """The tiles used last, up to so many bytes; threads share it."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes, lambda tile: tile.nbytes)
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
