"""Tiles as they were sent, kept for the next time; bounded by their bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple


class Drawn(NamedTuple):
    """A tile as it is sent."""

    content: bytes
    stays: bool = True
    """It would be the same another time."""


class SentTiles:
    """The tiles asked for last that stay, up to so many bytes; threads share it."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit = limit_bytes
        self.held = 0
        self._tiles: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def obtain(self, key: Hashable, make: Callable[[], Drawn]) -> Drawn:
        """The tile, made if it is not there; two threads that want one may both make it."""
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return Drawn(self._tiles[key])
        tile = make()
        with self._lock:
            if tile.stays and key not in self._tiles and len(tile.content) <= self.limit:
                self._tiles[key] = tile.content
                self.held += len(tile.content)
                while self.held > self.limit:
                    self.held -= len(self._tiles.popitem(last=False)[1])
        return tile

    def clear(self) -> None:
        """Forget them all."""
        with self._lock:
            self._tiles.clear()
            self.held = 0
