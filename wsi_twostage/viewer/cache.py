"""Tiles as they were sent, kept for the next time; bounded by their bytes."""

from collections.abc import Callable, Hashable
from typing import NamedTuple

from wsi_twostage.recent import Recent


class Drawn(NamedTuple):
    """A tile as it is sent."""

    content: bytes
    stays: bool = True
    """It would be the same another time."""


class SentTiles(Recent[bytes]):
    """The tiles asked for last that stay, up to so many bytes; threads share it."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes, len)

    def obtain(self, key: Hashable, make: Callable[[], Drawn]) -> Drawn:
        """The tile, made if it is not there; two threads that want one may both make it."""
        if (content := self.get(key)) is not None:
            return Drawn(content)
        tile = make()
        if tile.stays:
            self.put(key, tile.content)
        return tile
