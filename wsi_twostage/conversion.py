"""convert(): a slide as an OME-Zarr image pyramid, all levels in one pass over the slide.

A block of level 0 is read once; a worker that has it writes the shards that it covers on the finest levels,
and the sums of its pixels over cells, from which the coarser levels are made at the end. Each pixel of a
level is what `Slide.view` gives at that downsample: a stored level where there is one, else the exact mean.
So a run on the pyramid gives the mask of a run on the slide.
"""

import os
import shutil
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from zarr.codecs import TransposeCodec, ZstdCodec

from wsi_twostage.errors import ConfigError, StoreError, WriteError
from wsi_twostage.events import Finished, Listener, Started, TilesDone, ignore
from wsi_twostage.slide import Slide, View, open_slide
from wsi_twostage.slide.contents import is_url
from wsi_twostage.slide.jpeg_codec import JpegCodec
from wsi_twostage.slide.ngff import write_multiscales
from wsi_twostage.slide.ome_zarr import OURS, PYRAMID
from wsi_twostage.slide.resample import cell_sums, divide, shrink
from wsi_twostage.tiles import Box, TileGrid

BLOCK = 2048
"""Edge, in px of level 0, of what a worker holds: 12.6 MB. Its shards on levels 0, 1 and 2 are its own."""
CHUNK = 512  # px: the least that a reader decodes; a shard of level 2 is one
_FINE = 3  # levels whose shards lie in one block; the others are made from its sums, of 8 x 8 px: 16 bits
_BACKGROUND = 255  # chunks of nothing else are not written
_STATE = ("sums", "done")  # arrays of an unfinished pyramid
_JPEG_QUALITY = range(1, 101)


@dataclass(frozen=True, eq=False)
class _Pyramid:
    """The levels to write, and what they are made from."""

    root: Path
    views: tuple[View, ...]
    """The slide at downsamples 1, 2, 4, ..."""

    def level(self, index: int) -> zarr.Array[Any]:
        return self._array(str(index))

    def state(self, name: str) -> zarr.Array[Any]:
        return self._array(f"{OURS}/{name}")

    def _array(self, path: str) -> zarr.Array[Any]:
        return zarr.open_array(self.root, path=path, mode="r+")

    @property
    def blocks(self) -> TileGrid:
        return TileGrid(self.views[0].height, self.views[0].width, BLOCK)

    def summed(self, index: int) -> bool:
        """Whether a level comes from the pixels of level 0: it is not made from a coarser stored one."""
        return self.views[index].level.index == 0


def convert(
    slide: str | os.PathLike[str] | Slide,
    output: str | os.PathLike[str],
    *,
    mpp: float | None = None,
    compression: str = "zstd",
    workers: int | None = None,
    overwrite: bool = False,
    listener: Listener = ignore,
) -> Path:
    """Write the slide as an OME-Zarr 0.5 image pyramid, and return its folder.

    Parameters
    ----------
    output
        The new folder. What an interrupted conversion of the same slide left there is gone on with.
    compression
        ``zstd``: the pixels as they are. ``jpeg`` or ``jpeg:90``: smaller; only what has this package
        installed can read it.
    workers
        Threads, each of which holds about 100 MB; as many as the process may use cores, if None.

    Raises
    ------
    SlideError
        It cannot be read; `UnreadableRegion`, if a part of it cannot: nothing is put in its place.
    StoreError
        Something else is at ``output``.
    WriteError
        It cannot be written.
    """
    workers = CPU_COUNT if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers={workers}; at least 1")
    slide = slide if isinstance(slide, Slide) else open_slide(slide, mpp)
    root, quality = Path(output), _quality(compression)
    manifest = {
        "version": version("wsi-twostage"),
        "slide": {
            "fingerprint": slide.fingerprint,
            "mpp": slide.mpp,
            "reader": slide.reader,
            "origin": list(slide.origin),
        },
        "compression": "zstd" if quality is None else f"jpeg:{quality}",
    }
    _ensure_apart(slide, root)
    pyramid = _Pyramid(root, slide.views())
    known = _attributes(root)
    if known is not None and known["manifest"] == manifest and not overwrite:
        if known["complete"]:
            return root
    else:
        _create(pyramid, manifest, _codecs(quality), overwrite=overwrite and known is not None)
    done = np.asarray(pyramid.state("done")[...])
    todo = [tile for tile in pyramid.blocks if not done[tile]]
    shards = [
        (index, box) for index in range(_FINE, len(pyramid.views)) for box in _shards(pyramid.views[index])
    ]
    try:
        with ThreadPoolExecutor(workers) as pool:
            blocks = (pool.submit(_write_block, pyramid, tile) for tile in todo)
            _through(blocks, "finest levels", len(todo), 2 * workers, listener)
            rest = (pool.submit(_write_coarse, pyramid, index, box) for index, box in shards)
            _through(rest, "coarser levels", len(shards), 2 * workers, listener)
        ours = zarr.open_group(root, path=OURS, mode="r+")
        ours.attrs["complete"] = True
        for name in _STATE:
            del ours[name]
    except OSError as error:
        raise WriteError.of(root, error) from error
    return root


