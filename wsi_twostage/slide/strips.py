"""Strips and tiles of a TIFF, looked at one by one before Pillow decodes them: it fills what is damaged."""

import math
from collections.abc import Iterator

import tifffile

from wsi_twostage.slide.codestream import size_of_jpeg
from wsi_twostage.slide.tiff_pages import TOLD_THE_SIZE

_NONE, _YCBCR, _JPEG = 1, 6, 7  # TIFF's numbers for compressions and a photometric interpretation
_ROOM = 1024
"""Bytes that may come out beyond what a strip needs: some writers fill the last one up, or the bytes."""


def ensure_whole(path: str) -> None:
    """Look at each strip, or tile, of the first image.

    Raises
    ------
    ValueError
        One was never written, or has fewer bytes than it needs. Of damage the decoders raise more
        (`tiff_pages.DECODE_ERRORS`).
    """
    with tifffile.TiffFile(path) as tiff:
        page, file = tiff.pages.first, tiff.filehandle
        offsets, counts, parts = page.dataoffsets, page.databytecounts, math.prod(page.chunked)
        if min(len(offsets), len(counts)) < parts:
            raise ValueError(f"{min(len(offsets), len(counts))} of its {parts} strips are told of")
        needs = list(_needed(page))
        room = max(needs) + _ROOM
        for index, needed in enumerate(needs):
            if not offsets[index] or not counts[index]:
                raise ValueError(f"strip {index} was never written")
            file.seek(offsets[index])
            data = file.read(counts[index])
            if page.compression == _JPEG:
                size_of_jpeg(data)
            elif (there := _decoded(page, data, room=room)) is not None and there < needed:
                raise ValueError(f"{there} of the {needed} bytes of strip {index} are there")


def _needed(page: tifffile.TiffPage) -> Iterator[int]:
    """Bytes of each strip or tile, decoded."""
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    width, height = page.imagewidth, page.imagelength
    side = page.tilelength if page.is_tiled else min(page.rowsperstrip, height)
    row = -(-(page.tilewidth if page.is_tiled else width) * samples * page.bitspersample // 8)
    down = -(-height // side)
    for index in range(math.prod(page.chunked)):
        last = not page.is_tiled and index % down == down - 1
        yield row * (height - side * (down - 1) if last else side)


def _decoded(page: tifffile.TiffPage, data: bytes, *, room: int) -> int | None:
    """How many bytes come out, of at most ``room``; None where that says nothing.

    As where colours are stored with fewer pixels, or bits the other way round.
    """
    if page.compression not in TOLD_THE_SIZE or page.photometric == _YCBCR or page.fillorder != 1:
        return None
    if page.compression == _NONE:
        return len(data)
    return len(tifffile.TIFF.DECOMPRESSORS[page.compression](data, out=room))
