"""The ledger: what is known of each tissue tile so far, and what of it is safe on disk.

It is the tile table of the store, held in memory by the one process that runs the slide. Pixels are written
first, by whoever computed them; then the ledger says so. What a killed run computed and did not enter is
computed again, to the same pixels. So the table is the journal, and resuming is reading it.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import StoreError
from wsi_twostage.mask import FAILED, MaskPyramid, Source
from wsi_twostage.selection import Rule, Selection, select
from wsi_twostage.tiles import Tile

COMMIT_S = 2.0
"""Between two entries on disk: what a kill costs, at most, beside the tasks at work."""

# In the order in which they reach the disk: a round that is there has its ranks, a source all that led to it.
_COLUMNS: dict[str, tuple[type, float]] = {
    "uncertainty": (np.float32, np.nan),
    "rank": (np.int32, -1),  # within the round, most uncertain first
    "round": (np.int16, -1),  # 0: chosen by the run, 1, 2, ...: by what refined it further; -1: not chosen
    "disagreement": (np.float32, np.nan),
    "milliseconds": (np.float32, np.nan),
    "source": (np.uint8, Source.PENDING),  # the last: with it a tile counts as done
}


def _pending(tissue: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """The columns for the tissue tiles, (rows, cols), while nothing else is known of them."""
    row, col = np.nonzero(tissue)
    columns: dict[str, NDArray[Any]] = {"row": row.astype(np.int32), "col": col.astype(np.int32)}
    return columns | {name: np.full(len(row), fill, kind) for name, (kind, fill) in _COLUMNS.items()}


class Ledger:
    """One row per tissue tile, in reading order."""

    def __init__(self, mask: MaskPyramid, columns: dict[str, NDArray[Any]]) -> None:
        self.mask, self.columns = mask, columns
        grid = mask.spec.tiles
        self._row_of = np.full((grid.rows, grid.cols), -1, np.int64)
        self._row_of[columns["row"], columns["col"]] = np.arange(len(columns["row"]))
        self._changed = set[str]()
        self.unsure = np.zeros_like(self.tissue)
        """Tiles, (rows, cols), that a run which was killed may have written without entering them."""
        self._committed = time.perf_counter()

    @classmethod
    def none(cls, mask: MaskPyramid) -> Self:
        """Of no tiles, while it is not known where there is tissue; not written."""
        grid = mask.spec.tiles
        return cls(mask, _pending(np.zeros((grid.rows, grid.cols), np.bool_)))

    @classmethod
    def begin(cls, mask: MaskPyramid, tissue: NDArray[np.bool_]) -> Self:
        """A new one, for the tissue tiles (rows, cols); written at once."""
        columns = _pending(tissue)
        mask.write_tiles(columns)
        return cls(mask, columns)

    @classmethod
    def read(cls, mask: MaskPyramid) -> Self:
        """As a run left it; raises StoreError if that cannot be read."""
        with mask.readable("the tile table"):
            ledger = cls(mask, {name: np.array(column) for name, column in mask.tiles().items()})
        ledger._changed.add("source")  # its map may be a commit behind
        ledger._forget_what_a_kill_cut()
        ledger.unsure = ledger.open
        return ledger

    def _forget_what_a_kill_cut(self) -> None:
        """Columns that were on disk while the last one of their commit was not; chosen is what has both."""
        unrefined = self.columns["source"] != Source.MODEL_2
        unchosen = (self.columns["round"] < 0) | (self.columns["rank"] < 0)
        forgotten = {
            "disagreement": unrefined, "milliseconds": unrefined, "rank": unchosen, "round": unchosen,
        }  # fmt: skip
        for name, rows in forgotten.items():
            column, nothing = self.columns[name], _COLUMNS[name][1]
            stale = rows & ~(np.isnan(column) | (column == nothing))
            if stale.any():
                column[stale] = nothing
                self._changed.add(name)

    def grid(self, name: str, outside: float = 0) -> NDArray[Any]:
        """A column as (rows, cols), with ``outside`` where there is no tissue."""
        column = self.columns[name]
        found = np.full(self._row_of.shape, outside, column.dtype)
        found[self.columns["row"], self.columns["col"]] = column
        return found

    @property
    def tissue(self) -> NDArray[np.bool_]:
        """Which tiles have tissue, (rows, cols)."""
        return np.asarray(self._row_of >= 0, np.bool_)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which tiles Model 1 could read, (rows, cols)."""
        known: NDArray[np.bool_] = ~np.isnan(self.grid("uncertainty"))
        return self.tissue & known

    def having(self, *sources: Source) -> NDArray[np.bool_]:
        """Which tissue tiles have one of these sources, (rows, cols)."""
        return np.asarray(self.tissue & np.isin(self.grid("source"), [*sources]), np.bool_)

    @property
    def settled(self) -> NDArray[np.bool_]:
        """Tiles for which Model 2 can do no more, (rows, cols)."""
        return self.having(Source.MODEL_2, *FAILED)

    @property
    def open(self) -> NDArray[np.bool_]:
        """Which tiles are chosen and not done, (rows, cols)."""
        chosen: NDArray[np.bool_] = self.grid("round", -1) >= 0
        return chosen & ~self.settled

    def enter(self, tiles: Sequence[Tile], **values: Any) -> None:
        """Set values of some tiles, one each or one for all."""
        if len(tiles):
            rows = self._row_of[tuple(np.array(tiles).T)]
            for name, value in values.items():
                self.columns[name][rows] = value
                self._changed.add(name)

    def choose(self, rule: Rule) -> None:
        """Line 2 of Algorithm 1: the tiles of the run itself, from all that Model 1 could read."""
        scores: NDArray[np.float32] = self.grid("uncertainty")
        self.enter_round(0, select(scores, self.seen, rule).order)

    def choose_more(self, rule: Rule, region: NDArray[np.bool_] | None = None) -> None:
        """Another round: of tiles that Model 2 has not seen, in ``region`` (rows, cols).

        Shares are of all tissue.
        """
        free = self.having(Source.MODEL_1) & self.seen & (self.grid("round", -1) < 0)
        free &= True if region is None else region
        scores: NDArray[np.float32] = self.grid("uncertainty")
        order = select(scores, free, rule, of=int(self.seen.sum())).order
        self.enter_round(self.last_round + 1, order)

    def try_again(self) -> None:
        """Tiles that ended their worker in stage 2 are open once more."""
        rows = self._row_of[self.having(Source.CRASHED) & self.seen]
        self.columns["source"][rows] = Source.MODEL_1
        self._changed |= {"source"} if len(rows) else set()
        self.commit()

    @property
    def changed(self) -> int:
        """Pixels to which Model 2 gave another label than Model 1."""
        areas = self.mask.spec.tiles.areas(self.columns["row"], self.columns["col"])
        return round(float(np.nansum(self.columns["disagreement"] * areas)))

    @property
    def last_round(self) -> int:
        """Number of the last round; 0 if there was but the run's own.

        An audit's counts also where a later rule took all of its tiles: the manifest still names it.
        """
        audits: list[int] = self.mask.manifest.get("audits", [])
        return max([int(self.columns["round"].max(initial=0)), *audits])

    def enter_round(self, number: int, order: NDArray[np.int64]) -> None:
        """Choose tiles, by flat indices of the grid; who was in this round before is out of it."""
        numbers, ranks, rows = self.columns["round"], self.columns["rank"], self._row_of.ravel()[order]
        ranks[numbers == number] = -1
        numbers[numbers == number] = -1
        numbers[rows], ranks[rows] = number, np.arange(len(rows))
        self._changed |= {"round", "rank"}
        self.commit()

    def release(self, number: int) -> None:
        """What is open of a round is not chosen any more."""
        rows = self._row_of[self.open & (self.grid("round", -1) == number)]
        self.columns["round"][rows] = self.columns["rank"][rows] = -1
        self._changed |= {"round", "rank"} if len(rows) else set()
        self.commit()

    def rounds(self) -> Iterator[Selection]:
        """What was chosen, round by round."""
        numbers, ranks = self.columns["round"], self.columns["rank"]
        flat = self.columns["row"].astype(np.int64) * self._row_of.shape[1] + self.columns["col"]
        for number in range(int(numbers.max(initial=-1)) + 1):
            rows = np.flatnonzero(numbers == number)
            order = flat[rows[np.argsort(ranks[rows])]]
            chosen = np.zeros(self._row_of.shape, np.bool_)
            chosen.ravel()[order] = True
            yield Selection(chosen, order)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever error the block ends with, what was entered is on disk; if that can be written."""
        try:
            yield
        except Exception:
            with suppress(OSError, StoreError):
                self.commit()
            raise
        self.commit()

    def commit(self, *, now: bool = True) -> None:
        """Write what has changed; not ``now``: if the last time is long ago."""
        if self._changed and (now or time.perf_counter() - self._committed > COMMIT_S):
            for name in _COLUMNS:
                if name in self._changed:
                    self.mask.write_tile_column(name, self.columns[name])
            if "source" in self._changed:
                self.mask.write_source(self.grid("source", Source.BACKGROUND))
            self._changed.clear()
            self._committed = time.perf_counter()