def _ensure_apart(slide: Slide, root: Path) -> None:
    """The slide does not lie where its copy goes, nor inside of it, nor the other way round."""
    if is_url(slide.path):
        return
    source, target = Path(slide.path).resolve(), root.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise StoreError(f"{root}: the slide itself lies there; give another output")


def _quality(compression: str) -> int | None:
    """Of JPEG; None is zstd."""
    name, _, quality = compression.partition(":")
    if compression == "zstd":
        return None
    quality = quality or str(JpegCodec.quality)
    if name != "jpeg" or not quality.isdecimal() or int(quality) not in _JPEG_QUALITY:
        raise ConfigError(f"compression={compression!r}; use zstd, jpeg, or jpeg:1 to jpeg:100")
    return int(quality)


def _codecs(quality: int | None) -> dict[str, Any]:
    """Arguments of zarr's `create_array`."""
    if quality is None:
        return {"compressors": ZstdCodec(level=3)}
    return {
        "filters": [TransposeCodec(order=(1, 2, 0))],
        "serializer": JpegCodec(quality=quality),
        "compressors": None,
    }


def _create(pyramid: _Pyramid, manifest: dict[str, Any], codecs: dict[str, Any], *, overwrite: bool) -> None:
    """Groups, metadata and empty arrays; they appear whole or not at all."""
    if pyramid.root.exists() and not overwrite:
        raise StoreError(
            f"{pyramid.root} exists, and is not this conversion; give another output, or --overwrite for "
            f"what an earlier conversion left"
        )
    new = pyramid.root.with_name(f".{pyramid.root.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        _write_empty(new, pyramid, manifest, codecs)
        if pyramid.root.exists():
            shutil.rmtree(pyramid.root)
        new.rename(pyramid.root)
    except OSError as error:
        raise WriteError.of(pyramid.root, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _write_empty(place: Path, pyramid: _Pyramid, manifest: dict[str, Any], codecs: dict[str, Any]) -> None:
    root, views = zarr.create_group(place, zarr_format=3), pyramid.views
    for index, view in enumerate(views):
        shard = BLOCK >> index if index < _FINE else BLOCK
        root.create_array(
            str(index),
            shape=(3, view.height, view.width),
            dtype="uint8",
            chunks=(3, CHUNK, CHUNK),
            shards=(3, shard, shard),
            fill_value=_BACKGROUND,
            dimension_names=["c", "y", "x"],
            config={"write_empty_chunks": False},
            **codecs,
        )
    write_multiscales(root, views)
    ours = root.create_group(OURS)
    grid, cell = pyramid.blocks, 2**_FINE
    part = BLOCK // cell
    sums = (3, -(-views[0].height // cell), -(-views[0].width // cell))
    ours.create_array(
        "sums", shape=sums, dtype="uint16", chunks=(3, part, part), compressors=ZstdCodec(level=1)
    )
    ours.create_array("done", shape=(grid.rows, grid.cols), dtype="bool", chunks=(1, 1))
    ours.attrs.update({"marker": PYRAMID, "manifest": manifest, "complete": False})


def _attributes(root: Path) -> dict[str, Any] | None:
    """What an earlier conversion says of itself; None where there is none."""
    try:
        attributes = zarr.open_group(root, path=OURS, mode="r").attrs.asdict()
    except Exception:  # whatever lies there, it is none of ours
        return None
    known = attributes.get("marker") == PYRAMID and {"manifest", "complete"} <= set(attributes)
    return attributes if known else None


def _write_block(pyramid: _Pyramid, tile: Any) -> float:
    """Everything that comes from one block of level 0; gives its megapixels."""
    box = pyramid.blocks.box(tile)
    full = pyramid.views[0].read(box)
    for index, view in enumerate(pyramid.views[:_FINE]):
        there, cell = _part(box, view, 2**index), 2**index
        own = pyramid.summed(index)
        pixels = full if index == 0 else shrink(full, cell, cell) if own else view.read(there)
        _put(pyramid.level(index), there, pixels)
    if any(map(pyramid.summed, range(_FINE, len(pyramid.views)))):
        cell = 2**_FINE
        there = Box(box.top // cell, box.left // cell, -(-box.height // cell), -(-box.width // cell))
        _put(pyramid.state("sums"), there, cell_sums(full, cell, cell).astype(np.uint16))
    pyramid.state("done")[tile.row, tile.col] = True
    return box.area / 1e6


def _write_coarse(pyramid: _Pyramid, index: int, box: Box) -> float:
    """One shard of a level above the blocks' own; gives its megapixels."""
    view, more = pyramid.views[index], 2 ** (index - _FINE)
    if not pyramid.summed(index):
        _put(pyramid.level(index), box, view.read(box))
        return box.area / 1e6
    pixels = np.empty((box.height, box.width, 3), np.uint8)
    step, sums = max(BLOCK // more, 1), pyramid.state("sums")
    full = pyramid.views[0]
    for part in box.parts(step):  # as many sums as a block has pixels, whatever the level
        of_sums = part.times(more).clip(*sums.shape[1:])
        found = np.asarray(sums[:, *of_sums.slices]).transpose(1, 2, 0)
        total = np.add.reduceat(found, range(0, found.shape[0], more), axis=0, dtype=np.uint32)
        total = np.add.reduceat(total, range(0, found.shape[1], more), axis=1)
        rows = _cells(part.top, part.bottom, 2**index, full.height)
        cols = _cells(part.left, part.right, 2**index, full.width)
        pixels[part.relative_to(box).slices] = divide(total, rows, cols)
    _put(pyramid.level(index), box, pixels)
    return box.area / 1e6


def _cells(first: int, last: int, cell: int, size: int) -> NDArray[np.float64]:
    """Pixels of level 0 in each of the cells, along an axis of ``size`` px."""
    return np.diff(np.minimum(np.arange(first, last + 1) * cell, size)).astype(np.float64)


def _part(box: Box, view: View, downsample: int) -> Box:
    """A block on a coarser level."""
    top, left = box.top // downsample, box.left // downsample
    bottom, right = -(-box.bottom // downsample), -(-box.right // downsample)
    return Box(top, left, min(bottom, view.height) - top, min(right, view.width) - left)


def _put(array: zarr.Array[Any], box: Box, pixels: NDArray[Any]) -> None:
    """(H, W, 3) into (3, rows, cols)."""
    array[:, *box.slices] = np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _shards(view: View) -> Iterator[Box]:
    return Box(0, 0, view.height, view.width).parts(BLOCK)


def _through(jobs: Iterable[Future[float]], stage: str, total: int, limit: int, listener: Listener) -> None:
    """Wait for all jobs; at most ``limit`` of them are waiting or at work."""
    start, jobs = time.perf_counter(), iter(jobs)
    listener(Started(stage, total))
    waiting = deque(islice(jobs, limit))
    try:
        while waiting:
            megapixels = waiting.popleft().result()
            waiting.extend(islice(jobs, 1))
            listener(TilesDone(stage, 1, megapixels))
    finally:
        for job in waiting:
            job.cancel()
    listener(Finished(stage, time.perf_counter() - start))
