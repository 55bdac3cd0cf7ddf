"""The mask as images: a pyramidal OME-TIFF of labels, and a PNG in the colours of the classes."""

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_twostage.errors import ConfigError, SlideError, StoreError
from wsi_twostage.events import Listener, Note, Started, TilesDone
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.pictures import outline, overview_at, slide_of
from wsi_twostage.pixels import read_around_holes
from wsi_twostage.tiles import Box, TileGrid

TILE = 512
"""Pixels of a tile's side, as in the mask."""

MOST_PX = 16_384
"""Longer side of a PNG, which is made in memory."""

USUAL_PX = 4096
"""Longer side of a PNG, at most, where no scale was asked for."""

_BAND = 1024  # rows of an overlay that are drawn at once


def write_ome_tiff(path: Path, mask: MaskPyramid, listener: Listener) -> None:
    """All levels of the mask, tile by tile: 8-bit labels with the classes' colours as palette.

    BigTIFF, deflate, coarser levels as SubIFDs; the name of the channel tells which label is which class.
    """
    spec = mask.spec
    levels = [TileGrid(*mask.shape(level), TILE) for level in range(mask.levels)]
    listener(Started("export", sum(map(len, levels))))
    names = ", ".join(f"{label} {name}" for label, name in enumerate(spec.classes, 1))
    metadata = {
        "axes": "YX",
        "Name": spec.name,
        "PhysicalSizeX": spec.mpp,
        "PhysicalSizeY": spec.mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": names},
    }
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tiff:
        for level, grid in enumerate(levels):
            per_cm = 1e4 / (spec.mpp * 2**level)
            tiff.write(
                _tiles(mask, level, grid, listener),
                shape=mask.shape(level),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="zlib",
                photometric="palette",
                colormap=(_palette(mask).T.astype(np.uint16) * 257),
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),
                subifds=mask.levels - 1 if level == 0 else None,
                metadata=metadata if level == 0 else None,
            )


def _tiles(mask: MaskPyramid, level: int, grid: TileGrid, listener: Listener) -> Iterator[NDArray[np.uint8]]:
    """Full tiles of a level, row by row; beyond the edge is background."""
    for box in map(grid.box, grid):
        full = np.zeros((TILE, TILE), np.uint8)
        full[: box.height, : box.width] = mask.read(box, level)
        listener(TilesDone("export", 1, box.area / 1e6))
        yield full


def _palette(mask: MaskPyramid) -> NDArray[np.uint8]:
    """Red, green and blue of every label, (256, 3); what is no class is black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[1 : 1 + len(mask.spec.colours)] = mask.spec.colours
    return colours


def level_at(
    mask: MaskPyramid, mpp: float | None, *, usual_px: int | None = None, most_px: int = MOST_PX
) -> int:
    """The level of the mask that is nearest to ``mpp``; without one, the finest of a usual size.

    Raises
    ------
    ConfigError
        It is too large for a picture.
    """
    sides = [max(mask.shape(level)) for level in range(mask.levels)]
    if mpp is None:
        return next(level for level, side in enumerate(sides) if side <= (usual_px or USUAL_PX))
    if not 0 < mpp < np.inf:
        raise ConfigError(f"--mpp {mpp:g}; it must be above 0, and finite")
    level = int(np.clip(round(float(np.log2(mpp / mask.spec.mpp))), 0, mask.levels - 1))
    if sides[level] > most_px:
        fits = next(level for level, side in enumerate(sides) if side <= most_px)
        height, width = mask.shape(level)
        raise ConfigError(
            f"{width} x {height} px at {mask.spec.mpp * 2**level:g} um/px are too many here; "
            f"{most_px} px a side is the most: --mpp {mask.spec.mpp * 2**fits:g} fits, "
            f"and --to ome-tiff takes any size"
        )
    return level


def write_png(
    path: Path,
    mask: MaskPyramid,
    level: int,
    listener: Listener,
    *,
    overlay: bool = False,
    slide: str | None = None,
) -> None:
    """A level of the mask: an indexed PNG whose values are the labels, background transparent.

    ``overlay``: instead, the slide at that level with the outline of each object in its class's colour;
    where the slide is not to be had any more, its overview from the store. ``slide`` says where it is now.

    Raises
    ------
    SlideError, StoreError
        At ``slide`` is none that can be read, or another one.
    """
    grid = TileGrid(*mask.shape(level), _BAND)
    bands = [
        Box(top, 0, _BAND, grid.width).clip(grid.height, grid.width) for top in range(0, grid.height, _BAND)
    ]
    listener(Started("export", len(bands)))
    if overlay:
        drawn = _overlay(mask, level, bands, listener, slide)
        path.write_bytes(imagecodecs.png_encode(drawn, level=6))
        return
    labels = np.empty(mask.shape(level), np.uint8)
    for band in bands:
        labels[band.slices] = mask.read(band, level)
        listener(TilesDone("export", 1, band.area / 1e6))
    picture = Image.fromarray(labels)
    picture.putpalette(_palette(mask).tobytes())
    picture.save(path, "PNG", transparency=0, optimize=False)


def _overlay(
    mask: MaskPyramid, level: int, bands: list[Box], listener: Listener, moved: str | None
) -> NDArray[np.uint8]:
    """The slide with the outlines, (H, W, 3)."""
    height, width = mask.shape(level)
    picture = np.empty((height, width, 3), np.uint8)
    try:
        slide = slide_of(mask, moved)
        view = slide.view(mask.spec.mpp / slide.mpp * 2**level)
        holes = 0
        for band in bands:
            picture[band.slices], lost = read_around_holes(view, band)
            holes += int(lost.sum())
        if holes:
            listener(Note(f"{holes / (height * width):.2%} of the slide cannot be read; it is black"))
    except (SlideError, StoreError) as error:
        if moved is not None:
            raise
        listener(Note(f"the overview is drawn instead of the slide: {error}"))
        picture[...] = overview_at(mask, level)
    colours = _palette(mask)
    for band in bands:
        around = Box(band.top - 1, 0, band.height + 2, width).clip(height, width)
        labels = mask.read(around, level)
        inner = band.relative_to(around).slices
        edge, labels = outline(labels)[inner], labels[inner]
        picture[band.slices][edge] = colours[labels[edge]]
        listener(TilesDone("export", 1, band.area / 1e6))
    return picture
