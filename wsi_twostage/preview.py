"""A picture of a result: the slide with the mask, the uncertainty with the refined tiles, and a close-up."""

from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.slide import Slide, open_slide
from wsi_twostage.tiles import Box
from wsi_twostage.uncertainty import of_bytes

SIDE_PX = 1000  # longer side of a panel, at most
CLOSE_PX = 600  # side of the close-up, in pixels of the fine level
_GAP_PX = 12
_TISSUE = (0, 150, 60)
_REFINED = (0, 190, 255)
_FAILED = (255, 0, 0)
_HEAT = np.array([[252, 252, 250], [254, 217, 118], [252, 120, 60], [180, 10, 50], [60, 0, 40]], np.float32)

RGB = NDArray[np.uint8]


def write_preview(store: MaskPyramid, path: Path) -> None:
    """Write a PNG with three panels, from a finished store and the slide that it names.

    Left: the slide's thumbnail with the outlines of the mask and, in green, of the tissue. Middle: Model 1's
    uncertainty, light to dark, with the refined tiles framed in blue. Right: a close-up of the finest level
    at the most uncertain refined tile (or tissue tile, if none was refined), with the outline of the mask.

    Raises
    ------
    SlideError
        The slide is no longer where it was.
    """
    made_from = store.manifest["slide"]
    slide = open_slide(made_from["path"], made_from["mpp"], reader=made_from["reader"])
    panels = [_thumbnail(store, slide), _uncertainty(store), _close_up(store, slide)]
    height = max(panel.shape[0] for panel in panels)
    columns = []
    for panel in panels:
        column = np.full((height, panel.shape[1] + _GAP_PX, 3), 255, np.uint8)
        column[: panel.shape[0], : panel.shape[1]] = panel
        columns.append(column)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(np.concatenate(columns, axis=1)[:, :-_GAP_PX]))


def outline(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels of a label that touch another label, (H, W) -> (H, W)."""
    edge = np.zeros(labels.shape, np.bool_)
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        edge[first] |= differs
        edge[second] |= differs
    return edge & (labels > 0)


def _thumbnail(store: MaskPyramid, slide: Slide) -> RGB:
    """The slide at the panel's level with the outlines of the mask and of the tissue."""
    level = _panel_level(store)
    box = Box(0, 0, *store.shape(level))
    image = slide.view(store.spec.mpp / slide.mpp * 2**level).read(box)
    scale = 2**level / store.spec.overview_downsample  # pixels of the overview per panel pixel
    tissue = store.read_tissue()
    ys, xs = (np.arange(n) * scale for n in image.shape[:2])
    rows, cols = (np.minimum(at.astype(np.intp), n - 1) for at, n in zip((ys, xs), tissue.shape, strict=True))
    image[outline(tissue[rows][:, cols].astype(np.uint8))] = _TISSUE
    return _draw(image, store.read(box, level), store)


def _uncertainty(store: MaskPyramid) -> RGB:
    """Mean uncertainty of each tile and pixel in colour, the refined tiles framed."""
    level, spec = _panel_level(store), store.spec
    height, width = store.shape(level)
    name = store.manifest["uncertainty"]
    u = np.zeros((height, width), np.float32)
    coarse = spec.coarse
    scale = 2**level / spec.ratio  # pixels of Model 1 per panel pixel
    ys = np.minimum((np.arange(height) + 0.5) * scale, coarse.height - 1).astype(np.intp)
    xs = np.minimum((np.arange(width) + 0.5) * scale, coarse.width - 1).astype(np.intp)
    for band in range(0, coarse.height, coarse.tile):  # one row of shards at a time
        rows = (ys >= band) & (ys < band + coarse.tile)
        if rows.any():
            box = Box(band, 0, coarse.tile, coarse.width).clip(coarse.height, coarse.width)
            p = store.read_probability(box)[:, ys[rows] - band][:, :, xs]
            u[rows] = of_bytes(name, p) * p.any(0)  # 0 where nothing was computed
    image = _heat(u)
    tile = spec.tile / 2**level
    source = store.read_source()
    for kind, colour in ((Source.MODEL_2, _REFINED), (Source.UNREADABLE, _FAILED), (Source.CRASHED, _FAILED)):
        for row, col in np.argwhere(source == kind):
            _frame(
                image, int(row * tile), int(col * tile), int((row + 1) * tile), int((col + 1) * tile), colour
            )
    return image


def _close_up(store: MaskPyramid, slide: Slide) -> RGB:
    """A part of the finest level with the mask's outline."""
    tiles, spec = store.tiles(), store.spec
    row, col = 0, 0
    if len(tiles["row"]):
        best = int(np.argmax(np.nan_to_num(tiles["uncertainty"]) + (tiles["source"] == Source.MODEL_2)))
        row, col = int(tiles["row"][best]), int(tiles["col"][best])
    height, width = min(CLOSE_PX, spec.height), min(CLOSE_PX, spec.width)
    top = min(max(row * spec.tile + (spec.tile - height) // 2, 0), spec.height - height)
    left = min(max(col * spec.tile + (spec.tile - width) // 2, 0), spec.width - width)
    box = Box(top, left, height, width)
    return _draw(slide.view(spec.mpp / slide.mpp).read(box), store.read(box), store)


def _draw(image: RGB, labels: NDArray[np.uint8], store: MaskPyramid) -> RGB:
    """The outline of each label in its colour, on a copy of the image."""
    colours, edge = np.array([(0, 0, 0), *store.spec.colours], np.uint8), outline(labels)
    drawn = image.copy()
    drawn[edge] = colours[labels[edge]]
    return drawn


def _panel_level(store: MaskPyramid) -> int:
    """The finest level whose longer side fits a panel; the last one is at most 512 px."""
    return next(level for level in range(store.levels) if max(store.shape(level)) <= SIDE_PX)


def _heat(u: NDArray[np.float32]) -> RGB:
    """0..1 -> light to dark."""
    place = u * (len(_HEAT) - 1)
    low = np.minimum(place.astype(np.intp), len(_HEAT) - 2)
    part: NDArray[np.float32] = (place - low)[..., None]
    return np.asarray(_HEAT[low] * (1 - part) + _HEAT[low + 1] * part + 0.5, np.uint8)


def _frame(image: RGB, top: int, left: int, bottom: int, right: int, colour: tuple[int, int, int]) -> None:
    inside = image[top:bottom, left:right]
    for edge in (inside[:1], inside[-1:], inside[:, :1], inside[:, -1:]):
        edge[...] = colour
