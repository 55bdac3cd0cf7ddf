"""Slides that OpenSlide reads: MRXS, NDPI, SCN, DICOM and more; the only file that speaks (x, y, level 0)."""

import math
import os
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np
import openslide
from numpy.typing import NDArray

from wsi_twostage.errors import SlideError, UnreadableRegion
from wsi_twostage.slide.contents import (
    Contents,
    FileKey,
    Level,
    Size,
    Unsupported,
    cannot_open,
    ensure_same,
    make_levels,
    on_background,
    said,
)
from wsi_twostage.slide.scale import mpp_of_ome, mpp_of_text
from wsi_twostage.slide.tiff_pages import largest_of
from wsi_twostage.tiles import Box

_LIMIT_PX = 4096  # OpenSlide cuts larger reads itself, and rounds where each part begins
_EXACT_PX = 1 / 512  # a shift below this leaves the pixels as they are (cairo counts in 1/256)
_TILE = "256"  # where a format has no tiles of its own

_ANY_TIFF = "generic-tiff"
_FORMATS = {
    "aperio": "Aperio SVS",
    "dicom": "DICOM",
    _ANY_TIFF: "generic TIFF",
    "hamamatsu": "Hamamatsu",
    "leica": "Leica SCN",
    "mirax": "MIRAX",
    "philips": "Philips TIFF",
    "ventana": "Ventana",
}

_SYNTAXES = {  # DICOM PS3.6, table A-1
    "1.2.840.10008.1.2": "none",
    "1.2.840.10008.1.2.1": "none",
    "1.2.840.10008.1.2.4.50": "JPEG",
    "1.2.840.10008.1.2.4.90": "JPEG 2000",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE",
}


class _OpenSlide:
    """A slide and the one handle that the threads of a process share.

    OpenSlide's handle fails for ever after its first error, whichever thread caused it. So a region that
    fails is read again through a new handle that no other thread has; only if that fails is it unreadable.
    """

    def __init__(self, key: FileKey) -> None:
        self.key = key
        self._lock = threading.Lock()
        handle = _new_handle(key)
        try:
            self.contents = _describe(key.path, handle)
            self.quick_hash = str(handle.properties.get(openslide.PROPERTY_NAME_QUICKHASH1, ""))
            self.ratios: tuple[float, ...] = handle.level_downsamples
            colour = handle.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")
            self.background = np.frombuffer(bytes.fromhex(colour), np.uint8)
        except openslide.OpenSlideError as error:
            raise _cannot_open(key, error) from error
        self._handle: openslide.OpenSlide | None = handle

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """``size`` is (width, height) -> (height, width, 4); raises OpenSlideError."""
        handle = self._handle or self._reopen()
        try:
            return np.asarray(handle.read_region(location, level, size))
        except openslide.OpenSlideError:
            with self._lock:
                if self._handle is handle:
                    self._handle = None
                fresh = _new_handle(self.key)
                pixels = np.asarray(fresh.read_region(location, level, size))
                self._handle = fresh
                return pixels

    def _reopen(self) -> openslide.OpenSlide:
        with self._lock:
            if self._handle is None:
                self._handle = _new_handle(self.key)
            return self._handle


def _new_handle(key: FileKey) -> openslide.OpenSlide:
    key.ensure_current()
    try:
        open(key.path, "rb").close()  # OpenSlide would not say why
        return openslide.OpenSlide(key.path)
    except OSError as error:
        raise cannot_open(key.path, error) from error
    except openslide.OpenSlideError as error:
        raise _cannot_open(key, error) from error


def _cannot_open(key: FileKey, error: openslide.OpenSlideError) -> Unsupported:
    return Unsupported(f"{key.path}: OpenSlide cannot open it ({said(error)})")


@lru_cache(maxsize=8)
def _open(key: FileKey, process: int) -> _OpenSlide:
    """One per file and process: a handle inherited by a fork would share its file positions."""
    return _OpenSlide(key)


def describe(path: str) -> Contents:
    """What the slide holds; reads no pixels.

    Raises
    ------
    Unsupported
        OpenSlide does not know the format.
    SlideError
        The file cannot be opened.
    """
    return _open(FileKey.of(path), os.getpid()).contents


def quick_hash(path: str) -> str:
    """OpenSlide's key of the slide's content, over all of its files; empty where it has none."""
    return _open(FileKey.of(path), os.getpid()).quick_hash


def _describe(path: str, slide: openslide.OpenSlide) -> Contents:
    properties = slide.properties
    scanned = _scanned(slide)
    sizes = [Size(height, width) for width, height in slide.level_dimensions]
    if scanned != _canvas(slide):
        sizes = [
            Size(max(round(scanned.height / ratio), 1), max(round(scanned.width / ratio), 1))
            for ratio in slide.level_downsamples
        ]
    tiles = [
        Size(
            int(properties.get(f"openslide.level[{index}].tile-height", _TILE)),
            int(properties.get(f"openslide.level[{index}].tile-width", _TILE)),
        )
        for index in range(slide.level_count)
    ]
    vendor, compression = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"), _compression(properties)
    told = None if compression else largest_of(path)
    mpp = mpp_of_text(
        properties.get(openslide.PROPERTY_NAME_MPP_Y, ""),
        properties.get(openslide.PROPERTY_NAME_MPP_X, ""),
        "openslide.mpp",
    )
    if vendor == _ANY_TIFF and told is not None:  # OpenSlide takes the first image, and the tags' scale
        first, largest = _canvas(slide), told.size
        if (first.height, first.width) != largest:
            raise SlideError(
                f"{path}: its first image, of {first.height} x {first.width} px, is not the largest, of "
                f"{largest.height} x {largest.width} px, which can be read as interleaved RGB in tiles"
            )
        mpp = mpp_of_ome(told.ome, told.size) or mpp
    return Contents(
        format=_FORMATS.get(vendor, vendor),
        compression=compression or (told.compression if told else "unknown"),
        levels=make_levels(sizes, tiles),
        mpp=mpp,
        origin=(scanned.top, scanned.left),
        bounds=_bounds(slide),
    )


