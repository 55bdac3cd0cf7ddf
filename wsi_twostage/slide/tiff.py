"""Tiled TIFF, read natively: tifffile parses, `os.pread` reads, imagecodecs decodes; several times OpenSlide.

One parse and one file descriptor per process; threads share them, since `pread` has no position to fight for.
"""

import itertools
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_twostage.errors import SlideError, UnreadableRegion
from wsi_twostage.slide.bounded import limit_of
from wsi_twostage.slide.codestream import measure_of
from wsi_twostage.slide.contents import (
    Contents,
    FileKey,
    FoundMpp,
    Level,
    Size,
    Unsupported,
    cannot_open,
    ensure_same,
    make_levels,
    said,
)
from wsi_twostage.slide.jpeg import decoder_of
from wsi_twostage.slide.scale import mpp_of_aperio, mpp_of_ome, mpp_of_resolution
from wsi_twostage.slide.tiff_pages import DECODE_ERRORS, find_pyramid, name_of
from wsi_twostage.slide.tile_cache import TileCache
from wsi_twostage.tiles import Box

# tifffile logs what it dislikes in a file; what matters is checked here, and without a handler it would
# be printed.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

BACKGROUND = 255  # of tiles that were never written

_APERIO = "Aperio SVS"
_PREMULTIPLIED = 0, 1  # ExtraSamples: unspecified (read as libtiff and OpenSlide do), associated alpha

_ONE_READS = threading.Lock()

CUT_TILES = TileCache(2**26)
"""Of this process."""


@dataclass(frozen=True)
class _StoredLevel:
    """What is needed to decode the tiles of one level."""

    level: Level
    offsets: NDArray[np.int64]  # (tiles,) bytes from the file's start
    counts: NDArray[np.int64]  # (tiles,) bytes; 0: never written
    decode: Callable[..., tuple[NDArray[np.uint8], Any, Any]]
    jpeg: Callable[[bytes], NDArray[np.uint8]] | None
    """Of whole tiles, quicker than `decode`."""
    measure: Callable[[bytes], Size] | None
    tables: dict[str, bytes]  # JPEG tables that all tiles share, as `decode` takes them
    samples: int
    premultiplied: bool


