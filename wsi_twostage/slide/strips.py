"""Strips of a TIFF, looked at one by one before Pillow decodes them: it fills what is damaged."""

import math

import tifffile

from wsi_twostage.slide.codestream import measure_of
from wsi_twostage.slide.tiff_pages import TOLD_THE_SIZE, tables_of

_YCBCR, _JPEG = 6, 7  # TIFF's numbers for a photometric interpretation and a compression


def ensure_whole(path: str) -> None:
    """Look at each strip, or tile, of the first image.

    Raises
    ------
    ValueError
        One was never written, or is shorter than the file says. Of damage the decoders raise more
        (`tiff_pages.DECODE_ERRORS`).
    """
    with tifffile.TiffFile(path) as tiff:
        page, file = tiff.pages.first, tiff.filehandle
        tables = tables_of(page)
        told = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if len(told) < math.prod(page.chunked):
            raise ValueError(f"{len(told)} of {math.prod(page.chunked)} strips are there")
        for index, (offset, count) in enumerate(told):
            if not offset or not count:
                raise ValueError(f"strip {index} was never written")
            file.seek(offset)
            data = file.read(count)
            if len(data) < count:
                raise ValueError(f"{len(data)} of the {count} bytes of strip {index} are there")
            _ensure_sound(page, index, data, tables)


def _ensure_sound(page: tifffile.TiffPage, index: int, data: bytes, tables: dict[str, bytes]) -> None:
    """By its end, or by decoding it where it would be noticed that there is too little."""
    if page.compression == _JPEG:
        measure = measure_of(_JPEG)
        assert measure is not None
        measure(data)
    elif page.compression in TOLD_THE_SIZE and page.photometric != _YCBCR:
        page.decode(data, index, **tables)
