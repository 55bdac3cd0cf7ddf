"""Pixels for pictures of a result: outlines, the heat of uncertainty, tissue and slide at a level's size."""

import os

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_twostage.errors import SlideError, StoreError
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.pixels import read_around_holes
from wsi_twostage.slide import Slide, open_slide
from wsi_twostage.tiles import Box, Tile
from wsi_twostage.uncertainty import of_bytes

HEAT = np.array([[252, 252, 250], [254, 217, 118], [252, 120, 60], [180, 10, 50], [60, 0, 40]], np.float32)
"""Colours from 0 to 1; ever darker, so that the order is seen without seeing the hues."""

RGB = NDArray[np.uint8]


def outline(labels: NDArray[np.uint8], px: int = 1) -> NDArray[np.bool_]:
    """Pixels of a label up to ``px`` from another label, (H, W) -> (H, W)."""
    if px > 1:
        inner = outline(labels, px - 1)
        return inner | outline(np.where(inner, np.uint8(0), labels))
    edge = np.zeros(labels.shape, np.bool_)
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        edge[first] |= differs
        edge[second] |= differs
    return edge & (labels > 0)


def heat(u: NDArray[np.float32]) -> RGB:
    """0..1 -> light to dark, (H, W) -> (H, W, 3)."""
    place = u * (len(HEAT) - 1)
    low = np.minimum(place.astype(np.intp), len(HEAT) - 2)
    part: NDArray[np.float32] = (place - low)[..., None]
    return np.asarray(HEAT[low] * (1 - part) + HEAT[low + 1] * part + 0.5, np.uint8)


def level_within(store: MaskPyramid, side: int) -> int:
    """The finest level whose longer side is at most ``side`` px; the last one where none is."""
    fitting = (level for level in range(store.levels) if max(store.shape(level)) <= side)
    return next(fitting, store.levels - 1)


def slide_of(store: MaskPyramid, path: str | os.PathLike[str] | None = None) -> Slide:
    """The slide that a result was made from, where it was or at ``path``.

    Raises
    ------
    SlideError
        It is gone, or cannot be read.
    StoreError
        It is another one by now.
    """
    made = store.manifest["slide"]
    given = made["mpp"] if made["mpp_source"] == "given" else None
    slide = open_slide(made["path"] if path is None else path, given, reader=made["reader"])
    if slide.fingerprint != made["fingerprint"]:
        raise StoreError(f"{slide.path} is not the slide that {store.path} was made from")
    return slide


def backdrop(store: MaskPyramid, level: int, slide: Slide | None) -> tuple[RGB, bool]:
    """The slide on the pixels of a level, (H, W, 3), and whether it is blurred.

    From the overview where that is as fine; or, blurred, where there is no slide. What cannot be read is
    black.
    """
    finer = store.spec.overview_downsample > 2**level
    if slide is not None and finer:
        try:
            view = slide.view(store.spec.mpp / slide.mpp * 2**level)
            return read_around_holes(view, Box(0, 0, *store.shape(level)))[0], False
        except SlideError:
            pass
    return overview_at(store, level), finer


def overview_at(store: MaskPyramid, level: int) -> RGB:
    """The overview, from its level that is nearest, at the size of a level of the mask, (H, W, 3)."""
    spec, (height, width) = store.spec, store.shape(level)
    stored = int(np.clip(np.floor(np.log2(2**level / spec.overview_downsample)), 0, store.levels - 1))
    overview = Image.fromarray(store.read_overview(level=stored))
    fine = spec.overview_downsample * 2**stored  # fine pixels per pixel of what was read
    right, bottom = (
        min(size * 2**level / fine, own) for size, own in zip((width, height), overview.size, strict=True)
    )
    resized = overview.resize((width, height), Image.Resampling.BICUBIC, box=(0, 0, right, bottom))
    return np.array(resized, np.uint8)


def tissue_at(store: MaskPyramid, level: int) -> NDArray[np.bool_]:
    """Where there is tissue, on the pixels of a level."""
    scale = 2**level / store.spec.overview_downsample  # pixels of the overview per pixel of the level
    tissue = store.read_tissue()
    ys, xs = (np.arange(n) * scale for n in store.shape(level))
    rows, cols = (np.minimum(at.astype(np.intp), n - 1) for at, n in zip((ys, xs), tissue.shape, strict=True))
    return np.asarray(tissue[rows][:, cols], np.bool_)


def uncertainty_at(store: MaskPyramid, level: int) -> NDArray[np.float32]:
    """Model 1's uncertainty under the centre of each pixel of a level; 0 where nothing was computed."""
    height, width = store.shape(level)
    name, coarse = store.manifest["uncertainty"], store.spec.coarse
    u = np.zeros((height, width), np.float32)
    scale = 2**level / store.spec.ratio  # pixels of Model 1 per pixel of the level
    ys = np.minimum((np.arange(height) + 0.5) * scale, coarse.height - 1).astype(np.intp)
    xs = np.minimum((np.arange(width) + 0.5) * scale, coarse.width - 1).astype(np.intp)
    for band in range(0, coarse.height, coarse.tile):  # one row of shards at a time
        rows = (ys >= band) & (ys < band + coarse.tile)
        if rows.any():
            box = Box(band, 0, coarse.tile, coarse.width).clip(coarse.height, coarse.width)
            p = store.read_probability(box)[:, ys[rows] - band][:, :, xs]
            u[rows] = of_bytes(name, p) * p.any(0)
    return u


def box_around(store: MaskPyramid, tile: Tile, side: int) -> Box:
    """A square of ``side`` fine pixels, less where the mask is smaller, about the centre of a tile."""
    spec = store.spec
    height, width = min(side, spec.height), min(side, spec.width)
    top = min(max(tile.row * spec.tile + (spec.tile - height) // 2, 0), spec.height - height)
    left = min(max(tile.col * spec.tile + (spec.tile - width) // 2, 0), spec.width - width)
    return Box(top, left, height, width)
