"""Pictures of a result as data URIs: the slide, what lies over it, its tiles, and close-ups."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.mask import FAILED, MaskPyramid, Source
from wsi_twostage.pictures import (
    backdrop,
    heat,
    level_within,
    outline,
    tissue_at,
    uncertainty_at,
)
from wsi_twostage.report.close_ups import CloseUp, close_ups_of
from wsi_twostage.report.encode import jpeg, png, png_line
from wsi_twostage.report.facts import Facts
from wsi_twostage.tiles import Box

_INSIDE = 90  # of 255: how much the inside of an object is coloured
_TISSUE = (0, 140, 70)
_SHADES = 40  # of the heat; fewer compress better
_HEAT_PX = 600  # longer side of the picture of the uncertainty


@dataclass(frozen=True, slots=True)
class Detail:
    """How large the pictures of one slide are."""

    side: int  # px, of the whole slide
    close_ups: int
    close_px: int

    @classmethod
    def for_batch(cls, slides: int) -> "Detail":
        """Smaller, the more slides are in one file."""
        if slides <= 2:
            return cls(1000, 3, 512)
        return cls(700, 2, 384) if slides <= 12 else cls(512, 1, 256)


@dataclass(frozen=True, slots=True)
class Scene:
    """All pictures of a slide; images are data URIs, tiles are paths of SVG in units of tiles."""

    width: int  # px
    height: int
    tile: float  # px
    mm: float  # px of one millimetre
    image: str
    blurred: bool
    """Whether the slide itself, which is finer, could not be read."""
    mask: str
    tissue: str
    heat: str
    chosen: str
    audited: str
    unreadable: str
    close_ups: tuple[CloseUp, ...]


def scene_of(store: MaskPyramid, facts: Facts, detail: Detail) -> Scene:
    """Draw one slide; what is read is of the size of the pictures."""
    level = level_within(store, detail.side)
    height, width = store.shape(level)
    box = Box(0, 0, height, width)
    image, blurred = backdrop(store, level, facts.slide)
    labels = store.read(box, level)
    colours = np.array([(0, 0, 0), *facts.spec.colours], np.uint8)
    tissue = tissue_at(store, level)
    table = facts.table
    done = table["source"] == Source.MODEL_2
    random = facts.drawn
    return Scene(
        width=width,
        height=height,
        tile=facts.spec.tile / 2**level,
        mm=1000 / (facts.spec.mpp * 2**level),
        image=jpeg(image),
        blurred=blurred,
        mask=_painted(labels, colours),
        tissue=png_line(outline(tissue.astype(np.uint8)), _TISSUE),
        heat=_heat(store, detail.side),
        chosen=_squares(table["row"][done & ~random], table["col"][done & ~random]),
        audited=_slashes(table["row"][random], table["col"][random]),
        unreadable=_crosses(*(table[n][np.isin(table["source"], FAILED)] for n in ("row", "col"))),
        close_ups=close_ups_of(store, facts, count=detail.close_ups, side=detail.close_px),
    )


def _heat(store: MaskPyramid, side: int) -> str:
    """Uncertainty in colour, clear outside of the tissue's tiles."""
    level = level_within(store, min(side, _HEAT_PX))
    u = uncertainty_at(store, level)
    known = np.zeros((store.spec.tiles.rows, store.spec.tiles.cols), np.bool_)
    table = store.tiles()
    known[table["row"], table["col"]] = np.isfinite(table["uncertainty"])
    ys, xs = ((np.arange(n) * 2**level // store.spec.tile) for n in u.shape)
    shade = np.clip(np.rint(u * (_SHADES - 1)), 0, _SHADES - 1).astype(np.uint8) + 1
    shade[~known[np.minimum(ys, known.shape[0] - 1)][:, np.minimum(xs, known.shape[1] - 1)]] = 0
    ramp = heat(np.linspace(0, 1, _SHADES, dtype=np.float32)[None])[0]
    return png(shade, np.concatenate([np.zeros((1, 3), np.uint8), ramp]), [0, *[255] * _SHADES])


def _painted(labels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> str:
    """Each label in its colour: its outline, and fainter its inside."""
    classes = len(colours) - 1
    if classes > 127:  # two of each must fit a palette
        return png(labels, colours, [0, *[_INSIDE] * classes])
    place = np.where(outline(labels), labels, np.where(labels > 0, labels + classes, 0)).astype(np.uint8)
    return png(place, np.concatenate([colours, colours[1:]]), [0, *[255] * classes, *[_INSIDE] * classes])


def _squares(rows: NDArray[np.int32], cols: NDArray[np.int32]) -> str:
    """A path around the tiles, one piece for those that lie side by side; a slide may have many thousands."""
    places = sorted(zip(rows.tolist(), cols.tolist(), strict=True))
    runs: list[list[int]] = []
    for row, col in places:
        if runs and runs[-1][0] == row and runs[-1][1] + runs[-1][2] == col:
            runs[-1][2] += 1
        else:
            runs.append([row, col, 1])
    return "".join(f"M{col} {row}h{n}v1h-{n}z" for row, col, n in runs)


def _slashes(rows: NDArray[np.int32], cols: NDArray[np.int32]) -> str:
    """A path around each tile, with a diagonal: so it is told apart without its colour."""
    return "".join(f"M{c} {r + 1}v-1h1v1zl1-1" for r, c in zip(rows.tolist(), cols.tolist(), strict=True))


def _crosses(rows: NDArray[np.int32], cols: NDArray[np.int32]) -> str:
    pairs = zip(rows.tolist(), cols.tolist(), strict=True)
    return "".join(f"M{c} {r}h1v1h-1zl1 1m-1 0l1-1" for r, c in pairs)
