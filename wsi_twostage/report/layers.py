"""Pictures of a result as data URIs: the slide, what lies over it, its tiles, and close-ups."""

import io
from base64 import b64encode
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_twostage.errors import SlideError
from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.pictures import (
    HEAT,
    RGB,
    box_around,
    level_within,
    outline,
    tissue_at,
    uncertainty_at,
)
from wsi_twostage.refine import coarse_labels
from wsi_twostage.report.facts import Facts
from wsi_twostage.report.words import percent
from wsi_twostage.slide import Slide
from wsi_twostage.tiles import Box, Tile

QUALITY = 82  # of JPEG
_INSIDE = 90  # of 255: how much the inside of an object is coloured
_TISSUE = (0, 140, 70)
_FIRST = (0, 229, 255)  # Model 1's outline
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
    image, blurred = _whole(store, facts.slide, level)
    labels = store.read(box, level)
    colours = np.array([(0, 0, 0), *facts.spec.colours], np.uint8)
    tissue = tissue_at(store, level)
    table = facts.table
    done = table["source"] == Source.MODEL_2
    random = done & (table["round"] == (facts.audit.round if facts.audit else -2))
    return Scene(
        width=width,
        height=height,
        tile=facts.spec.tile / 2**level,
        mm=1000 / (facts.spec.mpp * 2**level),
        image=jpeg(image),
        blurred=blurred,
        mask=_painted(labels, colours),
        tissue=_line(outline(tissue.astype(np.uint8)), _TISSUE),
        heat=_heat(store, detail.side, tissue),
        chosen=_squares(table["row"][done & ~random], table["col"][done & ~random]),
        audited=_slashes(table["row"][random], table["col"][random]),
        unreadable=_crosses(*(table[n][table["source"] == Source.UNREADABLE] for n in ("row", "col"))),
        close_ups=_close_ups(store, facts, detail),
    )


def _whole(store: MaskPyramid, slide: Slide | None, level: int) -> tuple[RGB, bool]:
    """The slide on a level's pixels; from the overview where that is as fine or, blurred, has to do."""
    height, width = store.shape(level)
    finer = store.spec.overview_downsample > 2**level
    if slide is not None and finer:
        try:
            view = slide.view(store.spec.mpp / slide.mpp * 2**level)
            return view.read(Box(0, 0, height, width)), False
        except SlideError:
            pass
    overview = Image.fromarray(store.read_overview())
    spec = store.spec
    right, bottom = (
        min(fine / spec.overview_downsample, own)
        for fine, own in zip((spec.width, spec.height), overview.size, strict=True)
    )
    shown = overview.resize((width, height), Image.Resampling.BICUBIC, box=(0, 0, right, bottom))
    return np.asarray(shown, np.uint8), finer


def _heat(store: MaskPyramid, side: int, tissue: NDArray[np.bool_]) -> str:
    """Uncertainty in colour, clear outside of the tissue's tiles."""
    level = level_within(store, min(side, _HEAT_PX))
    u = uncertainty_at(store, level)
    known = np.zeros((store.spec.tiles.rows, store.spec.tiles.cols), np.bool_)
    table = store.tiles()
    known[table["row"], table["col"]] = np.isfinite(table["uncertainty"])
    ys, xs = ((np.arange(n) * 2**level // store.spec.tile) for n in u.shape)
    shade = np.clip(np.rint(u * (_SHADES - 1)), 0, _SHADES - 1).astype(np.uint8) + 1
    shade[~known[np.minimum(ys, known.shape[0] - 1)][:, np.minimum(xs, known.shape[1] - 1)]] = 0
    stops = np.linspace(0, 1, len(HEAT))
    ramp = [np.interp(np.linspace(0, 1, _SHADES), stops, HEAT[:, c]) for c in range(3)]
    palette = np.concatenate([np.zeros((1, 3)), np.stack(ramp, axis=1)]).round().astype(np.uint8)
    return png(shade, palette, [0, *[255] * _SHADES])


def _painted(labels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> str:
    """Each label in its colour: its outline, and fainter its inside."""
    classes = len(colours) - 1
    if classes > 127:  # two of each must fit a palette
        return png(labels, colours, [0, *[_INSIDE] * classes])
    place = np.where(outline(labels), labels, np.where(labels > 0, labels + classes, 0)).astype(np.uint8)
    return png(place, np.concatenate([colours, colours[1:]]), [0, *[255] * classes, *[_INSIDE] * classes])


def _line(line: NDArray[np.bool_], colour: tuple[int, int, int]) -> str:
    return png(line.astype(np.uint8), np.array([(0, 0, 0), colour], np.uint8), [0, 255])


def _close_ups(store: MaskPyramid, facts: Facts, detail: Detail) -> tuple[CloseUp, ...]:
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
        i = int(np.argmax(np.where(second, u, -1)))
        picks.append(("Where Model 1 was least sure", f"mean uncertainty {u[i]:.3f}; Model 2’s answer", i))
    if first.any():
        rows = np.flatnonzero(first)
        i = int(rows[np.argsort(u[rows])[len(rows) // 2]])
        picks.append(("A tile that Model 2 did not see", f"mean uncertainty {u[i]:.3f}; Model 1’s answer", i))
    shown: dict[int, CloseUp] = {}
    for title, text, i in picks:
        if i not in shown and len(shown) < detail.close_ups:
            tile = Tile(int(table["row"][i]), int(table["col"][i]))
            try:
                shown[i] = _close_up(store, facts, slide, tile, title=title, text=text, side=detail.close_px)
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
        before = _line(_thick(whole) & _dashes(whole.shape), _FIRST)
    colours = np.array([(0, 0, 0), *spec.colours], np.uint8)
    line = png(np.where(_thick(labels), labels, 0).astype(np.uint8), colours, [0, *[255] * len(spec.colours)])
    return CloseUp(
        title, text, box.width, box.height, jpeg(image), line, before, round(box.width * spec.mpp, 1)
    )


def _thick(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The outline, two pixels wide, inwards."""
    line = outline(labels)
    inner = outline(np.where(line, 0, labels).astype(np.uint8))
    return line | inner


def _dashes(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    ys, xs = np.indices(shape)
    return np.asarray((ys + xs) // 4 % 3 < 2, np.bool_)


def _common(one: Box, other: Box) -> Box:
    """The box in both."""
    top, left = max(one.top, other.top), max(one.left, other.left)
    return Box(top, left, min(one.bottom, other.bottom) - top, min(one.right, other.right) - left)


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


def jpeg(rgb: RGB) -> str:
    """As a data URI."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def png(places: NDArray[np.uint8], palette: NDArray[np.uint8], alpha: list[int]) -> str:
    """Places in a palette (n, 3), with the opacity of each, 0..255, as a data URI."""
    image, file = Image.fromarray(places), io.BytesIO()
    image.putpalette(palette.tobytes())
    image.save(file, "PNG", transparency=bytes(alpha), optimize=True)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