def _compression(properties: Mapping[str, str]) -> str | None:
    """Of level 0, in the format's own words; OpenSlide has no common ones, and none of a TIFF's."""
    if syntax := properties.get("dicom.TransferSyntaxUID"):
        return _SYNTAXES.get(syntax, syntax)
    finest = properties.get("mirax.HIERARCHICAL.HIER_0_VAL_0_SECTION")
    return properties.get(f"mirax.{finest}.IMAGE_FORMAT")


def _canvas(slide: openslide.OpenSlide) -> Box:
    width, height = slide.dimensions
    return Box(0, 0, height, width)


def _bounds(slide: openslide.OpenSlide) -> tuple[int, int]:
    """Where the slide says that the scanned part begins, (row, col); (0, 0) where it does not."""
    names = openslide.PROPERTY_NAME_BOUNDS_Y, openslide.PROPERTY_NAME_BOUNDS_X
    try:
        row, col = (int(slide.properties[name]) for name in names)
    except (KeyError, ValueError):
        return 0, 0
    return row, col


def _scanned(slide: openslide.OpenSlide) -> Box:
    """The part of level 0 that was scanned, where the slide says so.

    MRXS lies on a canvas many times larger. The part is widened up and to the left until it begins at a whole
    pixel of every level.
    """
    names = (
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
    )
    canvas = _canvas(slide)
    try:
        top, left, height, width = (int(slide.properties[name]) for name in names)
    except (KeyError, ValueError):
        return canvas
    step = math.lcm(*(max(round(ratio), 1) for ratio in slide.level_downsamples))
    bottom, right = top + height, left + width
    top, left = max(top, 0) // step * step, max(left, 0) // step * step
    found = Box(top, left, bottom - top, right - left).clip(canvas.height, canvas.width)
    starts = (at / ratio for at in (found.top, found.left) for ratio in slide.level_downsamples)
    exact = all(abs(start - round(start)) < _EXACT_PX for start in starts)
    return found if found.area and exact else canvas


def read(path: str, level: Level, box: Box) -> NDArray[np.uint8]:
    """Pixels of a box inside ``level`` -> (box.height, box.width, 3).

    Raises
    ------
    UnreadableRegion
        OpenSlide cannot read it.
    SlideError
        The file cannot be opened any more, or was replaced.
    """
    slide = _open(FileKey.of(path), os.getpid())
    ensure_same(path, level, slide.contents.levels)
    ratio, (first_y, first_x) = slide.ratios[level.index], slide.contents.origin
    out = np.empty((box.height, box.width, 3), np.uint8)
    for top, first_row, last_row in _spans(box.top, box.bottom, _exact_starts(level.height, ratio)):
        for left, first_col, last_col in _spans(box.left, box.right, _exact_starts(level.width, ratio)):
            location = round(left * ratio) + first_x, round(top * ratio) + first_y  # of level 0
            try:
                pixels = slide.read_region(location, level.index, (last_col - left, last_row - top))
            except openslide.OpenSlideError as error:
                raise UnreadableRegion(
                    f"{path}: rows {first_row}..{last_row}, columns {first_col}..{last_col} "
                    f"of level {level.index} cannot be read ({said(error)})"
                ) from error
            rgba = pixels[first_row - top :, first_col - left :]
            part = Box(first_row, first_col, last_row - first_row, last_col - first_col)
            out[part.relative_to(box).slices] = on_background(rgba, slide.background)
    return out


@lru_cache(maxsize=64)
def _exact_starts(size: int, ratio: float) -> NDArray[np.int64]:
    """Pixels of a level, along one axis, where a read may begin and give the level's own pixels.

    A read begins at a whole pixel of level 0, which OpenSlide divides by its own ratio (the mean of both
    axes: 2.0005 for a level that was halved); where that lands between two pixels, it blends them.
    """
    pixel = np.arange(size)
    shift = np.abs(np.rint(pixel * ratio) / ratio - pixel)
    return np.flatnonzero(shift < _EXACT_PX)  # 0 is always one


def _spans(first: int, last: int, starts: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Cut ``first..last`` into reads: (where the read begins, first and last pixel wanted of it).

    Each begins at the last exact start before what is wanted. Where that is farther than one read can
    reach (levels over 4096 px with a ratio a hair off a whole number), reads begin on a fixed lattice,
    blended by less than ``0.5 / ratio`` px: a pixel is the same whatever box it is read in.
    """
    while first < last:
        place = int(np.searchsorted(starts, first, side="right"))
        exact = int(starts[place - 1])
        begin = exact + (first - exact) // _LIMIT_PX * _LIMIT_PX
        end = min(last, begin + _LIMIT_PX)
        if begin != exact and place < len(starts):
            end = min(end, int(starts[place]))
        yield begin, first, end
        first = end
