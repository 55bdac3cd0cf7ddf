"""OME-Zarr image pyramids, 0.4 and 0.5, in folders and at URLs (NGFF specification, "multiscales")."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync
from zarr.storage import LocalStore

from wsi_twostage.errors import SlideError, UnreadableRegion
from wsi_twostage.slide.bounded import bounded
from wsi_twostage.slide.contents import (
    Contents,
    FileKey,
    FoundMpp,
    Level,
    Size,
    Unsupported,
    ensure_same,
    make_levels,
    on_background,
    said,
)
from wsi_twostage.slide.scale import mpp_of_axes
from wsi_twostage.tiles import Box

OURS = "wsi_twostage"
"""Group of a converted slide that says how it was made."""

PYRAMID = "wsi_twostage.pyramid"
"""The marker in it; that of a mask is `OURS`, so that neither takes the other for its own."""

BACKGROUND = 255  # under what has an alpha
_LARGEST_CHUNK_BYTES = 2**30  # a chunk is decoded as a whole; more than this is a damaged or hostile file
_SMALLEST_CHUNK_PX = 64  # of one channel; a request each, whatever it holds
_SAMPLES = (1, 3, 4)
_PRIMARY = ("FF0000", "00FF00", "0000FF")
_COLOUR = re.compile(r"[0-9A-F]{6}")
_PLAIN_LABEL = re.compile(r"(channel|ch|c)?[\s:_#-]*[\d:]*")
"""Of a channel that has no name of its own."""

_WRITER_LAYOUT = "bioformats2raw.layout"  # its images are in the groups 0, 1, ...


class _OpenZarr:
    """The arrays of one pyramid, finest first."""

    def __init__(self, key: FileKey) -> None:
        self.key = key
        try:
            group, told = _pyramid(zarr.open_group(key.path, mode="r"))
            _ensure_slide(key.path, group)
            self.axes = [str(axis["name"]).lower() for axis in told["axes"]]
            found = [group[str(level["path"])] for level in told["datasets"]]
            self.arrays = [array for array in found if isinstance(array, zarr.Array)]
            if not found or len(self.arrays) < len(found):
                raise SlideError(f"{key.path}: its multiscales name what is no array")
            _ensure_colour(key.path, self.axes, self.arrays)
            _ensure_no_stains(key.path, group)
            self._bounded = [bounded(array) for array in self.arrays]
            rows, cols = self.axes.index("y"), self.axes.index("x")
            first = self.arrays[0]
            version = told.get("version") or ("0.4" if first.metadata.zarr_format == 2 else "0.5")
            self.contents = Contents(
                format=f"OME-Zarr {version}",
                compression=_compression(first),
                levels=make_levels(
                    [Size(array.shape[rows], array.shape[cols]) for array in self.arrays],
                    [Size(array.chunks[rows], array.chunks[cols]) for array in self.arrays],
                ),
                mpp=_mpp(told, rows, cols),
            )
        except SlideError:
            raise
        except zarr.errors.GroupNotFoundError as error:
            raise Unsupported(f"{key.path}: a directory that holds no zarr group") from error
        except Exception as error:  # stores, codecs and what others wrote raise what they like
            raise Unsupported(
                f"{key.path}: no OME-Zarr image that can be read ({type(error).__name__}: {said(error)})"
            ) from error

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Pixels of a box of a level, (box.height, box.width, samples)."""
        rows, cols = box.slices
        wanted = {"y": rows, "x": cols, "c": slice(None)}
        array = np.asarray(self._bounded[level][tuple(wanted.get(axis, 0) for axis in self.axes)])
        kept = [axis for axis in self.axes if axis in wanted]
        array = array if "c" in kept else array[..., None]
        kept = kept if "c" in kept else [*kept, "c"]
        return array.transpose([kept.index(axis) for axis in "yxc"])

    def blank(self, level: int) -> int:
        """What a chunk that is not there has in all pixels."""
        value = self.arrays[level].fill_value
        return 0 if value is None else int(value)

    def ensure_there(self, level: int, box: Box) -> None:
        """A chunk that is not there is blank by the specification; one of an array that is gone is not.

        Nor is one that has a name and no content: a link to what is not there, as in a data set of which only
        the names were fetched.
        """
        array = self.arrays[level]
        told = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
        if not sync((array.store_path / told).exists()):
            raise SlideError(f"{self.key.path}: level {level} went away while it was read; run again")
        if isinstance(array.store, LocalStore):
            folder = array.store.root / array.path
            for key in self._chunks(array, box):
                if os.path.lexists(folder / key) and not os.path.isfile(folder / key):
                    raise UnreadableRegion(f"{folder / key}: no file, nor a link to one")

    def _chunks(self, array: zarr.Array[Any], box: Box) -> Iterator[str]:
        """Keys of what lies under a box; of shards, where there are some."""
        sides = array.shards or array.chunks
        across = {"y": range(box.top, box.bottom), "x": range(box.left, box.right)}
        whole = {"c": range(array.shape[self.axes.index("c")])} if "c" in self.axes else {}
        pixels = [(across | whole).get(axis, range(1)) for axis in self.axes]
        numbers = [
            range(along.start // side, -(-along.stop // side))
            for along, side in zip(pixels, sides, strict=True)
        ]
        yield from map(array.metadata.encode_chunk_key, product(*numbers))


@lru_cache(maxsize=16)
def _open(key: FileKey) -> _OpenZarr:
    return _OpenZarr(key)


def describe(path: str) -> Contents:
    """What the pyramid holds; reads no pixels.

    Raises
    ------
    Unsupported
        Not a zarr group, or none with an image.
    SlideError
        It holds no 8-bit colour or gray image.
    """
    return _open(FileKey.of(path)).contents


def read(path: str, level: Level, box: Box) -> NDArray[np.uint8]:
    """Pixels of a box inside ``level`` -> (box.height, box.width, 3).

    A chunk that was never written has the array's fill value, as the zarr specification says.

    Raises
    ------
    UnreadableRegion
        A chunk cannot be read or decoded.
    SlideError
        The pyramid was replaced, or went away.
    """
    opened = _open(FileKey.of(path))
    ensure_same(path, level, opened.contents.levels)
    try:
        pixels = opened.read(level.index, box)
    except Exception as error:  # stores and codecs raise what they like
        opened.key.ensure_current()
        raise UnreadableRegion(
            f"{path}: rows {box.top}..{box.bottom}, columns {box.left}..{box.right} of level {level.index} "
            f"cannot be read ({type(error).__name__}: {said(error)})"
        ) from error
    if (pixels == opened.blank(level.index)).all(axis=2).any():
        opened.ensure_there(level.index, box)
    samples = pixels.shape[2]
    rgb = on_background(pixels, BACKGROUND) if samples == 4 else pixels
    return np.ascontiguousarray(np.broadcast_to(rgb, (box.height, box.width, 3)))


def fingerprint(path: str) -> str:
    """sha256 of what describes the pyramid and its arrays, and of when that was written."""
    opened = _open(key := FileKey.of(path))
    told = [array.metadata.to_dict() for array in opened.arrays]
    return hashlib.sha256(json.dumps([told, key.mtime_ns], sort_keys=True, default=str).encode()).hexdigest()


def _pyramid(group: zarr.Group) -> tuple[zarr.Group, dict[str, Any]]:
    """The group of the first image and its first multiscales."""
    attributes: Mapping[str, Any] = group.attrs.asdict()
    told = attributes.get("ome", attributes)
    if "multiscales" not in told and _WRITER_LAYOUT in told:
        first = group["0"]
        assert isinstance(first, zarr.Group)
        return _pyramid(first)
    found = dict(told["multiscales"][0])
    return group, {"version": told.get("version", found.get("version")), **found}


def _ensure_slide(path: str, group: zarr.Group) -> None:
    """A result of ours shows only an overview; an interrupted conversion has blanks, which are no pixels."""
    made = group[OURS].attrs if OURS in group else {}
    if made.get("marker") == OURS:
        raise SlideError(f"{path}: a result, not a slide; give its slide, or wsi-seg refine the result")
    if made.get("marker") == PYRAMID and not made.get("complete"):
        raise SlideError(f"{path}: an unfinished conversion; give its wsi-seg convert again, which goes on")


def _ensure_colour(path: str, axes: list[str], arrays: list[zarr.Array[Any]]) -> None:
    """8-bit gray, RGB or RGBA of one plane, in chunks that can be read: as a whole, and one by one."""
    for array in arrays:
        sizes = dict(zip(axes, array.shape, strict=False))
        if len(axes) != array.ndim or not {"y", "x"} <= set(axes) or 0 in array.shape:
            raise SlideError(f"{path}: its axes are {axes}, its shape {array.shape}; an image is needed")
        if array.dtype != np.uint8:
            raise SlideError(f"{path}: its pixels are {array.dtype}; 8-bit (uint8) are needed")
        planes = {axis: size for axis, size in sizes.items() if axis not in "yxc" and size != 1}
        if planes or sizes.get("c", 1) not in _SAMPLES:
            raise SlideError(f"{path}: its axes are {sizes}; one colour image is needed")
        if np.prod(array.chunks, dtype=float) > _LARGEST_CHUNK_BYTES:
            raise SlideError(f"{path}: its chunks are {array.chunks}; they are too large to be decoded")
        chunk = [min(array.chunks[axes.index(axis)], sizes[axis]) for axis in "yx"]
        if math.prod(chunk) < min(_SMALLEST_CHUNK_PX, sizes["y"] * sizes["x"]):
            raise SlideError(f"{path}: its chunks are {array.chunks}; they are too small to be read in time")


def _ensure_no_stains(path: str, group: zarr.Group) -> None:
    """Channels with names, and colours, of their own, as of fluorescence, are no colour image."""
    attributes: Mapping[str, Any] = group.attrs.asdict()
    told = attributes.get("ome", attributes).get("omero")
    channels = told.get("channels") if isinstance(told, dict) else None
    if not isinstance(channels, list) or not all(isinstance(channel, dict) for channel in channels):
        return
    labels = [str(channel.get("label", "")).strip().lower() for channel in channels]
    colours = [str(channel.get("color", "")).upper() for channel in channels]
    plain = all(map(_PLAIN_LABEL.fullmatch, labels)) or [label[:1] for label in labels[:3]] == ["r", "g", "b"]
    coloured = len(set(colours)) == 3 and all(map(_COLOUR.fullmatch, colours)) and tuple(colours) != _PRIMARY
    if not plain and (len(channels) == 4 or (len(channels) == 3 and coloured)):
        raise SlideError(f"{path}: its channels are {', '.join(labels)}; one colour image is needed")


def _mpp(told: Mapping[str, Any], rows: int, cols: int) -> FoundMpp | None:
    """Of level 0: its scale, times the one of all levels, in the axes' units."""
    units = (told["axes"][rows].get("unit"), told["axes"][cols].get("unit"))
    scale = [1.0] * len(told["axes"])
    for place in (told["datasets"][0], told):
        for change in place.get("coordinateTransformations") or ():
            if change.get("type") == "scale" and "scale" in change:
                scale = [a * float(b) for a, b in zip(scale, change["scale"], strict=True)]
    return mpp_of_axes(scale[rows], scale[cols], units)


def _compression(array: zarr.Array[Any]) -> str:
    """Name of the first compressor, or of what makes bytes of the pixels."""
    codecs = [*array.compressors, *([array.serializer] if array.metadata.zarr_format == 3 else [])]
    names = [getattr(c, "codec_id", type(c).__name__.removesuffix("Codec").lower()) for c in codecs]
    return str(names[0]) if names and names[0] != "bytes" else "none"
