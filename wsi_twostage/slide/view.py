"""A slide at one downsample: lazy, small enough to send anywhere, the same pixels in every box."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.slide import ome_zarr, openslide_reader, plain_image, tiff
from wsi_twostage.slide.contents import FileKey, Level, cannot_read
from wsi_twostage.slide.resample import combine, shrink, taps
from wsi_twostage.tiles import Box

if TYPE_CHECKING:
    import dask.array as da

READERS: dict[str, Callable[[str, Level, Box], NDArray[np.uint8]]] = {
    "tiff": tiff.read,
    "openslide": openslide_reader.read,
    "zarr": ome_zarr.read,
    "image": plain_image.read,
}

BACKGROUND = 255  # of what lies outside the slide
_CHUNK_PX = 1024  # edge of a dask chunk, about
_CHUNK_SOURCE_PX = 8192  # edge of what a chunk reads of a stored level, at most, about
_SOURCE_PX = 4096  # edge of what is held of a stored level at a time
_ROUNDING_PX = 1e-3  # of a stored level, over the whole slide

Index = slice | int


@dataclass(frozen=True)
class View:
    """A slide as seen at one downsample.

    It has ``shape``, ``dtype`` and slicing like an array, (rows, cols, 3) uint8, and reads when sliced.
    """

    path: str
    reader: str
    level: Level
    """The stored level that the pixels come from: the next finer one."""
    height: int  # pixels of the view
    width: int  # pixels of the view
    downsample: float
    """Pixels of level 0 per pixel of the view, along both axes; below 1 the slide is enlarged."""
    mpp: float  # um per pixel of the view

    ndim: ClassVar[int] = 3
    dtype: ClassVar[np.dtype[np.uint8]] = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, 3

    @cached_property
    def scale(self) -> tuple[float, float]:
        """Pixels of the stored level per pixel of the view, along (rows, cols); 1 shows it as it is."""
        rows, cols = (self.downsample / stored for stored in self.level.downsample)
        return _settle(rows, self.height), _settle(cols, self.width)

    @property
    def chunk(self) -> tuple[int, int]:
        """Rows and columns of what is best read at once: whole native tiles, about 1024 px."""
        rows, cols = (_chunk(tile, scale) for tile, scale in zip(self.level.tile, self.scale, strict=True))
        return rows, cols

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Pixels of a box -> (box.height, box.width, 3); white where it reaches outside of the slide.

        Raises
        ------
        UnreadableRegion
            Its stored pixels cannot be decoded.
        SlideError
            The slide cannot be opened any more, or was replaced.
        """
        inside = box.clip(self.height, self.width)
        if inside == box:
            return self._read_inside(box)
        out = np.full((box.height, box.width, 3), BACKGROUND, np.uint8)
        if inside.area:
            out[inside.relative_to(box).slices] = self._read_inside(inside)
        return out

    def array(self) -> "da.Array":
        """The view as a dask array whose chunks are whole native tiles; nothing is read yet."""
        import dask.array as da  # here, because it takes half a second, and reading does without
        from dask.base import tokenize

        key = tokenize(FileKey.of(self.path), self.reader, self.level, self.shape, self.downsample)
        return da.from_array(
            self,
            chunks=(*self.chunk, 3),
            name=f"view-{key}",
            asarray=False,
            fancy=False,
            meta=np.empty((0, 0, 0), np.uint8),
        )

    def __getitem__(self, key: Index | tuple[Index, ...]) -> NDArray[np.uint8]:
        """Basic slicing, as dask and NumPy do it."""
        keys = key if isinstance(key, tuple) else (key,)
        row, col, channel = keys + (slice(None),) * (3 - len(keys))
        (top, bottom, rows), (left, right, cols) = _cover(row, self.height), _cover(col, self.width)
        return self.read(Box(top, left, bottom - top, right - left))[rows, cols, channel]

    def _read_inside(self, box: Box) -> NDArray[np.uint8]:
        """Pixels of a box inside the view, in parts whose source fits in memory."""
        rows, cols = (max(1, int(_SOURCE_PX / scale)) for scale in self.scale)
        if box.height <= rows and box.width <= cols:
            return self._read_part(box)
        out = np.empty((box.height, box.width, 3), np.uint8)
        for top in range(box.top, box.bottom, rows):
            for left in range(box.left, box.right, cols):
                part = Box(top, left, min(rows, box.bottom - top), min(cols, box.right - left))
                out[part.relative_to(box).slices] = self._read_part(part)
        return out

    def _read_part(self, box: Box) -> NDArray[np.uint8]:
        (row_scale, col_scale), level = self.scale, self.level
        if row_scale.is_integer() and col_scale.is_integer():
            return self._shrink_part(box, int(row_scale), int(col_scale))
        rows = taps(box.top, box.bottom, scale=row_scale, size=level.height)
        cols = taps(box.left, box.right, scale=col_scale, size=level.width)
        return combine(self._read_level(rows.span, cols.span), rows, cols)

    def _shrink_part(self, box: Box, rows: int, cols: int) -> NDArray[np.uint8]:
        """`_read_part` by whole factors: as it is, or means of cells."""
        level = self.level
        row_span = min(box.top * rows, level.height - 1), min(box.bottom * rows, level.height)
        col_span = min(box.left * cols, level.width - 1), min(box.right * cols, level.width)
        source = self._read_level(row_span, col_span)
        missing = (
            box.height - -(-source.shape[0] // rows),
            box.width - -(-source.shape[1] // cols),
        )
        if any(missing):  # the level's odd edge was cut off when the pyramid was made
            source = np.pad(source, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        return source if rows == cols == 1 else shrink(source, rows, cols)

    def _read_level(self, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.uint8]:
        """Pixels of the stored level in these half-open spans."""
        box = Box(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
        try:
            return READERS[self.reader](self.path, self.level, box)
        except OSError as error:  # that no reader expects; a run would take it for one of its output
            raise cannot_read(self.path, error) from error


def drifts_little(scale: float, extent: int) -> bool:
    """Whether a level's pixels stay within half a pixel of the view's, over a view of ``extent`` px."""
    return abs(scale - 1) * extent < 0.5


def _settle(scale: float, extent: int) -> float:
    """A scale that is a whole number but for rounding, made whole: ``0.9 / 0.3`` is not 3."""
    whole = float(round(scale))
    if (whole == 1 and drifts_little(scale, extent)) or abs(scale - whole) * extent < _ROUNDING_PX:
        return whole
    return scale


def _chunk(tile: int, scale: float) -> int:
    """Edge of a chunk in view pixels: whole native tiles, about 1024 px, less where it reads too much."""
    tiles = max(1, round(min(_CHUNK_PX * scale, _CHUNK_SOURCE_PX) / tile))
    return max(1, round(tiles * tile / scale))


def _cover(wanted: Index, size: int) -> tuple[int, int, Index]:
    """First and last (half-open) pixel to read for an index along an axis, and what to take of them."""
    if not isinstance(wanted, slice):
        pixel = range(size)[wanted]
        return pixel, pixel + 1, 0
    pixels = range(size)[wanted]
    if not pixels:
        return 0, 0, slice(None)
    return min(pixels[0], pixels[-1]), max(pixels[0], pixels[-1]) + 1, slice(None, None, pixels.step)
