"""Pixels as a browser takes them: JPEG for the slide, PNG with a palette for what lies over it."""

import io
from collections.abc import Sequence
from functools import lru_cache

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_twostage.mask import Source
from wsi_twostage.pictures import heat, outline

Bytes = NDArray[np.uint8]
Colour = tuple[int, int, int, int]
"""Red, green, blue and opacity, 0..255."""
Palette = tuple[Colour, ...]
"""Of the values 0, 1, ..."""

JPEG_QUALITY = 88
CLEAR = (0, 0, 0, 0)
SOURCES: dict[Source, tuple[int, int, int]] = {
    Source.MODEL_1: (245, 158, 11),
    Source.MODEL_2: (0, 120, 255),
    Source.UNREADABLE: (220, 20, 60),
    Source.PENDING: (120, 120, 120),
    Source.CRASHED: (220, 20, 60),
}
MOST_OPAQUE = 235  # of the heat
INSIDE = 38  # opacity of a source within its frame


def jpeg(rgb: Bytes) -> bytes:
    """(H, W, 3) as a JPEG."""
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(rgb), level=JPEG_QUALITY, subsampling="444"))


def png(values: Bytes, palette: Palette) -> bytes:
    """(H, W), indices of a palette, as a PNG."""
    if not values.any():  # most of a slide
        return _empty(*values.shape, palette[0])
    return _png(values, palette)


def class_palette(colours: Sequence[tuple[int, int, int]]) -> Palette:
    """Of labels: the background is clear."""
    return (CLEAR, *((*colour, 255) for colour in colours))


def source_palette() -> Palette:
    """Of `Source`, and then of the frames of tiles of each `Source`: no tissue is clear."""
    return tuple(
        (*SOURCES[kind], opacity) if kind in SOURCES else CLEAR
        for opacity in (INSIDE, 255)
        for kind in Source
    )


def heat_palette() -> Palette:
    """Of 255 times an uncertainty, 0..1, in the colours of all pictures; what is certain is clear.

    On a scale of roots: most tiles have a mean of little, and are to be told apart as well as pixels.
    """
    root = np.sqrt(np.linspace(0, 1, 256, dtype=np.float32))
    found = np.column_stack([heat(root[None])[0], np.rint(MOST_OPAQUE * root)]).astype(int)
    return tuple((int(r), int(g), int(b), int(a)) for r, g, b, a in found)


def heat_scale() -> list[tuple[float, Colour]]:
    """Uncertainties at even steps along the scale of `heat_palette`, each with its colour."""
    palette, steps = heat_palette(), np.linspace(0, 1, 9) ** 2
    return [(float(u), palette[round(255 * u)]) for u in steps]


def outlines(labels: Bytes) -> Bytes:
    """Labels of the pixels up to 2 px from another label, and 0 elsewhere, (H, W) -> (H, W)."""
    return np.where(outline(labels, 2), labels, np.uint8(0))


def spread(values: Bytes, rows: NDArray[np.intp], cols: NDArray[np.intp]) -> Bytes:
    """Values of a grid's cells, laid out to pixels that lie in these rows and columns of it."""
    rows, cols = np.minimum(rows, values.shape[0] - 1), np.minimum(cols, values.shape[1] - 1)
    return np.asarray(values[rows][:, cols], np.uint8)


@lru_cache(maxsize=64)
def _empty(height: int, width: int, colour: Colour) -> bytes:
    return _png(np.zeros((height, width), np.uint8), (colour,))


def _png(values: Bytes, palette: Palette) -> bytes:
    image = Image.fromarray(values).convert("L")
    image.putpalette([channel for colour in palette for channel in colour[:3]])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, transparency=bytes(colour[3] for colour in palette))
    return buffer.getvalue()
