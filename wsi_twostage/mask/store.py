"""MaskPyramid: the OME-Zarr store of one slide's result, and the one way to write to it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from textwrap import shorten
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_twostage.drafts import whole_folder
from wsi_twostage.errors import Busy, ConfigError, StoreError, WsiError, similar_file
from wsi_twostage.mask.layout import OURS, create_store, ensure_may_be_written, read_attributes, result_in
from wsi_twostage.mask.reduce import majority, mean
from wsi_twostage.mask.spec import SHARD, MaskSpec, Shard
from wsi_twostage.mask.table import read_table, write_column, write_table
from wsi_twostage.tiles import Box, TileGrid


@dataclass(frozen=True, slots=True)
class MaskPyramid:
    """A mask on disk; picklable, because it holds a path and numbers and opens arrays when asked.

    Writers agree on one rule: a shard has one owner at a time and is written whole. Two writers in
    one shard lose pixels without an error. zarr's LocalStore (from 3.1.3) writes a file beside the
    shard and renames it, so a reader, or a run that was killed, sees the old shard or the new one.

    What cannot be decoded is a StoreError, a line that says which part of the result it is.
    """

    path: Path
    spec: MaskSpec

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        spec: MaskSpec,
        *,
        manifest: Mapping[str, object],
        overwrite: bool = False,
    ) -> Self:
        """Write an empty store; on failure nothing of it is left and what was there is as before.

        Raises
        ------
        StoreError
            The path exists; with ``overwrite``, it exists and is not a result of ours.
        """
        path = Path(path).absolute()  # workers may run in another folder
        free = partial(ensure_may_be_written, path, spec.name, overwrite=overwrite)
        with whole_folder(path, ensure_free=free) as folder:
            create_store(folder, spec, {**manifest, "whole": False, "complete": False})
        return cls(path, spec)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a store whose mask is whole: Model 1's everywhere, Model 2's where a run got to.

        Raises
        ------
        StoreError
            Nothing is there, it is not a result of ours, or its run was stopped before Model 1 had seen all.
        """
        pyramid = cls.left(path)
        if not pyramid.manifest.get("whole"):
            held = pyramid.manifest.get("held_by")
            who = f"{held.split(',')[0]} is at work on it, or was killed" if held else "its run was stopped"
            raise StoreError(f"{path}: {who} before the mask was whole; the same command goes on with it")
        return pyramid

    @classmethod
    def left(cls, path: str | os.PathLike[str]) -> Self:
        """Open what a run left, however far it got.

        Raises
        ------
        StoreError
            Nothing is there, or not a result of ours.
        """
        path = Path(path).absolute()
        if not os.path.exists(path):
            raise StoreError(f"{path} does not exist{similar_file(path)}")
        attributes = read_attributes(path)
        if attributes is None:
            raise StoreError(f"{path} is not a wsi_twostage result{result_in(path)}")
        if "whole" not in attributes.get("manifest", {}):
            raise StoreError(
                f"{path} was written by another version of wsi_twostage; --overwrite replaces it"
            )
        try:
            return cls(path, MaskSpec.from_json(attributes["spec"]))
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise StoreError(f"{path} was written by another version of wsi_twostage: {error}") from error

    def __fspath__(self) -> str:
        """A store can be given wherever its path can."""
        return str(self.path)

    @property
    def levels(self) -> int:
        return self.spec.levels

    def shape(self, level: int = 0) -> tuple[int, int]:
        """Height and width of a level of the mask, in its own pixels."""
        grid = self.spec.shards(level)
        return grid.height, grid.width

    def shards(self, level: int = 0) -> list[Shard]:
        """All shards of a level, row by row."""
        return [Shard(level, *tile) for tile in self.spec.shards(level)]

    def box(self, shard: Shard) -> Box:
        """Pixels of a shard in its level, clipped to the level."""
        return self.spec.box(shard)

    # The mask

    def write(self, shard: Shard, labels: NDArray[np.uint8]) -> None:
        """Write a whole shard, (H, W) as `box` says; a shard of zeros leaves no file."""
        box = self.box(shard)
        _ensure_fits(labels, (box.height, box.width))
        self._mask(shard.level)[box.slices] = labels

    def reduce(self, shard: Shard) -> None:
        """Write a shard of level 1 or above from its children, which must be written."""
        if shard.level == 0:
            raise ValueError("level 0 has no finer level to be reduced from")
        children = self.box(shard).times(2).clip(*self.shape(shard.level - 1))
        self.write(shard, majority(self.read(children, shard.level - 1)))

    def read(self, box: Box, level: int = 0) -> NDArray[np.uint8]:
        """Labels of a box inside the level, (H, W); raises ConfigError for one that is not inside."""
        if box.clip(*self.shape(level)) != box:
            height, width = self.shape(level)
            raise ConfigError(f"{box} is not inside level {level} of {self.path}, {height} x {width} px")
        with self.readable(f"labels of {_place(box)} of level {level}"):
            return np.asarray(self._mask(level)[box.slices], np.uint8)

    def lazy(self, level: int = 0) -> Any:
        """Labels of a level as a dask array, one block per shard; reads nothing."""
        import dask.array as da  # here, because a mask can be written and read without dask

        return da.from_array(self._mask(level), chunks=SHARD)

    # Model 1, on its own grid

    def write_probability(self, box: Box, probability: NDArray[np.uint8]) -> None:
        """Write (C, H, W), 255 times the probability, to whole shards; ``box`` in Model 1's pixels."""
        _ensure_whole(box, self.spec.coarse)
        _ensure_fits(probability, (self.spec.channels, box.height, box.width))
        self._array(f"{OURS}/probability")[:, *box.slices] = probability

    def read_probability(self, box: Box) -> NDArray[np.uint8]:
        """(C, H, W), 255 times the probability; ``box`` inside Model 1's grid, in its pixels."""
        with self.readable(f"Model 1's answer to {_place(box)} of its grid"):
            return np.asarray(self._array(f"{OURS}/probability")[:, *box.slices], np.uint8)

    # The overview

    def write_overview(self, box: Box, rgb: NDArray[np.uint8]) -> None:
        """Write (H, W, 3) to whole chunks of the overview; ``box`` in its pixels."""
        _ensure_whole(box, self.spec.overview(0))
        _ensure_fits(rgb, (box.height, box.width, 3))
        self._array("0")[:, *box.slices] = np.moveaxis(rgb, -1, 0)  # (3, H, W)

    def finish_overview(self) -> None:
        """Build the coarser levels of the overview once the first is there; one process does it."""
        for level in range(1, self.levels):
            finer, source = self.spec.overview(level - 1), self._array(str(level - 1))
            coarser, target = self.spec.overview(level), self._array(str(level))
            for box in map(coarser.box, coarser):
                under = box.times(2).clip(finer.height, finer.width)
                rgb = np.asarray(source[:, *under.slices], np.uint8)  # (3, 2H, 2W)
                target[:, *box.slices] = mean(rgb)  # (3, H, W)

    def read_overview(self, box: Box | None = None, level: int = 0) -> NDArray[np.uint8]:
        """Colours of a box inside a level of the overview, (H, W, 3); of all, some megabytes, if None."""
        self.spec.shards(level)  # says that there is no such level
        rows, cols = (slice(None), slice(None)) if box is None else box.slices
        with self.readable("the overview"):
            rgb = np.asarray(self._array(str(level))[:, rows, cols], np.uint8)  # (3, H, W)
        return np.ascontiguousarray(np.moveaxis(rgb, 0, -1))

    def write_tissue(self, tissue: NDArray[np.bool_]) -> None:
        """Write where there is tissue, (H, W) on the overview's pixels."""
        _ensure_fits(tissue, (self.spec.overview_height, self.spec.overview_width), dtype=np.bool_)
        self._array(f"{OURS}/tissue")[...] = tissue

    def read_tissue(self) -> NDArray[np.bool_]:
        """Where there is tissue, (H, W) on the overview's pixels."""
        with self.readable("the tissue"):
            return np.asarray(self._array(f"{OURS}/tissue")[...], np.bool_)

    # The tiles and the end of a run

    def write_source(self, source: NDArray[np.uint8]) -> None:
        """Write where the labels of each tile come from, (rows, cols) of `Source`."""
        _ensure_fits(source, (self.spec.tiles.rows, self.spec.tiles.cols))
        self._array(f"{OURS}/source")[...] = source

    def read_source(self) -> NDArray[np.uint8]:
        """Where the labels of each tile come from, (rows, cols) of `Source`."""
        with self.readable("the map of sources"):
            return np.asarray(self._array(f"{OURS}/source")[...], np.uint8)

    def write_tiles(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Replace the tile table; columns are numbers or booleans, one value per row."""
        write_table(self._group(), "tiles", columns)

    def write_tile_column(self, name: str, column: NDArray[Any]) -> None:
        """Replace one column of the tile table; it is there whole, or as it was."""
        write_column(self._group(), "tiles", name, column)

    def tiles(self) -> dict[str, NDArray[Any]]:
        """The tile table, column by column, in the order it was written."""
        with self.readable("the tile table"):
            return read_table(self._group(), "tiles")

    @contextmanager
    def readable(self, what: str = "") -> Iterator[None]:
        """Whatever goes wrong in the block, which reads ``what`` of this store, is one line.

        Raises
        ------
        StoreError
            The store is gone or damaged.
        """
        try:
            yield
        except WsiError:
            raise
        except Exception as error:  # zarr and codecs raise what they like
            kind, reason = type(error).__name__, shorten(str(error), 60, placeholder=" …")
            raise StoreError(
                f"{self.path}: {what + ' ' if what else ''}cannot be read ({kind}: {reason}); "
                f"wsi-seg verify says what is damaged"
            ) from error

    @contextmanager
    def unreplaced(self, while_it: str) -> Iterator[None]:
        """Around what reads several parts, ``while_it`` is "exported": they are of one result.

        Raises
        ------
        StoreError
            Another one lies there at the end.
        Busy
            Another run began to change it meanwhile, or finished; what one writes all the while is not told.
        """

        def state() -> tuple[Any, ...]:
            told = self.manifest
            return tuple(
                told.get(name) for name in ("complete", "rule", "further", "audit", "counts", "seconds")
            )

        self._ensure_there()
        before, told = self.path.stat().st_ino, state()
        yield
        self._ensure_there()
        if self.path.stat().st_ino != before:
            raise StoreError(f"{self.path} was replaced while it was {while_it}; run again")
        if state() != told:
            raise Busy(
                f"{self.path} was changed by another run while it was {while_it}; give the command again"
            )

    @property
    def manifest(self) -> dict[str, Any]:
        """What made this result.

        ``whole``: every tissue tile has an answer. ``complete``: Model 2 has seen all that the rule gave it.
        """
        attributes: dict[str, Any] = dict(self._group().attrs)
        return {**attributes["manifest"]}

    @property
    def failed(self) -> int:
        """Tiles that lack an answer which they should have, as the last run counted them; `Counts.failed`."""
        counts = self.manifest.get("counts", {})
        return int(counts.get("unreadable", 0) + counts.get("crashed", 0))

    def note(self, **facts: object) -> None:
        """Add to the manifest, or change what it says; it is one file, so all of it or nothing."""
        manifest: dict[str, Any] = {**self.manifest, **facts}
        self._group().attrs["manifest"] = manifest

    def _group(self) -> zarr.Group:
        """Our own group, opened anew: another process may have changed its attributes."""
        self._ensure_there()
        return zarr.open_group(self.path, path=OURS, mode="r+")

    def _mask(self, level: int) -> zarr.Array[Any]:
        self.spec.shards(level)  # says that there is no such level
        return self._array(f"labels/{self.spec.name}/{level}")

    def _array(self, name: str) -> zarr.Array[Any]:
        self._ensure_there()
        return _open_array(self.path, self.spec, name)

    def _ensure_there(self) -> None:
        """What zarr does not find it takes for empty."""
        if not self.path.exists():
            raise StoreError(f"{self.path} is gone, or lies elsewhere by now")


@lru_cache(maxsize=256)
def _open_array(path: Path, spec: MaskSpec, name: str) -> zarr.Array[Any]:
    """An array of a store, opened once per process.

    The spec is part of the key: a store that was overwritten has arrays of another shape.
    """
    return zarr.open_array(path, path=name, mode="r+")


def _place(box: Box) -> str:
    return f"rows {box.top}..{box.bottom}, columns {box.left}..{box.right}"


def _ensure_fits(array: NDArray[Any], shape: tuple[int, ...], *, dtype: type = np.uint8) -> None:
    """What is written has the shape of its box and the type of its array.

    zarr would stretch a single value over the box, and turn probabilities of 0..1 into zeros.
    """
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"expected {np.dtype(dtype)} of shape {shape}, got {array.dtype} of {array.shape}")


def _ensure_whole(box: Box, grid: TileGrid) -> None:
    """A box starts and ends where shards (or chunks) do; else two writers could share one."""
    ends = ((box.bottom, grid.height), (box.right, grid.width))
    starts_whole = box.top % grid.tile == 0 and box.left % grid.tile == 0
    ends_whole = all(end == size or (end < size and end % grid.tile == 0) for end, size in ends)
    if not (starts_whole and ends_whole):
        raise ValueError(f"{box} is not made of whole blocks of {grid}")
