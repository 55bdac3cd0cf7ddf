"""Resampling by exact areas or by straight lines; pure functions of arrays, the same in every block.

A view pixel ``i`` covers source pixels ``[i * scale, (i + 1) * scale)``. What a block gets depends only on
the absolute index ``i``, so blocks read apart fit together without a seam.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STRIP = 32  # output rows at a time: what is between stays in the processor's cache
_TINY = 1e-6  # source pixels; the rounding of i * scale must not ask for one more row of tiles


@dataclass(frozen=True, slots=True)
class Taps:
    """Which source pixels each output pixel is made of, along one axis."""

    index: NDArray[np.intp]
    """(outputs, taps), absolute source pixels."""
    weight: NDArray[np.float64]
    """(outputs, taps), >= 0, not normalised: lengths in source pixels."""

    @property
    def span(self) -> tuple[int, int]:
        """Source pixels that are needed, half-open."""
        return int(self.index.min()), int(self.index.max()) + 1


def taps(first: int, last: int, *, scale: float, size: int) -> Taps:
    """Taps of outputs ``first..last`` of a source of ``size`` px: areas to shrink, lines to enlarge."""
    make = area_taps if scale >= 1 else linear_taps
    return make(first, last, scale=scale, size=size)


def area_taps(first: int, last: int, *, scale: float, size: int) -> Taps:
    """Taps of outputs ``first..last`` that average a source of ``size`` px by area; ``scale >= 1``.

    The last output is clipped at the source's edge. One that lies beyond it (the level's odd edge was
    cut off when the pyramid was made) repeats the last source pixel.
    """
    output = np.arange(first, last)
    begin = np.minimum(output * scale, size - 1)[:, None]
    end = np.minimum((output + 1) * scale, size)[:, None]
    count = math.ceil(scale - _TINY) + 1  # an unaligned interval touches one more pixel than its length
    index = np.floor(begin + _TINY).astype(np.intp) + np.arange(count)
    weight = np.minimum(end, index + 1) - np.maximum(begin, index)
    weight[weight < _TINY] = 0  # also the negative ones: taps past the end
    return Taps(np.minimum(index, np.ceil(end - _TINY).astype(np.intp) - 1), weight)


def linear_taps(first: int, last: int, *, scale: float, size: int) -> Taps:
    """Taps of outputs ``first..last`` that lie on lines between source pixel centres; ``scale < 1``."""
    centre = (np.arange(first, last) + 0.5) * scale - 0.5
    left = np.floor(centre)
    right_weight = centre - left
    index = np.stack([left, left + 1], axis=1).astype(np.intp).clip(0, size - 1)
    return Taps(index, np.stack([1 - right_weight, right_weight], axis=1))


def combine(source: NDArray[np.uint8], rows: Taps, cols: Taps) -> NDArray[np.uint8]:
    """Weighted means of ``source`` (H, W, 3), the pixels of both spans -> (rows, cols, 3).

    In float32 sums of whole weights are exact (to cells of 256 px), so that `shrink` gives the same pixels.
    """
    top, left = rows.span[0], cols.span[0]
    out = np.empty((len(rows.index), len(cols.index), source.shape[2]), np.uint8)
    for first in range(0, len(out), _STRIP):
        strip = slice(first, first + _STRIP)
        lines = _sum_rows(source, rows.index[strip] - top, rows.weight[strip])
        total = _sum_cols(lines, cols.index - left, cols.weight)
        out[strip] = divide(total, rows.weight[strip].sum(axis=1), cols.weight.sum(axis=1))
    return out


def _sum_rows(
    source: NDArray[np.uint8], index: NDArray[np.intp], weight: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(H, W, 3) -> (rows, W, 3)."""
    flat, factor = source.reshape(len(source), -1), weight.astype(np.float32)
    total = np.zeros((len(index), flat.shape[1]), np.float32)  # (rows, W * 3)
    for tap in range(index.shape[1]):
        total += factor[:, tap, None] * flat[index[:, tap]]
    return total.reshape(len(index), *source.shape[1:])


def _sum_cols(
    lines: NDArray[np.float32], index: NDArray[np.intp], weight: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(rows, W, 3) -> (rows, cols, 3)."""
    channels = lines.shape[2]
    factor = weight.astype(np.float32).repeat(channels, axis=0)
    total = np.zeros((len(lines), len(factor)), np.float32)  # (rows, cols * 3)
    for tap in range(index.shape[1]):
        total += factor[:, tap] * lines.take(index[:, tap], axis=1).reshape(total.shape)
    return total.reshape(len(lines), -1, channels)


def shrink(source: NDArray[np.uint8], rows: int, cols: int) -> NDArray[np.uint8]:
    """Means of ``source`` (H, W, 3) over cells of ``rows`` x ``cols`` px; cells at the end may be partial."""
    height, width = source.shape[:2]
    return divide(cell_sums(source, rows, cols), _cell_sizes(height, rows), _cell_sizes(width, cols))


def cell_sums(source: NDArray[np.uint8], rows: int, cols: int) -> NDArray[np.uint32]:
    """Sums of ``source`` (H, W, 3) over cells of ``rows`` x ``cols`` px; cells at the end may be partial."""
    height, width, channels = source.shape
    exact = np.uint16 if rows <= 256 else np.uint32  # holds a sum of so many bytes
    lines = np.zeros((-(-height // rows), width, channels), exact)  # (H / rows, W, 3)
    for offset in range(min(rows, height)):
        part = source[offset::rows]
        lines[: len(part)] += part
    total = np.zeros((len(lines), -(-width // cols), channels), np.uint32)  # (H / rows, W / cols, 3)
    for offset in range(min(cols, width)):
        part = lines[:, offset::cols]
        total[:, : part.shape[1]] += part
    return total


def _cell_sizes(length: int, cell: int) -> NDArray[np.float64]:
    """Source pixels in each cell along an axis: ``cell``, and what is left for the last."""
    return np.diff(np.append(np.arange(0, length, cell), length)).astype(np.float64)


def divide(
    total: NDArray[np.float32] | NDArray[np.uint32], rows: NDArray[np.float64], cols: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Sums over cells (H, W, 3), divided by the cells' areas and rounded."""
    area = (rows[:, None] * cols[None, :]).astype(np.float32)
    mean: NDArray[np.float32] = total.astype(np.float32, copy=False) / area[:, :, None]
    rounded: NDArray[np.uint8] = np.rint(mean, out=mean).astype(np.uint8)
    return rounded
