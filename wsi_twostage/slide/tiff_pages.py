"""Which pages of a TIFF are the slide's pyramid, and whether this project can decode them natively."""

import math
import os
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tifffile

from wsi_twostage.errors import SlideError
from wsi_twostage.slide.codestream import measure_of
from wsi_twostage.slide.contents import Size, Unsupported

_GRAY, _RGB, _YCBCR, _JPEG = 1, 2, 6, 7  # TIFF's numbers for photometric interpretation and compression
_APERIO_YCBCR = 33003  # JPEG 2000 whose colours tifffile leaves unconverted; OpenSlide converts them
TOLD_THE_SIZE = (1, 5, 8, 32773, 32946, 34925, 34926, 50000)
"""None, LZW, deflate, PackBits, deflate, LZMA, Zstandard twice: tifffile says how much may come out."""

ORIENTATION = 274
"""TIFF's tag, and EXIF's."""

# What decoders raise on bad data: imagecodecs RuntimeError, tifffile and numpy the others.
DECODE_ERRORS = (
    RuntimeError,
    ValueError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    tifffile.TiffFileError,
)

_ALIKE = ("dtype", "bitspersample", "samplesperpixel", "planarconfig", "photometric", "compression")
_MOST_PAGES = 2**14  # and planes
_LARGEST_TILE_PX = 2**26  # a tile is decoded as a whole; more than this is a damaged file


def find_pyramid(path: str, tiff: tifffile.TiffFile, *, file_bytes: int) -> list[tifffile.TiffPage]:
    """The tiled pages of the largest image, finest first; labels, macros and thumbnails are left out.

    Raises
    ------
    Unsupported
        Another reader may do better.
    SlideError
        The file is truncated, or holds no 8-bit colour or gray image.
    """
    if _is_of_a_vendor(tiff):
        raise Unsupported(f"{path}: a vendor's TIFF that OpenSlide reads")
    _ensure_few(path, tiff)
    _check_directories_in_file(path, tiff, file_bytes)
    series = max(tiff.series, key=lambda s: s.shape[s.axes.index("Y")] * s.shape[s.axes.index("X")])
    if series.axes not in ("YX", "YXS", "SYX"):
        raise SlideError(
            f"{path}: its image has axes {series.axes} {series.shape}; one colour image is needed"
        )
    pages = [level.keyframe for level in series.levels]
    first = pages[0]
    if any(page.parent is not tiff for page in pages):
        raise Unsupported(f"{path}: its pixels are in another file")
    _ensure_supported(path, first)
    if series.kind in ("generic", "svs"):
        # tifffile sees a pyramid only where each level is 2, 3 or 4 times smaller than the one before, and
        # takes the second page of an SVS for its thumbnail.
        reduced = [other for other in tiff.series if other.keyframe.is_reduced or series.kind == "svs"]
        rest = [other for other in reduced if other is not series]
        pages += [level.keyframe for other in rest for level in other.levels]
    levels = [page for page in pages if _is_level_of(first, page)]
    return sorted(levels, key=lambda page: int(page.imagelength), reverse=True)


def _is_of_a_vendor(tiff: tifffile.TiffFile) -> bool:
    """Whose tiles or sizes are not what the TIFF tags say; OpenSlide knows them."""
    if tiff.is_ndpi or tiff.is_philips or tiff.is_scn or tiff.is_bif:
        return True
    software = tiff.pages.first.tags.valueof(305) if len(tiff.pages) else ""
    # by the program that wrote it: of Trestle, and of Philips', of whose files tifffile knows some
    return isinstance(software, str) and software.startswith(("MedScan", "Philips"))


def _ensure_supported(path: str, first: tifffile.TiffPage) -> None:
    """8-bit gray, RGB or RGBA in tiles, in a compression whose colours come out as RGB."""
    if first.dtype != np.uint8:
        raise SlideError(f"{path}: its pixels are {first.dtype}; 8-bit (uint8) are needed")
    if first.bitspersample != 8:
        raise Unsupported(f"{path}: {first.bitspersample} bits per sample")
    ensure_upright(path, first.tags.valueof(ORIENTATION, 1))
    if not first.is_tiled:
        raise Unsupported(f"{path}: its image is stored in strips, not in tiles")
    if not _is_tiled_soundly(first):  # OpenSlide would end the process for want of memory
        raise SlideError(
            f"{path}: damaged; its {first.imagelength} x {first.imagewidth} px are in tiles "
            f"of {first.tilelength} x {first.tilewidth} px"
        )
    if first.photometric == _GRAY and first.samplesperpixel > 2:
        raise SlideError(
            f"{path}: its pixels are {first.samplesperpixel} channels of gray; one colour image is needed"
        )
    if first.samplesperpixel not in (1, 3, 4) or (first.planarconfig != 1 and first.samplesperpixel > 1):
        raise Unsupported(f"{path}: {first.samplesperpixel} samples per pixel, planes {first.planarconfig}")
    colours = {_GRAY, _RGB, _YCBCR} if first.compression == _JPEG else {_GRAY, _RGB}
    if first.photometric not in colours or first.compression == _APERIO_YCBCR:
        raise Unsupported(
            f"{path}: colours {name_of(first.photometric)} in compression {name_of(first.compression)}"
        )
    if first.compression not in TOLD_THE_SIZE and measure_of(int(first.compression)) is None:
        raise Unsupported(f"{path}: compression {name_of(first.compression)} is not one that is read")


