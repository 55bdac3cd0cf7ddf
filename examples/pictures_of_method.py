"""Make the pictures of docs/method.md from a run on the example slide.

python examples/pictures_of_method.py [FOLDER]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_twostage import NONE, Fraction, MaskPyramid, open_slide, segment
from wsi_twostage.mask import Source
from wsi_twostage.pictures import box_around, heat, level_within, outline, tissue_at, uncertainty_at
from wsi_twostage.tiles import Box, Tile

ROOT = Path(__file__).parent.parent
SLIDE = ROOT / "examples" / "data" / "CMU-1-Small-Region.svs"
SHARE = 0.1
SIDE_PX = 760  # of a panel of the whole slide
CLOSE_PX = 300  # of a close-up, in pixels of the finest level

Rgb = NDArray[np.uint8]


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "cmu.seg.ome.zarr"
        store = segment(SLIDE, output, rule=NONE).store
        tiles = store.tiles()
        likely = np.argsort(-tiles["uncertainty"])[: round(SHARE * len(tiles["row"]))]
        places = {int(i): Tile(int(tiles["row"][i]), int(tiles["col"][i])) for i in likely}
        before = {i: store.read(box_around(store, tile, CLOSE_PX)) for i, tile in places.items()}

        store = segment(SLIDE, output, rule=Fraction(SHARE)).store
        tiles = store.tiles()
        most = max(places, key=lambda i: float(np.nan_to_num(tiles["disagreement"][i])))
        save(folder / "method-look.jpg", [tissue(store), probability(store)])
        save(folder / "method-choose.jpg", [of_pixels(store), of_tiles(store)])
        save(
            folder / "method-refine.jpg",
            close_ups(store, box_around(store, places[most], CLOSE_PX), before[most]),
        )


def tissue(store: MaskPyramid) -> Rgb:
    """The slide with the borders of the tiles that have tissue."""
    level = level_within(store, SIDE_PX)
    image = pixels(store, Box(0, 0, *store.shape(level)), level)
    image[~tissue_at(store, level)] = image[~tissue_at(store, level)] // 2 + 128
    return frames(image, store, store.read_source() != Source.BACKGROUND, (0, 130, 60))


def probability(store: MaskPyramid) -> Rgb:
    """Model 1's answer: its probability of the class, white to black."""
    coarse = store.spec.coarse
    p = store.read_probability(Box(0, 0, coarse.height, coarse.width))[0]
    height, width = store.shape(level_within(store, SIDE_PX))
    return np.asarray(Image.fromarray(255 - p).resize((width, height), Image.Resampling.BOX).convert("RGB"))


def of_pixels(store: MaskPyramid) -> Rgb:
    """u: uncertainty of each pixel."""
    return heat(uncertainty_at(store, level_within(store, SIDE_PX)))


def of_tiles(store: MaskPyramid) -> Rgb:
    """h and g: the mean of each tile, as a share of the largest, with the chosen ones framed."""
    level = level_within(store, SIDE_PX)
    tiles, source = store.tiles(), store.read_source()
    means = np.zeros(source.shape, np.float32)
    means[tiles["row"], tiles["col"]] = np.nan_to_num(tiles["uncertainty"])
    edge = store.spec.tile // 2**level
    height, width = store.shape(level)
    drawn = (means / means.max()).repeat(edge, 0).repeat(edge, 1)[:height, :width]
    return frames(heat(drawn), store, source == Source.MODEL_2, (0, 190, 255))


def close_ups(store: MaskPyramid, box: Box, before: Rgb) -> list[Rgb]:
    """The slide; the outline of Model 1's answer; that of the mask after Model 2."""
    image = pixels(store, box, 0)
    drawn = [image, image.copy(), image.copy()]
    for panel, labels, colour in (
        (drawn[1], before, (255, 235, 0)),
        (drawn[2], store.read(box), (0, 230, 255)),
    ):
        panel[outline(labels)] = colour
    return [panel.repeat(2, 0).repeat(2, 1) for panel in drawn]


def pixels(store: MaskPyramid, box: Box, level: int) -> Rgb:
    """Of the slide, on a level of the mask."""
    slide = open_slide(SLIDE)
    return slide.view(store.spec.mpp / slide.mpp * 2**level).read(box)


def frames(image: Rgb, store: MaskPyramid, which: NDArray[np.bool_], colour: tuple[int, int, int]) -> Rgb:
    """Borders of some tiles, two pixels wide."""
    edge = store.spec.tile / 2 ** level_within(store, SIDE_PX)
    for row, col in np.argwhere(which):
        top, left, bottom, right = (int(at * edge) for at in (row, col, row + 1, col + 1))
        inside = image[top:bottom, left:right]
        for border in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]):
            border[...] = colour
    return image


def save(path: Path, panels: list[Rgb]) -> None:
    """Side by side, with white between them."""
    gap = np.full((panels[0].shape[0], 12, 3), 255, np.uint8)
    joined = [part for panel in panels for part in (panel, gap)][:-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(joined, axis=1)).save(path, quality=86, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
