"""What Model 2 changed, tile by tile, and what an audit says that it would still change."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.audit import strata
from wsi_twostage.mask import MaskSpec, Source
from wsi_twostage.report.facts import Audit, Table

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Areas in mm2 whose label Model 2 changed."""

    chosen: Floats
    """(n,): after each tile that a rule chose, in the order of the rounds and of uncertainty; a sum."""
    audited: Floats
    """(m,): after each tile that an audit drew; goes on from ``chosen``."""
    tissue: int  # tiles
    left: float | None
    """mm2 that are expected to change if Model 2 saw all the rest; None: unknown."""
    bound: float | None
    """At most this, with the audit's confidence; None: unknown."""

    @property
    def refined(self) -> int:
        """Tiles."""
        return len(self.chosen) + len(self.audited)

    @property
    def total(self) -> float:
        """mm2 so far."""
        return float(max(self.chosen.max(initial=0.0), self.audited.max(initial=0.0)))


def change_of(table: Table, spec: MaskSpec, audit: Audit | None, drawn: NDArray[np.bool_]) -> Change:
    """From the tile table of a result; ``drawn`` are the rows of all audits, this one and earlier."""
    seen = (table["source"] == Source.MODEL_2) & np.isfinite(table["disagreement"])
    random = seen & (table["round"] == (audit.round if audit else -2))
    order = np.lexsort((table["rank"], table["round"]))
    pixels = spec.tiles.areas(table["row"], table["col"])
    area = table["disagreement"].astype(np.float64) * pixels * spec.mpp**2 / 1e6  # mm2
    chosen = np.cumsum(area[order][(seen & ~drawn)[order]])
    audited = np.cumsum(area[order][(seen & drawn)[order]]) + (chosen[-1] if len(chosen) else 0.0)
    left, bound = _left(table, area, random, audit) if audit and random.any() else (None, None)
    if (table["source"] == Source.MODEL_2).all():
        left, bound = 0.0, 0.0
    return Change(chosen, audited, len(seen), left, bound)


def _left(
    table: Table, area: Floats, random: NDArray[np.bool_], audit: Audit
) -> tuple[float | None, float | None]:
    """The stratified estimate behind the audit's gap, as an area; its bound in the same proportion."""
    population = random | (table["source"] == Source.MODEL_1)
    group = np.full(len(random), -1, np.int64)
    group[population] = strata(table["uncertainty"][population], int(random.sum()))
    left = 0.0
    for h in range(int(group.max()) + 1):
        inside = random & (group == h)
        if inside.any():
            left += float(area[inside].mean()) * float(((group == h) & ~random).sum())
    overall = audit.overall
    if overall is None:
        return left, None
    return left, left * overall.bound / overall.gap if overall.gap > 0 else None
