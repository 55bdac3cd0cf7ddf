"""Close-ups of a result: squares of the finest level that show what each model does there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import SlideError
from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.pictures import box_around, outline
from wsi_twostage.report.encode import jpeg, png, png_line
from wsi_twostage.report.facts import Facts
from wsi_twostage.report.words import percent
from wsi_twostage.shards import coarse_labels
from wsi_twostage.slide import Slide
from wsi_twostage.tiles import Box, Tile

_FIRST = (0, 229, 255)  # Model 1's outline


@dataclass(frozen=True, slots=True)
class CloseUp:
    """A square of the finest level."""

    title: str
    text: str
    width: int
    height: int
    image: str
    second: str
    """Outline of the mask."""
    first: str
    """Outline of Model 1's answer, where Model 2 changed it; or empty."""
    side_um: float


def close_ups_of(store: MaskPyramid, facts: Facts, *, count: int, side: int) -> tuple[CloseUp, ...]:
    """Where Model 2 changed most, where Model 1 was least sure, and a common tile that Model 1 did alone."""
    table, slide = facts.table, facts.slide
    if slide is None or not len(table["row"]):
        return ()
    second, first = table["source"] == Source.MODEL_2, table["source"] == Source.MODEL_1
    u = np.nan_to_num(table["uncertainty"])
    picks: list[tuple[str, str, int]] = []
    if second.any():
        i = int(np.argmax(np.where(second, np.nan_to_num(table["disagreement"]), -1)))
        changed = percent(float(table["disagreement"][i]))
        picks.append(("Where Model 2 changed most", f"{changed} of the tile’s pixels", i))
        i = int(np.argmax(np.where(second | first, u, -1)))
        whose = "Model 2’s" if second[i] else "Model 1’s"
        picks.append(("Where Model 1 was least sure", f"mean uncertainty {u[i]:.3f}; {whose} answer", i))
    if first.any():
        rows = np.flatnonzero(first)
        i = int(rows[np.argsort(u[rows])[len(rows) // 2]])
        picks.append(("A tile that Model 2 did not see", f"mean uncertainty {u[i]:.3f}; Model 1’s answer", i))
    shown: dict[int, CloseUp] = {}
    for title, text, i in picks:
        if i not in shown and len(shown) < count:
            tile = Tile(int(table["row"][i]), int(table["col"][i]))
            try:
                shown[i] = _close_up(store, facts, slide, tile, title=title, text=text, side=side)
            except SlideError:  # a part of it cannot be read
                continue
    return tuple(shown.values())


def _close_up(
    store: MaskPyramid, facts: Facts, slide: Slide, tile: Tile, *, title: str, text: str, side: int
) -> CloseUp:
    spec = facts.spec
    box = box_around(store, tile, min(side, spec.tile))
    image, labels = slide.view(spec.mpp / slide.mpp).read(box), store.read(box)
    before = ""
    if facts.model is not None and store.read_source()[tile] == Source.MODEL_2:
        own = spec.tiles.box(tile)
        whole = np.zeros((box.height, box.width), np.uint8)
        answer = coarse_labels(store, facts.model, own, (tile,))
        common = _common(box, own)
        whole[common.relative_to(box).slices] = answer[common.relative_to(own).slices]
        before = png_line(outline(whole, 2) & _dashes(whole.shape), _FIRST)
    colours = np.array([(0, 0, 0), *spec.colours], np.uint8)
    edges = np.where(outline(labels, 2), labels, np.uint8(0))
    line = png(edges, colours, [0, *[255] * len(spec.colours)])
    return CloseUp(
        title, text, box.width, box.height, jpeg(image), line, before, round(box.width * spec.mpp, 1)
    )


def _dashes(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    ys, xs = np.indices(shape)
    return np.asarray((ys + xs) // 4 % 3 < 2, np.bool_)


def _common(one: Box, other: Box) -> Box:
    """The box in both."""
    top, left = max(one.top, other.top), max(one.left, other.left)
    return Box(top, left, min(one.bottom, other.bottom) - top, min(one.right, other.right) - left)
