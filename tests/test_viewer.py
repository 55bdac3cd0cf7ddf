"""The viewer's tiles, and what it says of a result: against the store and the slide they come from."""

import io
import json
import shutil
import subprocess
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from conftest import small_bundle, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from slides import change_tile, pyramid, texture, write_slide

from wsi_twostage.errors import StoreError
from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.pictures import HEAT
from wsi_twostage.pipeline import segment
from wsi_twostage.selection import NONE, Fraction
from wsi_twostage.settings import Settings
from wsi_twostage.tiles import Box, Tile
from wsi_twostage.viewer import Pictures, Pyramid, Refiner, Scene, paint
from wsi_twostage.viewer.cache import Drawn, SentTiles

EVERYWHERE = Settings(tissue="none", workers=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MaskPyramid:
    """Of a slide of 1400 x 2100 px, a fifth of it refined."""
    folder = tmp_path_factory.mktemp("made")
    slide = write_slide(folder / "slide.tiff", pyramid(texture(1400, 2100), 2))
    result = segment(
        slide, folder / "o.zarr", bundle=small_bundle(classes=2), rule=Fraction(0.2), settings=EVERYWHERE
    )
    return result.store


def pixels(tile: Drawn | None) -> NDArray[np.uint8]:
    """RGBA of a PNG, RGB of a JPEG."""
    assert tile is not None
    image = Image.open(io.BytesIO(tile.content))
    return np.asarray(image.convert("RGBA") if image.format == "PNG" else image)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_tiles_of_each_level_cover_it_once(height: int, width: int) -> None:
    pyramid = Pyramid.of(height, width)
    for level in range(pyramid.levels):
        boxes = [pyramid.box(level, tile) for tile in pyramid.grid(level)]
        assert sum(box.area for box in boxes if box) == -(-height // 2**level) * -(-width // 2**level)
    assert len(pyramid.grid(pyramid.levels - 1)) == 1


def test_a_pyramid_has_the_levels_of_the_store_and_of_the_slide(made: MaskPyramid) -> None:
    scene = Scene.open(made.path)
    assert scene.slide is not None
    assert scene.pyramids["mask"].levels == made.levels
    assert scene.pyramids["slide"].levels == len(scene.slide.views())


@pytest.mark.parametrize(
    ("level", "tile"), [(9, Tile(0, 0)), (-1, Tile(0, 0)), (0, Tile(3, 0)), (0, Tile(0, -1))]
)
def test_where_no_tile_is_there_is_none(made: MaskPyramid, level: int, tile: Tile) -> None:
    pictures = Pictures(Scene.open(made.path))
    assert all(pictures.tile(layer, level, tile) is None for layer in pictures.scene.pyramids)
    assert pictures.tile("secrets", 0, Tile(0, 0)) is None


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_tile_of_the_slide_is_its_view(made: MaskPyramid, level: int) -> None:
    scene = Scene.open(made.path)
    assert scene.slide is not None
    view, box = scene.slide.view(2**level), scene.pyramids["slide"].box(level, Tile(0, 0))
    assert box is not None
    seen = pixels(Pictures(scene).tile("slide", level, Tile(0, 0)))
    assert seen.shape == (box.height, box.width, 3)
    assert np.abs(seen.astype(int) - view.read(box)).mean() < 8  # a JPEG of noise


@pytest.mark.parametrize("level", [0, 2])
def test_what_cannot_be_read_is_black_and_the_rest_of_its_tile_is_shown(tmp_path: Path, level: int) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [np.full((1400, 2100, 3), 200, np.uint8)])
    change_tile(slide, 0, lambda tile: b"hello")
    store = segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), rule=NONE, settings=EVERYWHERE).store
    seen = pixels(Pictures(Scene.open(store.path)).tile("slide", level, Tile(0, 0)))
    hole = 64 // 2**level  # the stored tile
    assert (seen[: hole - 1, : hole - 1] < 50).all()
    assert (seen[2 * hole :, 2 * hole :] > 150).all()


