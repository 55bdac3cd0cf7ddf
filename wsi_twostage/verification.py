"""verify(): whether a result is sound, and what to do if it is not."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import zarr
from zarr.storage import MemoryStore

from wsi_twostage.errors import StoreError
from wsi_twostage.events import Listener, Started, TilesDone, ignore
from wsi_twostage.ledger import Ledger
from wsi_twostage.mask import MaskPyramid, Shard, Source, majority
from wsi_twostage.mask.layout import create_groups


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found."""

    problems: tuple[str, ...]
    """Damage, a line each."""
    unfinished: str
    """What is still to be done; empty: nothing."""

    @property
    def advice(self) -> str:
        """What to do, in one line; empty: nothing."""
        if self.problems:
            return "make it anew: the command that made it, with --overwrite"
        if self.unfinished:
            return "the command that made it, or wsi-seg refine, goes on where it was"
        return ""


def verify(path: str | os.PathLike[str], *, listener: Listener = ignore) -> Verdict:
    """Read every pixel of a result (each chunk has a checksum), and compare what must agree.

    Metadata as OME-Zarr 0.5 wants it; each level the majority of the finer one; the tile table.

    Raises
    ------
    StoreError
        Nothing is there, or not a result of ours.
    """
    mask = MaskPyramid.left(path)
    told = mask.manifest
    problems: list[str] = []

    def check(what: str, sound: Callable[[], bool]) -> None:
        try:
            if not sound():
                problems.append(f"{what} is not what it must be")
        except Exception as error:  # stores and codecs raise what they like
            problems.append(f"{what} cannot be read ({type(error).__name__}: {error})".splitlines()[0])

    check("the OME-Zarr metadata", lambda: _metadata_is_sound(mask))
    unfinished = ""
    if not told.get("looked"):
        return Verdict(tuple(problems), "its tissue is not known yet")
    check("the overview", lambda: mask.read_overview().size > 0)
    check("the tissue", lambda: mask.read_tissue().size > 0)
    check("the tile table", lambda: _table_is_sound(mask, complete=bool(told.get("complete"))))
    shards = [shard for level in range(mask.levels) for shard in mask.shards(level)]
    listener(Started("verify", len(shards)))
    for shard in shards:
        name = f"shard ({shard.row}, {shard.col}) of level {shard.level}"
        check(name, lambda: _shard_is_sound(mask, shard, levels=bool(told.get("levels"))))  # noqa: B023
        listener(TilesDone("verify", 1, mask.box(shard).area / 1e6))
    if not problems:
        ledger = Ledger.read(mask)
        pending, begun = int(ledger.having(Source.PENDING).sum()), int(ledger.open.sum())
        if pending:
            unfinished = f"{pending} tiles that Model 1 has not seen"
        elif not told.get("whole"):
            unfinished = "Model 1's mask is not written yet"
        elif not told.get("complete"):
            unfinished = (
                f"{begun} chosen tiles that Model 2 has not seen" if begun else "its end was not noted"
            )
    return Verdict(tuple(problems), unfinished)


def _metadata_is_sound(mask: MaskPyramid) -> bool:
    """As it is written for this mask."""
    fresh = create_groups(MemoryStore(), mask.spec)
    stored = zarr.open_group(mask.path, mode="r")
    names = ("", "labels", f"labels/{mask.spec.name}")
    return all(dict(_group(stored, name).attrs) == dict(_group(fresh, name).attrs) for name in names)


def _group(root: zarr.Group, name: str) -> zarr.Group:
    found = root[name] if name else root
    if not isinstance(found, zarr.Group):
        raise StoreError(f"{name} is no group")
    return found


def _table_is_sound(mask: MaskPyramid, *, complete: bool) -> bool:
    """It names each tissue tile once; once the run is ``complete``, the map of sources says the same."""
    ledger = Ledger.read(mask)
    grid, lengths = mask.spec.tiles, {len(column) for column in ledger.columns.values()}
    rows, cols = ledger.columns["row"], ledger.columns["col"]
    inside = bool(((rows >= 0) & (rows < grid.rows) & (cols >= 0) & (cols < grid.cols)).all())
    once = len(lengths) == 1 and int(ledger.tissue.sum()) == len(rows)
    sources = ledger.grid("source", Source.BACKGROUND)
    written = mask.read_source()
    return inside and once and (not complete or np.array_equal(written, sources))


def _shard_is_sound(mask: MaskPyramid, shard: Shard, *, levels: bool) -> bool:
    """Its labels are classes; a coarser one is the majority of what lies under it."""
    box = mask.box(shard)
    labels = mask.read(box, shard.level)
    if shard.level == 0:
        mask.read_probability(box.coarser(mask.spec.ratio))
    elif levels:
        height, width = mask.shape(shard.level - 1)
        finer = mask.read(box.times(2).clip(height, width), shard.level - 1)
        if not np.array_equal(labels, majority(finer)):
            return False
    return int(labels.max(initial=0)) <= len(mask.spec.classes)
