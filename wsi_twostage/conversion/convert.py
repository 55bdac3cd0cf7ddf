"""convert(): a slide as an OME-Zarr image pyramid, all levels in one pass over the slide.

What is written, and from what, is in `levels`; here are the order, the store and its safety.
"""

import os
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from dask.system import CPU_COUNT
from zarr.codecs import TransposeCodec, ZstdCodec

from wsi_twostage.conversion import levels
from wsi_twostage.conversion.levels import FINE, Pyramid, write_block, write_coarse
from wsi_twostage.drafts import ensure_only, whole_folder
from wsi_twostage.errors import ConfigError, LostSlide, SlideError, StoreError, UnreadableRegion, WriteError
from wsi_twostage.events import Finished, Listener, Started, TilesDone, ignore
from wsi_twostage.lock import locked
from wsi_twostage.slide import Slide, open_slide
from wsi_twostage.slide.contents import is_url
from wsi_twostage.slide.jpeg_codec import JpegCodec
from wsi_twostage.slide.ngff import write_multiscales
from wsi_twostage.slide.ome_zarr import OURS, PYRAMID

_BACKGROUND = 255  # chunks of nothing else are not written
_STATE = ("sums", "done")  # arrays of an unfinished pyramid
_JPEG_QUALITY = range(1, 101)
_EXISTS = (
    "{} exists, and is not this conversion; give another output, or --overwrite for what an earlier "
    "conversion left"
)


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
        It cannot be read; `UnreadableRegion`, if a part of it cannot: nothing is put in its place;
        `LostSlide`, if it went away meanwhile, or another came: the same call goes on with what is there.
    StoreError
        Something else is at ``output``, or another conversion writes there.
    WriteError
        It cannot be written.
    """
    workers = CPU_COUNT if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers={workers}; at least 1")
    slide = slide if isinstance(slide, Slide) else open_slide(slide, mpp)
    root, quality, identity = Path(output), _quality(compression), slide.identity
    manifest = {
        "version": version("wsi-twostage"),
        "slide": {
            "fingerprint": identity.fingerprint,
            "mpp": slide.mpp,
            "reader": slide.reader,
            "origin": list(slide.origin),
        },
        "compression": "zstd" if quality is None else f"jpeg:{quality}",
    }
    _ensure_apart(slide, root)
    pyramid = Pyramid(root, slide.views(), identity)
    known = _attributes(root)
    if overwrite or known is None or known["manifest"] != manifest:
        _create(pyramid, manifest, _codecs(quality), overwrite=overwrite)
    with locked(root):
        known = _attributes(root)
        if known is None or known["manifest"] != manifest:  # another conversion had its turn first
            raise StoreError(_EXISTS.format(root))
        if not known["complete"]:
            _write(pyramid, workers, listener)
    return root


def _write(pyramid: Pyramid, workers: int, listener: Listener) -> None:
    """What is not there yet."""
    done = np.asarray(pyramid.state("done")[...])
    todo = [tile for tile in pyramid.blocks if not done[tile]]
    shards = list(pyramid.shards)
    try:
        with ThreadPoolExecutor(workers) as pool:
            blocks = (pool.submit(write_block, pyramid, tile) for tile in todo)
            _through(blocks, "finest levels", len(todo), 2 * workers, listener)
            rest = (pool.submit(write_coarse, pyramid, index, box) for index, box in shards)
            _through(rest, "coarser levels", len(shards), 2 * workers, listener)
        ours = zarr.open_group(pyramid.root, path=OURS, mode="r+")
        ours.attrs["complete"] = True
        for name in _STATE:
            del ours[name]
    except OSError as error:
        raise WriteError.of(pyramid.root, error) from error
    except UnreadableRegion:
        raise
    except SlideError as error:
        raise LostSlide(f"{error}") from error


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


def _create(pyramid: Pyramid, manifest: dict[str, Any], codecs: dict[str, Any], *, overwrite: bool) -> None:
    """Groups, metadata and empty arrays; they appear whole or not at all."""
    free = partial(_ensure_free, pyramid.root, overwrite=overwrite)
    try:
        with whole_folder(pyramid.root, ensure_free=free) as new:
            _write_empty(new, pyramid, manifest, codecs)
    except OSError as error:
        raise WriteError.of(pyramid.root, error) from error


def _ensure_free(root: Path, *, overwrite: bool) -> None:
    """Nothing is there, or an earlier conversion that the user gave up."""
    if root.is_symlink():  # it would be replaced while its target stays
        raise StoreError(f"{root} is a link to {os.readlink(root)}; give that as the output")
    if root.exists():
        if not overwrite or _attributes(root) is None:
            raise StoreError(_EXISTS.format(root))
        ensure_only(root, ("zarr.json", OURS))


def _write_empty(place: Path, pyramid: Pyramid, manifest: dict[str, Any], codecs: dict[str, Any]) -> None:
    root, views = zarr.create_group(place, zarr_format=3), pyramid.views
    for index, view in enumerate(views):
        shard = levels.BLOCK >> index if index < FINE else levels.BLOCK
        root.create_array(
            str(index),
            shape=(3, view.height, view.width),
            dtype="uint8",
            chunks=(3, levels.CHUNK, levels.CHUNK),
            shards=(3, shard, shard),
            fill_value=_BACKGROUND,
            dimension_names=["c", "y", "x"],
            config={"write_empty_chunks": False},
            **codecs,
        )
    write_multiscales(root, views)
    ours = root.create_group(OURS)
    grid, cell = pyramid.blocks, 2**FINE
    part = levels.BLOCK // cell
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