class _OpenTiff:
    """A parsed file and its descriptor, which is closed when nobody uses it any more."""

    def __init__(self, key: FileKey) -> None:
        self.key = key
        self.path = key.path
        try:
            with tifffile.TiffFile(key.path) as tiff:
                pages = find_pyramid(self.path, tiff, file_bytes=key.size)
                self.contents = _describe(pages, tiff)
                self.levels = tuple(map(_stored_level, pages, self.contents.levels))
        except SlideError:
            raise
        except OSError as error:
            raise cannot_open(key.path, error) from error
        except Exception as error:  # tifffile raises what it likes on what others wrote
            raise Unsupported(f"{key.path}: not a TIFF that can be read ({said(error)})") from error
        for stored in self.levels:
            _check_tiles_in_file(self.path, stored, key.size)
        if self.contents.format == _APERIO and any(map(_lacks_tiles, self.levels[1:])):
            raise Unsupported(f"{key.path}: coarser levels lack tiles, which OpenSlide makes of finer ones")
        try:
            self.descriptor = os.open(key.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise cannot_open(key.path, error) from error
        weakref.finalize(self, os.close, self.descriptor)


@lru_cache(maxsize=16)
def _open(key: FileKey) -> _OpenTiff:
    return _OpenTiff(key)


def describe(path: str) -> Contents:
    """What the file holds; reads no pixels.

    Raises
    ------
    Unsupported
        Another reader may do better.
    SlideError
        The file cannot be opened, is damaged, or holds no 8-bit colour or gray image.
    """
    return _open(FileKey.of(path)).contents


def read(path: str, level: Level, box: Box) -> NDArray[np.uint8]:
    """Pixels of a box inside ``level`` -> (box.height, box.width, 3).

    Raises
    ------
    UnreadableRegion
        A tile cannot be read or decoded.
    SlideError
        The file cannot be opened any more, or was replaced.
    """
    file = _open(FileKey.of(path))
    ensure_same(path, level, file.contents.levels)
    stored = file.levels[level.index]
    tiles_across = -(-level.width // level.tile[1])
    across = tuple(_cuts(box.left, box.right, level.tile[1], level.width))
    down = _cuts(box.top, box.bottom, level.tile[0], level.height)
    out = np.empty((box.height, box.width, 3), np.uint8)
    parts = deque(itertools.product(down, across))
    untried = len(parts)
    while parts:
        row, col = part = parts.popleft()
        index = row.number * tiles_across + col.number
        untried -= 1
        if stored.counts[index] == 0 or stored.offsets[index] == 0:
            out[row.to, col.to] = BACKGROUND
            continue
        try:
            pixels = _tile(file, stored, index, keep=not (row.whole and col.whole), wait=untried < 0)
        except (*DECODE_ERRORS, OSError) as error:
            file.key.ensure_current()
            where = f"tile ({row.number}, {col.number}) of level {level.index}"
            raise UnreadableRegion(f"{path}: {where} cannot be decoded ({said(error)})") from error
        if pixels is None:
            parts.append(part)  # another thread is at it; when the rest is there
        else:
            out[row.to, col.to] = _to_rgb(pixels[row.of_tile, col.of_tile], stored)
    return out


class _Cut(NamedTuple):
    """What a box takes of a row or column of tiles."""

    number: int  # of the row or column
    of_tile: slice
    to: slice  # of the box
    whole: bool
    """Nothing is left for another box."""


def _cuts(first: int, last: int, tile: int, size: int) -> Iterator[_Cut]:
    """Along an axis of ``size`` px: the tiles under ``first`` <= pixel < ``last``."""
    for number in range(first // tile, -(-last // tile)):
        start = number * tile
        begin, end = max(start, first), min(start + tile, last)
        yield _Cut(
            number,
            slice(begin - start, end - start),
            slice(begin - first, end - first),
            end - begin == min(tile, size - start),
        )


def _tile(
    file: _OpenTiff, stored: _StoredLevel, index: int, *, keep: bool, wait: bool
) -> NDArray[np.uint8] | None:
    """One native tile; one that a read cuts into is kept for its neighbour; None as `TileCache.obtain`."""
    if not keep:
        return _decode_tile(file, stored, index)
    key = (file.key, stored.level.index, index)
    return CUT_TILES.obtain(key, lambda: _decode_tile(file, stored, index), wait=wait)


def _decode_tile(file: _OpenTiff, stored: _StoredLevel, index: int) -> NDArray[np.uint8]:
    """One native tile in full -> (tile rows, tile cols, samples)."""
    count = stored.counts.item(index)
    if count > (most := limit_of((*stored.level.tile, stored.samples), 1)):
        raise ValueError(f"{count:,} bytes, more than the {most:,} that it can be")
    data = _read_at(file.descriptor, count, stored.offsets.item(index))
    if len(data) != count:
        raise ValueError(f"{len(data)} of {count} bytes read")
    if stored.measure is not None:
        size = stored.measure(data)
        if stored.jpeg is not None and size == stored.level.tile:
            return stored.jpeg(data)
        if size.height > stored.level.tile[0] or size.width > stored.level.tile[1]:
            raise ValueError(f"{size} in a tile of {Size(*stored.level.tile)}")
    pixels = stored.decode(data, index, _fullsize=True, **stored.tables)[0]
    expected = (1, *stored.level.tile, stored.samples)
    if pixels.shape != expected or pixels.dtype != np.uint8:
        raise ValueError(f"{pixels.shape} {pixels.dtype} instead of {expected} uint8")
    tile: NDArray[np.uint8] = pixels[0]
    return tile


def _read_at(descriptor: int, count: int, offset: int) -> bytes:
    """As `os.pread`, which Windows lacks: there one thread after the other."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    with _ONE_READS:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, count)


def _to_rgb(pixels: NDArray[np.uint8], stored: _StoredLevel) -> NDArray[np.uint8]:
    """(H, W, 1, 3 or 4) -> (H, W, 3), or (H, W, 1) where gray is to be repeated; alpha lies on white."""
    if stored.samples < 4:
        return pixels
    colour, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:].astype(np.uint16)
    if not stored.premultiplied:
        colour = (colour * alpha + 127) // 255
    composed: NDArray[np.uint8] = np.minimum(colour + (BACKGROUND - alpha), 255).astype(np.uint8)
    return composed


def _describe(pages: list[tifffile.TiffPage], tiff: tifffile.TiffFile) -> Contents:
    sizes = [Size(page.imagelength, page.imagewidth) for page in pages]
    tiles = [Size(page.tilelength, page.tilewidth) for page in pages]
    return Contents(
        format=_APERIO if tiff.is_svs else "OME-TIFF" if tiff.is_ome else "generic TIFF",
        compression=name_of(pages[0].compression),
        levels=make_levels(sizes, tiles),
        mpp=_find_mpp(pages[0], tiff, sizes[0]),
    )


def _find_mpp(page: tifffile.TiffPage, tiff: tifffile.TiffFile, size: Size) -> FoundMpp | None:
    """The vendor's own word first, TIFF's resolution tags last: many writers fill those with 72 dpi."""
    found = None
    if tiff.is_svs:
        found = mpp_of_aperio(page.description)
    elif tiff.is_ome:
        found = mpp_of_ome(tiff.ome_metadata or "", size)
    if found is None and 282 in page.tags and 283 in page.tags:
        unit = page.tags[296].value if 296 in page.tags else 2  # inch, unless the file says otherwise
        (x, per_x), (y, per_y) = page.tags[282].value, page.tags[283].value
        if per_x and per_y:
            found = mpp_of_resolution(y / per_y, x / per_x, int(unit))
    return found


def _stored_level(page: tifffile.TiffPage, level: Level) -> _StoredLevel:
    tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
    return _StoredLevel(
        level,
        offsets=np.asarray(page.dataoffsets, np.int64),
        counts=np.asarray(page.databytecounts, np.int64),
        decode=page.decode,
        jpeg=decoder_of(page),
        measure=measure_of(int(page.compression)),
        tables={name: table for name, table in tables.items() if table is not None},
        samples=page.samplesperpixel,
        premultiplied=bool(page.extrasamples) and page.extrasamples[0] in _PREMULTIPLIED,
    )


def _needed(level: Level) -> int:
    """Tiles that cover it."""
    return -(-level.height // level.tile[0]) * -(-level.width // level.tile[1])


def _lacks_tiles(stored: _StoredLevel) -> bool:
    offsets, counts = (values[: _needed(stored.level)] for values in (stored.offsets, stored.counts))
    return bool(((offsets == 0) | (counts == 0)).any())


def _check_tiles_in_file(path: str, stored: _StoredLevel, file_bytes: int) -> None:
    level = stored.level
    needed = _needed(level)
    listed = min(len(stored.offsets), len(stored.counts))
    if listed < needed:
        raise SlideError(f"{path}: damaged; level {level.index} lists {listed} of its {needed} tiles")
    offsets, counts = stored.offsets[:needed], stored.counts[:needed]
    outside = np.count_nonzero((counts > 0) & ((offsets < 0) | (counts > file_bytes - offsets)))
    if outside:
        raise SlideError(
            f"{path}: truncated; {outside} of {needed} tiles of level {level.index} lie beyond "
            f"the file's {file_bytes:,} bytes"
        )