@pytest.mark.parametrize("level", [0, 2])
def test_a_tile_of_the_mask_has_the_colours_of_its_classes(made: MaskPyramid, level: int) -> None:
    scene = Scene.open(made.path)
    seen = pixels(Pictures(scene).tile("mask", level, Tile(0, 0)))
    labels = made.read(Box(0, 0, *seen.shape[:2]), level)
    for label, colour in enumerate(made.spec.colours, 1):
        assert (seen[labels == label] == (*colour, 255)).all()
    assert (seen[labels == 0, 3] == 0).all()
    assert labels.any()


def test_outlines_are_the_borders_of_labels_two_pixels_wide() -> None:
    labels = np.zeros((12, 12), np.uint8)
    labels[2:10, 2:10] = 3
    found = paint.outlines(labels)
    inside = np.zeros_like(labels, bool)
    inside[4:8, 4:8] = True
    assert (found == np.where(inside, 0, labels)).all()


def test_an_outline_goes_on_over_the_edge_of_a_tile(made: MaskPyramid) -> None:
    pictures = Pictures(Scene.open(made.path))
    left, right = (pixels(pictures.tile("outlines", 0, Tile(0, col))) for col in (0, 1))
    seen = np.concatenate([left, right], axis=1)[:, 300:800, 3] > 0
    whole = paint.outlines(made.read(Box(0, 290, 512, 520)))[:, 10:510] > 0
    assert (seen[:500] == whole[:500]).all()  # below them the tile sees further


def test_uncertainty_near_is_of_pixels_and_far_the_mean_of_tiles_on_one_scale(made: MaskPyramid) -> None:
    scene = Scene.open(made.path)
    pictures = Pictures(scene)
    near = pixels(pictures.tile("uncertainty", 0, Tile(0, 0)))[..., 3]
    assert len(np.unique(near)) > 50
    u = scene.ledger.grid("uncertainty")
    scene.pyramids["uncertainty"] = Pyramid(350, 525, 4, 5)  # of a slide so large that there is a level 4
    far = pixels(pictures.tile("uncertainty", 4, Tile(0, 0)))
    assert tuple(far[0, 0]) == paint.heat_palette()[round(255 * u[0, 0])]
    alpha = np.array([colour[3] for colour in paint.heat_palette()])
    shown = np.searchsorted(alpha, near[:320])  # 10 x 16 tiles
    assert shown.mean() / 255 == pytest.approx(u[:10, :16].mean(), abs=0.02)


def test_the_legend_of_uncertainty_has_the_colours_of_its_tiles_and_of_other_pictures() -> None:
    scale, palette = paint.heat_scale(), paint.heat_palette()
    assert [u for u, _ in scale[::4]] == [0, 0.25, 1]
    assert [colour for _, colour in scale[::4]] == [palette[0], palette[64], palette[255]]
    assert palette[0][3] == 0
    assert palette[255][:3] == tuple(HEAT[-1].astype(int))


def test_sources_lie_on_their_tiles(made: MaskPyramid) -> None:
    scene = Scene.open(made.path)
    seen = pixels(Pictures(scene).tile("source", 0, Tile(0, 0)))
    sources = made.read_source()
    assert {Source.MODEL_1, Source.MODEL_2} <= {Source(value) for value in np.unique(sources)}
    for row, col in np.ndindex(4, 4):
        kind = Source(sources[row, col])
        assert tuple(seen[128 * row + 64, 128 * col + 64]) == (*paint.SOURCES[kind], paint.INSIDE)
        assert tuple(seen[128 * row, 128 * col + 64]) == (*paint.SOURCES[kind], 255)


def test_without_its_slide_the_overview_is_shown_and_a_note_says_so(
    made: MaskPyramid, tmp_path: Path
) -> None:
    path = Path(made.manifest["slide"]["path"])
    away = path.rename(tmp_path / path.name)
    try:
        scene = Scene.open(made.path)
        moved = Scene.open(made.path, away)
    finally:
        away.rename(path)
    assert scene.slide is None
    assert "--slide" in scene.notes[0]
    seen = pixels(Pictures(scene).tile("slide", 0, Tile(0, 0)))
    assert np.abs(seen.astype(int) - made.read_overview()).mean() < 12  # a JPEG of noise
    assert moved.slide is not None
    assert not moved.notes


