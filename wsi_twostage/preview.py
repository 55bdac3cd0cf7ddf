"""A picture of a result: the slide with the mask, the uncertainty with the refined tiles, and a close-up."""

import os
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_twostage.drafts import whole_file
from wsi_twostage.mask import FAILED, MaskPyramid, Source
from wsi_twostage.pictures import (
    RGB,
    box_around,
    heat,
    level_within,
    outline,
    slide_of,
    tissue_at,
    uncertainty_at,
)  # fmt: skip
from wsi_twostage.pixels import read_around_holes
from wsi_twostage.slide import Slide
from wsi_twostage.target import ensure_target
from wsi_twostage.tiles import Box, Tile

SIDE_PX = 1000  # longer side of a panel, at most
CLOSE_PX = 600  # side of the close-up, in pixels of the fine level
_GAP_PX = 12
_TISSUE = (0, 150, 60)
_REFINED = (0, 190, 255)
_FAILED = (255, 0, 0)


def write_preview(store: MaskPyramid, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a PNG with three panels, from a finished store and the slide that it names.

    Left: the slide's thumbnail with the outlines of the mask and, in green, of the tissue. Middle: Model 1's
    uncertainty, light to dark, with the refined tiles framed in blue. Right: a close-up of the finest level
    at the most uncertain refined tile (or tissue tile, if none was refined), with the outline of the mask.
    What cannot be read is black.

    Raises
    ------
    SlideError, StoreError
        The slide is no longer where it was, or another one is; ``path`` exists, without ``overwrite``, or is
        the slide, a part of the result, or no file.
    WriteError
        ``path`` cannot be written.
    """
    path = Path(path)
    ensure_target(path, store, overwrite=overwrite)
    slide = slide_of(store)
    panels = [_thumbnail(store, slide), _uncertainty(store), _close_up(store, slide)]
    height = max(panel.shape[0] for panel in panels)
    columns = []
    for panel in panels:
        column = np.full((height, panel.shape[1] + _GAP_PX, 3), 255, np.uint8)
        column[: panel.shape[0], : panel.shape[1]] = panel
        columns.append(column)
    picture = imagecodecs.png_encode(np.concatenate(columns, axis=1)[:, :-_GAP_PX])
    with whole_file(path) as draft:
        draft.write_bytes(picture)


def _thumbnail(store: MaskPyramid, slide: Slide) -> RGB:
    """The slide at the panel's level with the outlines of the mask and of the tissue."""
    level = level_within(store, SIDE_PX)
    box = Box(0, 0, *store.shape(level))
    image, _ = read_around_holes(slide.view(store.spec.mpp / slide.mpp * 2**level), box)
    image[outline(tissue_at(store, level).astype(np.uint8))] = _TISSUE
    return _draw(image, store.read(box, level), store)


def _uncertainty(store: MaskPyramid) -> RGB:
    """Uncertainty of each pixel in colour, the refined tiles framed."""
    level = level_within(store, SIDE_PX)
    image = heat(uncertainty_at(store, level))
    tile = store.spec.tile / 2**level
    source = store.read_source()
    for kind, colour in ((Source.MODEL_2, _REFINED), *((kind, _FAILED) for kind in FAILED)):
        for row, col in np.argwhere(source == kind):
            _frame(
                image, int(row * tile), int(col * tile), int((row + 1) * tile), int((col + 1) * tile), colour
            )
    return image


def _close_up(store: MaskPyramid, slide: Slide) -> RGB:
    """A part of the finest level with the mask's outline."""
    tiles, tile = store.tiles(), Tile(0, 0)
    if len(tiles["row"]):
        best = int(np.argmax(np.nan_to_num(tiles["uncertainty"]) + (tiles["source"] == Source.MODEL_2)))
        tile = Tile(int(tiles["row"][best]), int(tiles["col"][best]))
    box = box_around(store, tile, CLOSE_PX)
    image, _ = read_around_holes(slide.view(store.spec.mpp / slide.mpp), box)
    return _draw(image, store.read(box), store)


def _draw(image: RGB, labels: NDArray[np.uint8], store: MaskPyramid) -> RGB:
    """The outline of each label in its colour, on a copy of the image."""
    colours, edge = np.array([(0, 0, 0), *store.spec.colours], np.uint8), outline(labels)
    drawn = image.copy()
    drawn[edge] = colours[labels[edge]]
    return drawn


def _frame(image: RGB, top: int, left: int, bottom: int, right: int, colour: tuple[int, int, int]) -> None:
    inside = image[top:bottom, left:right]
    for edge in (inside[:1], inside[-1:], inside[:, :1], inside[:, -1:]):
        edge[...] = colour
