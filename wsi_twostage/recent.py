"""What was used last, kept up to so many bytes; threads share it."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Recent(Generic[Thing]):
    """Things by their keys; those that were not used for the longest time are forgotten first."""

    def __init__(self, limit_bytes: int, size: Callable[[Thing], int]) -> None:
        self.limit = limit_bytes
        self.held = 0
        self._size = size
        self._things: OrderedDict[Hashable, Thing] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Thing | None:
        """What was put there, if it still is; it is not to be written to."""
        with self._lock:
            if key in self._things:
                self._things.move_to_end(key)
            return self._things.get(key)

    def put(self, key: Hashable, thing: Thing) -> None:
        """Keep it, unless there is one already, or no room for it alone."""
        size = self._size(thing)
        with self._lock:
            if key in self._things or size > self.limit:
                return
            self._things[key] = thing
            self.held += size
            while self.held > self.limit:
                self.held -= self._size(self._things.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget them all."""
        with self._lock:
            self._things.clear()
            self.held = 0
