"""verify(): whether a result is sound, and what to do if it is not."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from wsi_twostage.errors import Busy, StoreError
from wsi_twostage.events import Listener, Started, TilesDone, ignore
from wsi_twostage.ledger import Ledger
from wsi_twostage.lock import locked
from wsi_twostage.mask import MaskPyramid, Shard, Source, majority
from wsi_twostage.mask.layout import create_store
from wsi_twostage.mask.reduce import mean
from wsi_twostage.tissue import tissue_tiles
from wsi_twostage.uncertainty import of_bytes, tile_mean


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found."""

    problems: tuple[str, ...]
    """Damage, a line each."""
    unfinished: str
    """What is still to be done; empty: nothing."""
    unreadable: int = 0
    """Tiles that the slide did not give, or that ended their worker; there Model 2 is not to be had."""

    @property
    def advice(self) -> str:
        """What to do, in one line; empty: nothing."""
        if self.problems:
            return "make it anew: the command that made it, with --overwrite"
        if self.unfinished:
            return "the command that made it goes on where it was"
        return ""


def verify(path: str | os.PathLike[str], *, listener: Listener = ignore) -> Verdict:
    """Read every pixel of a result (each chunk has a checksum), and compare what must agree.

    A file that is gone, or in another one's place, has no checksum that tells of it. So metadata are what was
    written, for OME-Zarr 0.5; each level is made of the finer one; the tile table agrees with itself, with
    tissue, probability and counts.

    Raises
    ------
    StoreError
        Nothing is there, or not a result of ours.
    Busy
        Parts of it do not agree, since another run is at work on it, or was meanwhile.
    """
    mask = MaskPyramid.left(path)
    told = mask.manifest
    problems: list[str] = []

    def check(what: str, sound: Callable[[], bool]) -> bool:
        try:
            if sound():
                return True
            problems.append(f"{what} is not what it must be")
        except Exception as error:  # stores and codecs raise what they like
            cause = error.__cause__ if isinstance(error, StoreError) and error.__cause__ else error
            problems.append(f"{what} cannot be read ({type(cause).__name__}: {cause})".splitlines()[0])
        return False

    check("the OME-Zarr metadata", lambda: _metadata_is_sound(mask))
    unfinished = ""
    if not told.get("looked"):
        return Verdict(tuple(problems), "its tissue is not known yet")
    check("the overview", lambda: _overview_is_sound(mask))
    scores = np.full((mask.spec.tiles.rows, mask.spec.tiles.cols), np.nan, np.float32)
    tissue = None
    if check("the tile table", lambda: _table_is_sound(mask, complete=bool(told.get("complete")))):
        ledger = Ledger.read(mask)
        scores, tissue = ledger.grid("uncertainty", np.nan), ledger.tissue
    check("the tissue", lambda: _tissue_is_sound(mask, tissue))
    shards = [shard for level in range(mask.levels) for shard in mask.shards(level)]
    listener(Started("verify", len(shards)))
    for shard in shards:
        name = f"shard ({shard.row}, {shard.col}) of level {shard.level}"
        check(name, lambda: _shard_is_sound(mask, shard, levels=bool(told.get("levels"))))  # noqa: B023
        if shard.level == 0:
            check(f"Model 1's probability under {name}", lambda: _probability_is_sound(mask, shard, scores))  # noqa: B023
        listener(TilesDone("verify", 1, mask.box(shard).area / 1e6))
    if problems:
        now = MaskPyramid.left(path).manifest
        with locked(mask.path, now.get("held_by")):
            if now != told:
                raise Busy(f"{path} was changed by another run while it was read; give the command again")
    else:
        ledger = Ledger.read(mask)
        pending, begun = int(ledger.having(Source.PENDING).sum()), int(ledger.open.sum())
        if pending:
            unfinished = f"{pending} tiles that Model 1 has not seen"
        elif not told.get("whole"):
            unfinished = "Model 1's mask is not written yet"
        elif not told.get("chosen", True):
            unfinished = "its tiles for Model 2 are not chosen yet"
        elif not told.get("complete"):
            unfinished = (
                f"{begun} chosen tiles that Model 2 has not seen" if begun else "its end was not noted"
            )
    return Verdict(tuple(problems), unfinished, mask.failed)