def test_a_result_of_another_uncertainty_is_another_one(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(300, 400)])
    output, settings = tmp_path / "o.zarr", replace(EVERYWHERE, overwrite=True)
    segment(slide, output, bundle=small_bundle(), rule=NONE, settings=settings)
    scene = Scene.open(output)
    segment(slide, output, bundle=small_bundle(), rule=NONE, settings=settings)
    assert scene.look() == 2
    margin = replace(settings, uncertainty="margin")
    segment(slide, output, bundle=small_bundle(), rule=NONE, settings=margin)
    with pytest.raises(StoreError, match="is another result by now; start wsi-seg view again"):
        scene.look()


def test_another_slide_is_refused(made: MaskPyramid, tmp_path: Path) -> None:
    other = write_slide(tmp_path / "other.tiff", [texture(1400, 2100, seed=1)])
    with pytest.raises(StoreError, match="not the slide that"):
        Scene.open(made.path, other)


def test_a_coarse_tile_of_a_slide_without_levels_comes_from_the_overview(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(600, 8200)], tile=256)
    rule = Fraction(0.0)
    store = segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), rule=rule, settings=EVERYWHERE).store
    scene = Scene.open(store.path)
    assert scene.slide is not None
    pictures = Pictures(scene)
    last = scene.pyramids["slide"].levels - 1
    assert 2**last > store.spec.overview_downsample
    view = scene.slide.view(2**last)
    truth = view.read(Box(0, 0, view.height, view.width))
    slide.unlink()
    seen = pixels(pictures.tile("slide", last, Tile(0, 0)))
    assert np.abs(seen.astype(int) - truth).mean() < 12  # a JPEG of noise


def test_the_row_of_a_tile_is_that_of_the_table(made: MaskPyramid) -> None:
    scene, table = Scene.open(made.path), made.tiles()
    index = int(np.flatnonzero(table["source"] == Source.MODEL_2)[0])
    told = scene.tile(Tile(int(table["row"][index]), int(table["col"][index])))
    assert told is not None
    assert told["source"] == "Model 2"
    for name in ("uncertainty", "round", "rank", "disagreement", "milliseconds"):
        assert told[name] == pytest.approx(float(table[name][index]))
    assert scene.tile(Tile(99, 0)) is None


def test_what_is_not_known_of_a_tile_is_null(made: MaskPyramid) -> None:
    scene, table = Scene.open(made.path), made.tiles()
    index = int(np.flatnonzero(table["source"] == Source.MODEL_1)[0])
    told = scene.tile(Tile(int(table["row"][index]), int(table["col"][index])))
    assert told is not None
    assert told["disagreement"] is None


def test_the_tiles_shown_are_those_that_a_box_touches(made: MaskPyramid) -> None:
    scene = Scene.open(made.path)
    assert scene.shown(Box(127, 128, 2, 128)).tiles == Box(0, 1, 2, 1)
    everything = scene.shown(Box(0, 0, made.spec.height, made.spec.width))
    assert everything.left == int((made.read_source() == Source.MODEL_1).sum())


def test_tiles_that_were_sent_are_kept_up_to_a_limit() -> None:
    cache, calls = SentTiles(10), []

    def make(name: str) -> Drawn:
        calls.append(name)
        return Drawn(name.encode() * 4, stays=name != "x")

    for name in ("a", "b", "a", "c", "a", "b", "x", "x"):
        tile = cache.obtain(name, lambda name=name: make(name))  # type: ignore[misc]
        assert tile.content == name.encode() * 4
        assert cache.held <= cache.limit
    assert calls == ["a", "b", "c", "b", "x", "x"]


@pytest.fixture
def refinable(tmp_path: Path) -> MaskPyramid:
    """Made by a model in a file; nothing refined."""
    slide = write_slide(tmp_path / "slide.tiff", pyramid(texture(700, 900), 2))
    model = tiny_model(tmp_path / "tiny.safetensors")
    return segment(slide, tmp_path / "o.zarr", bundle=model, rule=Fraction(0.0), settings=EVERYWHERE).store


