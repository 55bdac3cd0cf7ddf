"""Tables of connected components, or of parts of them, that add up."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.export.outlines import CORNER

FIELDS: dict[str, tuple[type, np.ufunc]] = {
    "label": (np.uint8, np.maximum),
    "first": (np.int64, np.minimum),
    "area": (np.int64, np.add),
    "rows": (np.float64, np.add),
    "cols": (np.float64, np.add),
    "perimeter": (np.float64, np.add),
    "uncertainty": (np.float64, np.add),
    "sources": (np.uint8, np.bitwise_or),
    "top": (np.int32, np.minimum),
    "left": (np.int32, np.minimum),
    "bottom": (np.int32, np.maximum),
    "right": (np.int32, np.maximum),
}
"""What is known of a component, and how two parts of it add up."""

PART = np.dtype([(name, kind) for name, (kind, _) in FIELDS.items()])
"""A component or a part of it, in pixels of the image: its label; ``first``, the flat index of its first
pixel in reading order, which no other component has; sums over its pixels (``area`` of 1, ``rows`` and
``cols`` of their indices, ``uncertainty``); the length of its outline; bits of the sources; half-open
bounds."""


@dataclass(frozen=True, eq=False)
class Components:
    """Components or parts of them, and the corners of their outlines."""

    table: NDArray[np.void]  # (n,) of PART
    corners: NDArray[np.void]  # (m,) of CORNER, whose owner is a row of the table

    @classmethod
    def none(cls) -> Self:
        return cls(np.empty(0, PART), np.empty(0, CORNER))

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """One table after the other."""
        several = [cls.none(), *parts]
        sizes = np.cumsum([0, *(len(part.table) for part in several)])
        moved = np.concatenate([part.corners for part in several])
        moved["owner"] += np.repeat(sizes[:-1], [len(part.corners) for part in several])
        return cls(np.concatenate([part.table for part in several]), moved)

    def where(self, wanted: NDArray[np.bool_]) -> Self:
        """Some rows, with their corners."""
        places = np.cumsum(wanted) - 1
        kept = self.corners[wanted[self.corners["owner"]]]
        kept["owner"] = places[kept["owner"]]
        return type(self)(self.table[wanted], kept)

    def merged(self, group: NDArray[np.integer], count: int) -> Self:
        """Rows of one group as one row; ``group`` has all of 0 .. count - 1."""
        order = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[order], np.arange(count))
        table = np.empty(count, PART)
        for name, (_, add) in FIELDS.items():
            table[name] = add.reduceat(self.table[name][order], starts) if count else table[name]
        moved = self.corners.copy()
        moved["owner"] = group[moved["owner"]]
        return type(self)(table, moved)

    def in_order(self) -> Self:
        """By the first pixel; corners need no order."""
        order = np.argsort(self.table["first"])
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        moved = self.corners.copy()
        moved["owner"] = place[moved["owner"]]
        return type(self)(self.table[order], moved)
