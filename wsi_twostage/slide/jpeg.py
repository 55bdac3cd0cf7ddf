"""JPEG tiles, decoded into memory that libjpeg-turbo is quick to write to."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile.tifffile import jpeg_decode_colorspace

from wsi_twostage.slide.codestream import JPEG

_ALIGNED = 32
"""Bytes. Rows that start at a multiple of it are streamed past the caches (libjpeg-turbo, jdcolext-avx2.asm),
which pays for an image that nobody reads soon; a tile is copied at once, and would have to come back."""


def decode_jpeg(data: bytes, *, shape: tuple[int, ...], **how: Any) -> NDArray[np.uint8]:
    """An image of exactly ``shape``, (rows, cols, samples); ``how`` as `imagecodecs.jpeg_decode` takes it.

    Raises
    ------
    RuntimeError, ValueError
        Damaged, or of another shape.
    """
    size = math.prod(shape)
    room = np.empty(size + _ALIGNED, np.uint8)
    start = (_ALIGNED // 2 - room.ctypes.data) % _ALIGNED
    out: NDArray[np.uint8] = room[start : start + size].reshape(shape)
    imagecodecs.jpeg_decode(data, out=out, **how)
    return out


def decoder_of(page: tifffile.TiffPage) -> Callable[[bytes], NDArray[np.uint8]] | None:
    """For whole tiles of a page of JPEG, in the colours that tifffile gives them; None for any other page."""
    if page.compression not in JPEG or page.jpegheader is not None:
        return None
    space, wanted = jpeg_decode_colorspace(
        page.photometric, page.planarconfig, page.extrasamples, page.is_jfif
    )
    return partial(
        decode_jpeg,
        shape=(page.tilelength, page.tilewidth, page.samplesperpixel),
        tables=page.jpegtables,
        colorspace=space,
        outcolorspace=wanted,
    )