def ensure_upright(path: str, orientation: int) -> None:
    """Raise SlideError for pixels that are to be shown turned or mirrored; readers differ in that."""
    if orientation in range(2, 9):  # others say nothing
        raise SlideError(
            f"{path}: its pixels are stored turned or mirrored (Orientation {orientation}); 1 is needed"
        )


def _is_tiled_soundly(page: tifffile.TiffPage) -> bool:
    """Whether there are pixels, in tiles that are there and can be decoded as a whole."""
    pixels, tile = page.imagelength * page.imagewidth, page.tilelength * page.tilewidth
    return bool(page.is_tiled and pixels > 0 and 0 < tile <= _LARGEST_TILE_PX)


def _is_level_of(first: tifffile.TiffPage, page: tifffile.TiffPage) -> bool:
    """Whether a page is the same image, smaller: stored alike, in shape the same to within a pixel."""
    skew = first.imagelength * page.imagewidth - first.imagewidth * page.imagelength
    alike = all(getattr(first, name) == getattr(page, name) for name in _ALIKE)
    return alike and _is_tiled_soundly(page) and bool(abs(skew) <= first.imagelength + first.imagewidth)


def _ensure_few(path: str, tiff: tifffile.TiffFile) -> None:
    """As many pages and planes as a slide may have: tifffile makes room for all that it is told of."""
    told = len(tiff.pages)
    if told <= _MOST_PAGES:
        pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
        told = max(told, sum(len(page.subifds or ()) for page in pages), *_planes(tiff, pages))
    if told > _MOST_PAGES:
        raise SlideError(f"{path}: tells of {told:,} pages; a slide has at most {_MOST_PAGES:,}")


def _planes(tiff: tifffile.TiffFile, pages: list[tifffile.TiffPage]) -> Iterator[int]:
    """How many planes OME-XML tells of, and where among the pages; 0 where there is none."""
    yield 0
    try:
        root = ElementTree.fromstring(tiff.ome_metadata or "<OME/>")
    except ElementTree.ParseError:
        return
    for pixels in (element for element in root.iter() if element.tag.endswith("Pixels")):
        planes = [element.attrib for element in pixels if element.tag.endswith("TiffData")]
        first = [int(plane.get("IFD", 0)) for plane in planes]
        least = min((pages[index].size for index in first if index < len(pages)), default=1)
        yield math.prod(int(pixels.get(f"Size{axis}", 1)) for axis in "XYZCT") // max(least, 1)
        yield from first
        yield from (int(plane.get(name, 0)) for plane in planes for name in ("PlaneCount", "NumPlanes"))


def _check_directories_in_file(path: str, tiff: tifffile.TiffFile, file_bytes: int) -> None:
    """tifffile passes over levels whose directory was cut off with the file's end; here that is an error."""
    truncated = f"{path}: truncated; its list of levels reaches beyond the file's {file_bytes:,} bytes"
    if not len(tiff.pages) or any(len(page.dataoffsets) == 0 for page in tiff.pages):
        raise SlideError(truncated)
    layout, file = tiff.tiff, tiff.filehandle
    file.seek(tiff.pages[-1].offset)
    (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(tags * layout.tagsize, os.SEEK_CUR)
    pointer = file.read(layout.offsetsize)
    if len(pointer) < layout.offsetsize or struct.unpack(layout.offsetformat, pointer)[0] >= file_bytes:
        raise SlideError(truncated)


class Told(NamedTuple):
    """What a TIFF says of its largest page in tiles."""

    size: Size
    compression: str
    ome: str
    """OME-XML of the file; empty where there is none."""


def largest_of(path: str) -> Told | None:
    """Of any TIFF, of which pages in strips are passed over; None where it is none that tifffile knows."""
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
            tiled = [page for page in pages if page.is_tiled]
            page = max(tiled or pages, key=lambda page: page.imagelength * page.imagewidth)
            size = Size(page.imagelength, page.imagewidth)
            return Told(size, name_of(page.compression), tiff.ome_metadata or "")
    except (*DECODE_ERRORS, OSError):
        return None


def name_of(code: int) -> str:
    """A TIFF code in words, where tifffile knows it."""
    return getattr(code, "name", str(code))