def _metadata_is_sound(mask: MaskPyramid) -> bool:
    """As it is written for this mask: of the groups that OME-Zarr knows, and of all arrays."""
    fresh, stored = create_store(MemoryStore(), mask.spec, {}), zarr.open_group(mask.path, mode="r")
    names = ("", "labels", f"labels/{mask.spec.name}")
    arrays = [(name, node) for name, node in fresh.members(max_depth=None) if isinstance(node, zarr.Array)]
    return all(dict(_group(stored, name).attrs) == dict(_group(fresh, name).attrs) for name in names) and all(
        _layout(zarr.open_array(mask.path, path=name, mode="r")) == _layout(array) for name, array in arrays
    )


def _layout(array: zarr.Array[Any]) -> tuple[object, ...]:
    """What a reader goes by; not how codecs are told, which another version of zarr may do otherwise."""
    names = array.metadata.to_dict().get("dimension_names")
    return array.shape, array.dtype, array.chunks, array.shards, array.fill_value, names


def _group(root: zarr.Group, name: str) -> zarr.Group:
    found = root[name] if name else root
    if not isinstance(found, zarr.Group):
        raise StoreError(f"{name} is no group")
    return found


def _overview_is_sound(mask: MaskPyramid) -> bool:
    """Each level is the mean of the finer one."""
    for level in range(mask.levels):
        grid, finer = mask.spec.overview(level), mask.spec.overview(max(level - 1, 0))
        for box in map(grid.box, grid):
            rgb = mask.read_overview(box, level)
            if level > 0:
                under = mask.read_overview(box.times(2).clip(finer.height, finer.width), level - 1)
                if not np.array_equal(rgb, np.moveaxis(mean(np.moveaxis(under, -1, 0)), 0, -1)):  # (H, W, 3)
                    return False
    return True


def _tissue_is_sound(mask: MaskPyramid, told: NDArray[np.bool_] | None) -> bool:
    """It touches the tiles, (rows, cols), of which the table tells; None: that cannot be asked."""
    tiles = tissue_tiles(mask.read_tissue(), mask.spec.tiles, mask.spec.overview_downsample) > 0
    return told is None or np.array_equal(tiles, told)


def _probability_is_sound(mask: MaskPyramid, shard: Shard, scores: NDArray[np.float32]) -> bool:
    """Each tile of a shard is as uncertain by it as ``scores``, (rows, cols), say; NaN says nothing."""
    said, edge, box = mask.manifest["uncertainty"], mask.spec.tiles.tile, mask.box(shard)
    own = box.coarser(mask.spec.ratio)
    probability = mask.read_probability(own)
    for tile in box.parts(edge):
        score = scores[tile.top // edge, tile.left // edge]
        if not np.isnan(score):
            part = probability[:, *tile.coarser(mask.spec.ratio).relative_to(own).slices]
            if not np.isclose(tile_mean(of_bytes(said, part), edge)[0, 0], score, rtol=1e-5, atol=1e-6):
                return False
    return True


def _table_is_sound(mask: MaskPyramid, *, complete: bool) -> bool:
    """It names each tissue tile once, and what a tile has of values follows from what it went through.

    Once the run is ``complete``, the map of sources and the counts say the same.
    """
    table, told = mask.tiles(), mask.manifest.get("counts", {})
    if len({len(column) for column in table.values()}) != 1:
        return False
    ledger, grid = Ledger.read(mask), mask.spec.tiles
    rows, cols, refined = table["row"], table["col"], table["source"] == Source.MODEL_2
    inside = bool(((rows >= 0) & (rows < grid.rows) & (cols >= 0) & (cols < grid.cols)).all())
    once = int(ledger.tissue.sum()) == len(rows)
    chosen = table["round"] >= 0
    places = np.stack([table["round"], table["rank"]])[:, chosen]
    ranked = np.array_equal(chosen, table["rank"] >= 0) and np.unique(places, axis=1).shape == places.shape
    measured = all(np.array_equal(~np.isnan(table[key]), refined) for key in ("disagreement", "milliseconds"))
    mapped = np.array_equal(mask.read_source(), ledger.grid("source", Source.BACKGROUND))
    sums = {"refined": int(refined.sum()), "changed": ledger.changed}
    counted = all(told.get(name, value) == value for name, value in sums.items())
    return inside and once and (not complete or (ranked and measured and mapped and counted))


def _shard_is_sound(mask: MaskPyramid, shard: Shard, *, levels: bool) -> bool:
    """Its labels are classes; a coarser one is the majority of what lies under it."""
    box = mask.box(shard)
    labels = mask.read(box, shard.level)
    if shard.level > 0 and levels:
        height, width = mask.shape(shard.level - 1)
        finer = mask.read(box.times(2).clip(height, width), shard.level - 1)
        if not np.array_equal(labels, majority(finer)):
            return False
    return int(labels.max(initial=0)) <= len(mask.spec.classes)