def test_refining_refines_what_is_shown_and_nothing_else(refinable: MaskPyramid) -> None:
    scene = Scene.open(refinable.path)
    refiner, before = Refiner(scene), scene.look()
    refiner.start(Box(140, 300, 200, 200))
    refiner.wait()
    assert not refiner.progress.failed, refiner.progress.text
    assert "4 tiles refined" in refiner.progress.text
    refined = np.argwhere(refinable.read_source() == Source.MODEL_2).tolist()
    assert refined == [[row, col] for row in (1, 2) for col in (2, 3)]
    assert scene.look() > before


def test_the_last_tiles_of_a_slide_are_refined_though_they_are_narrow(refinable: MaskPyramid) -> None:
    refiner = Refiner(Scene.open(refinable.path))
    refiner.start(Box(699, 700, 1, 200))
    refiner.wait()
    assert np.argwhere(refinable.read_source() == Source.MODEL_2).tolist() == [[5, 5], [5, 6], [5, 7]]


def test_where_nothing_is_left_refining_is_refused(made: MaskPyramid) -> None:
    refiner = Refiner(Scene.open(made.path))
    row, col = np.argwhere(made.read_source() == Source.MODEL_2)[0]
    with pytest.raises(StoreError, match="no tile here"):
        refiner.start(Box(int(row) * 128 + 5, int(col) * 128 + 5, 10, 10))


def test_while_another_run_writes_refining_is_refused(refinable: MaskPyramid) -> None:
    from wsi_twostage.lock import locked

    refiner = Refiner(Scene.open(refinable.path))
    with locked(refinable.path), pytest.raises(StoreError, match="being written"):
        refiner.start(Box(0, 0, 100, 100))


def test_a_result_that_is_lost_at_the_end_of_refining_ends_it(
    refinable: MaskPyramid, monkeypatch: pytest.MonkeyPatch
) -> None:
    refiner = Refiner(Scene.open(refinable.path))

    def lose(tiles: Box) -> None:
        refinable.path.rename(refinable.path.with_name("moved.zarr"))

    monkeypatch.setattr(refiner, "_refine", lose)
    refiner.start(Box(0, 0, 100, 100))
    refiner.wait()
    assert refiner.progress.failed
    assert not refiner.progress.busy


def test_near_the_uncertainty_of_many_classes_is_of_pixels_too(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(300, 300)])
    bundle = small_bundle(classes=5)
    store = segment(slide, tmp_path / "o.zarr", bundle=bundle, rule=NONE, settings=EVERYWHERE).store
    scene = Scene.open(store.path)
    png = Pictures(scene).tile("uncertainty", 0, Tile(0, 0))
    assert png is not None
    assert len(np.unique(imagecodecs.png_decode(png.content)[:30, :30].reshape(900, -1), axis=0)) > 10


def test_a_result_that_cannot_be_written_to_is_not_refined(
    refinable: MaskPyramid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(StoreError, match="cannot be written to"):
        Refiner(Scene.open(refinable.path)).start(Box(0, 0, 100, 100))


def test_what_goes_wrong_while_refining_is_said(refinable: MaskPyramid) -> None:
    Path(refinable.manifest["model"]["path"]).write_bytes(b"hello")
    refiner = Refiner(Scene.open(refinable.path))
    refiner.start(Box(0, 0, 100, 100))
    refiner.wait()
    assert refiner.progress.failed
    assert "tiny.safetensors" in refiner.progress.text
    assert not refiner.progress.busy


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on PATH")
def test_the_page_shows_each_layer_once_whatever_comes_while_it_is_fetched(tmp_path: Path) -> None:
    for path in files("wsi_twostage.viewer").joinpath("page").iterdir():
        if path.name.endswith(".js"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(Path(__file__).with_name("viewer_world.mjs"), tmp_path)
    said = subprocess.run(
        ["node", "viewer_world.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert [json.loads(line) for line in said.stdout.splitlines()] == [
        [[1, 0.3], [2, 0.3]],  # the old one stays until the new one is there
        [[2, 0]],
        [],
        [[3, 0.3]],
        [[3, 0.3]],
        [[1, 0.05], [2, 0.05]],
    ]
