"""The slide pipeline against Algorithm 1 in memory, and what a store holds when it is done."""

import errno
import importlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from conftest import constant_bundle, small_bundle
from numpy.typing import NDArray
from slides import change_tile, pyramid, texture, write_slide
from torch import Tensor

from wsi_twostage.algorithm import two_stage
from wsi_twostage.errors import BundleError, ConfigError, DeviceFull, LostSlide, SlideError, StoreError
from wsi_twostage.events import Event, Finished, Note, Started, TilesDone
from wsi_twostage.mask import MaskPyramid, Source, majority
from wsi_twostage.models.room import within_room
from wsi_twostage.pipeline import segment
from wsi_twostage.preview import write_preview
from wsi_twostage.selection import ALL, NONE, Fraction, Threshold
from wsi_twostage.settings import Settings
from wsi_twostage.slide import open_slide
from wsi_twostage.slide.view import READERS
from wsi_twostage.tiles import Box, Tile
from wsi_twostage.tissue import tissue_mask, tissue_tiles

EVERYWHERE = Settings(tissue="none", workers=2)


def whole(store: MaskPyramid, level: int = 0) -> NDArray[np.uint8]:
    return store.read(Box(0, 0, *store.shape(level)), level)


def test_a_tiles_labels_do_not_depend_on_what_else_is_refined(
    tmp_path: Path, model: Path, slide: Path
) -> None:
    """Although the network sees farther than its halo."""
    some, every = (
        segment(slide, tmp_path / f"{rule.value}.zarr", bundle=model, rule=rule, settings=EVERYWHERE)
        for rule in (Fraction(0.3), ALL)
    )
    refined = some.tiles["source"] == Source.MODEL_2
    assert 0.2 < refined.mean() < 0.4
    for row, col in zip(*(some.tiles[name][refined] for name in ("row", "col")), strict=True):
        box = every.store.spec.tiles.box(Tile(int(row), int(col))).clip(*every.store.shape())
        np.testing.assert_array_equal(some.store.read(box), every.store.read(box))


@pytest.mark.parametrize(
    ("size", "rule", "changes"),
    [
        ((600, 500), ALL, {}),
        ((600, 500), NONE, {}),
        ((601, 389), Fraction(0.3), {}),
        ((601, 389), Threshold(0.4), {}),
        ((130, 127), Fraction(0.5), {"scale": 2}),
        ((601, 389), Fraction(0.3), {"scale": 2}),
        ((601, 389), Fraction(0.3), {"ratio": 2, "scale": 2}),
        ((602, 389), Fraction(0.3), {"ratio": 2}),
        ((333, 389), Fraction(0.4), {"classes": 3}),
        ((2200, 2300), Fraction(0.2), {}),
    ],
    ids=[
        "all",
        "none",
        "odd size",
        "threshold",
        "one tile",
        "finer answer",
        "answer at full resolution",
        "half resolution",
        "three classes",
        "several shards",
    ],
)
def test_a_slide_gives_what_algorithm_1_gives(
    tmp_path: Path, size: tuple[int, int], rule: Fraction, changes: dict[str, int]
) -> None:
    image, bundle = texture(*size), small_bundle(**changes)
    slide = write_slide(tmp_path / "slide.tiff", [image])
    result = segment(slide, tmp_path / "out.zarr", bundle=bundle, rule=rule, settings=EVERYWHERE)
    expected = two_stage(image, bundle, rule)
    np.testing.assert_array_equal(whole(result.store), expected.labels)
    np.testing.assert_array_equal(result.store.read_source() == Source.MODEL_2, expected.selection.chosen)
    coarse = Box(0, 0, *expected.probability.shape[1:])
    np.testing.assert_array_equal(result.store.read_probability(coarse), expected.probability)
    np.testing.assert_array_equal(result.tiles["uncertainty"], expected.scores.ravel())


def test_only_tissue_is_looked_at(tmp_path: Path) -> None:
    image = np.full((1100, 900, 3), 245, np.uint8)
    image[300:700, 200:600] = texture(400, 400) // 2 + np.array([90, 0, 60], np.uint8)
    bundle = small_bundle()
    slide = write_slide(tmp_path / "slide.tiff", [image])
    result = segment(slide, tmp_path / "out.zarr", bundle=bundle, rule=ALL)
    overview = result.store.read_overview()
    tissue = tissue_tiles(tissue_mask(overview), result.store.spec.tiles, 16) > 0
    assert 0 < tissue.sum() < tissue.size
    np.testing.assert_array_equal(whole(result.store), two_stage(image, bundle, ALL, tissue=tissue).labels)
    assert result.counts.tissue == result.counts.refined == tissue.sum()


def test_tissue_that_a_file_says_is_looked_at_and_no_other(tmp_path: Path) -> None:
    image, bundle = texture(1100, 900), small_bundle()
    slide = write_slide(tmp_path / "slide.tiff", [image])
    square = [[256, 128], [384, 128], [384, 256], [256, 256], [256, 128]]  # tiles of 128 px, (x, y)
    (tmp_path / "t.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    settings = Settings(tissue=str(tmp_path / "t.geojson"))
    result = segment(slide, tmp_path / "out.zarr", bundle=bundle, rule=ALL, settings=settings)
    seen = result.store.read_source() == Source.MODEL_2
    assert seen[1, 2]
    assert seen[1:3, 2:4].sum() == seen.sum()  # and what the outline touches
    assert result.store.manifest["tissue"]["path"] == str(tmp_path / "t.geojson")
    np.testing.assert_array_equal(whole(result.store), two_stage(image, bundle, ALL, tissue=seen).labels)


def test_stored_levels_and_averaged_ones_give_the_same_mask(tmp_path: Path) -> None:
    image, bundle = texture(640, 768), small_bundle()
    one = write_slide(tmp_path / "one.tiff", [image])
    four = image.reshape(160, 4, 192, 4, 3).mean((1, 3))
    two = write_slide(tmp_path / "two.tiff", [image, np.rint(four).astype(np.uint8)])
    masks = [
        whole(
            segment(p, p.with_suffix(".zarr"), bundle=bundle, rule=Fraction(0.3), settings=EVERYWHERE).store
        )
        for p in (one, two)
    ]
    np.testing.assert_array_equal(*masks)


def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", pyramid(texture(2100, 2100), 3))
    stores = []
    for workers in (1, 3):
        settings = Settings(tissue="none", workers=workers)
        out = tmp_path / f"{workers}.zarr"
        stores.append(segment(slide, out, bundle=small_bundle(), rule=Fraction(0.2), settings=settings).store)
    np.testing.assert_array_equal(whole(stores[0]), whole(stores[1]))


def test_each_level_is_the_majority_of_the_finer_one(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(2300, 4500)])
    settings = Settings(tissue="none", mpp=0.5)
    store = segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), rule=NONE, settings=settings).store
    assert store.levels > 3
    for level in range(1, store.levels):
        np.testing.assert_array_equal(whole(store, level), majority(whole(store, level - 1)))


def test_an_unreadable_tile_keeps_model_1s_answer_and_is_marked(tmp_path: Path) -> None:
    image = texture(640, 640)
    slide = write_slide(tmp_path / "slide.tiff", [image, image[::4, ::4]])
    change_tile(slide, 55, lambda data: b"\x00" * len(data))  # around (352, 352): inside of tile (2, 2)
    events: list[Event] = []
    result = segment(
        slide,
        tmp_path / "o.zarr",
        bundle=constant_bundle(3, -3),
        rule=ALL,
        settings=EVERYWHERE,
        listener=events.append,
    )
    source = result.store.read_source()
    bad = source == Source.UNREADABLE
    assert bad[2, 2]
    assert 1 <= bad.sum() <= 4
    assert result.counts.unreadable == bad.sum()
    assert whole(result.store)[300:340, 300:340].all()
    assert not whole(result.store)[:128, :128].any()
    assert any(isinstance(event, Note) and "cannot be read" in event.text for event in events)


def test_progress_counts_every_tile(tmp_path: Path) -> None:
    events: list[Event] = []
    slide = write_slide(tmp_path / "slide.tiff", [texture(600, 600)])
    segment(
        slide,
        tmp_path / "o.zarr",
        bundle=small_bundle(),
        rule=Fraction(0.5),
        settings=EVERYWHERE,
        listener=events.append,
    )
    for stage, total in (("stage 1", 25), ("stage 2", 12)):
        assert Started(stage, total) in events
        assert sum(e.tiles for e in events if isinstance(e, TilesDone) and e.stage == stage) == total
        assert any(isinstance(e, Finished) and e.stage == stage for e in events)


def test_a_blank_slide_gives_an_empty_mask_and_a_note(tmp_path: Path) -> None:
    events: list[Event] = []
    slide = write_slide(tmp_path / "slide.tiff", [np.full((500, 500, 3), 244, np.uint8)])
    result = segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), listener=events.append)
    assert (result.counts.tissue, result.status) == (0, "empty")
    assert not whole(result.store).any()
    assert any(isinstance(event, Note) and "no tissue" in event.text for event in events)


def test_an_existing_result_is_kept(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(200, 200)])
    out = tmp_path / "o.zarr"
    first = segment(slide, out, bundle=constant_bundle(3, 3), rule=ALL, settings=EVERYWHERE)
    with pytest.raises(StoreError, match="--overwrite"):
        segment(slide, out, bundle=constant_bundle(-3, -3), rule=ALL, settings=EVERYWHERE)
    assert whole(first.store).all()
    settings = Settings(tissue="none", overwrite=True)
    assert not whole(
        segment(slide, out, bundle=constant_bundle(-3, -3), rule=ALL, settings=settings).store
    ).any()


def test_a_result_says_what_made_it(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(300, 300)])
    segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), rule=Fraction(0.25), settings=EVERYWHERE)
    manifest = MaskPyramid.open(tmp_path / "o.zarr").manifest
    assert manifest["complete"]
    assert manifest["rule"] == "budget 25%"
    assert manifest["slide"]["mpp"] == 0.5
    assert len(manifest["slide"]["fingerprint"]) == 64
    assert manifest["counts"]["refined"] == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: Settings(tissue="magic"),
        lambda: Settings(uncertainty="x"),
        lambda: Settings(workers=0),
        lambda: Settings(patience=float("nan")),
        lambda: Settings(until=float("nan")),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Settings]) -> None:
    with pytest.raises(ConfigError):
        make()


def test_a_hole_in_a_slide_without_levels_costs_its_tiles_only(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(640, 640)])
    change_tile(slide, 55, lambda data: b"\x00" * len(data))
    events: list[Event] = []
    result = segment(
        slide,
        tmp_path / "o.zarr",
        bundle=constant_bundle(3, 3),
        rule=NONE,
        settings=Settings(workers=2),
        listener=events.append,
    )
    source = result.store.read_source()
    assert source[2, 2] == Source.UNREADABLE
    assert source[0, 0] == source[4, 4] == Source.MODEL_1
    assert not whole(result.store)[320:384, 320:384].any()
    assert any(isinstance(event, Note) and "black in the overview" in event.text for event in events)


@pytest.mark.parametrize(("rule", "tile"), [(ALL, 192), (NONE, 64)], ids=["model 2", "model 1"])
@pytest.mark.parametrize("room", [4, 1, 0], ids=["once", "tiles", "nothing"])
def test_a_window_that_finds_no_memory_is_tried_alone_then_tile_by_tile(
    tmp_path: Path, rule: Fraction, tile: int, room: int
) -> None:
    bundle, asked = small_bundle(), 0

    def scarce(net: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def tried(*images: Tensor) -> Tensor:
            nonlocal asked
            asked += 1
            if asked == 1 or images[0].shape[-2] * images[0].shape[-1] > room * tile**2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1")
            return net(*images)

        return tried

    slide = write_slide(tmp_path / "slide.tiff", [texture(192, 192)])
    expected = segment(slide, tmp_path / "a.zarr", bundle=bundle, rule=rule, settings=EVERYWHERE)
    poor = replace(bundle, f1=scarce(bundle.f1), f2=scarce(bundle.f2))
    if room == 0:
        with pytest.raises(DeviceFull, match=r"^device cpu: no memory for \d+ x \d+ px \(CUDA.*GiB\); use"):
            segment(slide, tmp_path / "b.zarr", bundle=poor, rule=rule, settings=EVERYWHERE)
        return
    result = segment(slide, tmp_path / "b.zarr", bundle=poor, rule=rule, settings=EVERYWHERE)
    np.testing.assert_array_equal(whole(result.store), whole(expected.store))


@pytest.mark.parametrize(
    "where", ["wsi_twostage.coarse.to_probability", "wsi_twostage.fine.to_labels"], ids=["model 1", "model 2"]
)
def test_what_is_made_of_an_answer_may_find_no_memory_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    slide, bundle, asked = write_slide(tmp_path / "slide.tiff", [texture(192, 192)]), small_bundle(), 0
    expected = segment(slide, tmp_path / "a.zarr", bundle=bundle, rule=ALL, settings=EVERYWHERE)
    module, _, name = where.rpartition(".")
    make = getattr(importlib.import_module(module), name)

    def scarce(*what: object) -> object:
        nonlocal asked
        asked += within_room()  # else on the CPU
        if asked == 1 and within_room():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1")
        return make(*what)

    monkeypatch.setattr(where, scarce)
    result = segment(slide, tmp_path / "b.zarr", bundle=bundle, rule=ALL, settings=EVERYWHERE)
    assert asked > 1
    np.testing.assert_array_equal(whole(result.store), whole(expected.store))


def test_a_slide_that_vanishes_is_no_hole(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tiff", [texture(640, 640)])
    slide = open_slide(path)

    def remove(event: Event) -> None:
        if event == Started("stage 1", 25):
            path.unlink()

    with pytest.raises(SlideError, match=r"slide\.tiff"):
        segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), settings=EVERYWHERE, listener=remove)


@pytest.mark.parametrize("stage", ["overview", "stage 1", "stage 2"])
def test_a_slide_that_the_system_will_not_read_is_no_fault_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(640, 640)])

    def fails(*_: object) -> NDArray[np.uint8]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def spoil(event: Event) -> None:
        if isinstance(event, Started) and event.stage == stage:
            monkeypatch.setitem(READERS, "tiff", fails)

    with pytest.raises(LostSlide, match=r"slide\.tiff: cannot be read \(Input/output error\)$"):
        segment(
            slide,
            tmp_path / "o.zarr",
            bundle=small_bundle(),
            rule=ALL,
            settings=EVERYWHERE,
            listener=spoil,
        )


def test_a_bundle_in_memory_cannot_go_to_a_scheduler(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(200, 200)])
    settings = Settings(scheduler="tcp://127.0.0.1:1")
    with pytest.raises(ConfigError, match="pack it into a file"):
        segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), settings=settings)
    assert not (tmp_path / "o.zarr").exists()


def test_glass_is_light_in_the_preview_whatever_the_uncertainty(tmp_path: Path) -> None:
    image = np.full((600, 900, 3), 245, np.uint8)
    image[:, :256] = texture(600, 256) // 2 + np.array([90, 0, 60], np.uint8)
    slide = write_slide(tmp_path / "slide.tiff", [image])
    settings = Settings(device="cpu", uncertainty="margin")
    bundle = small_bundle(classes=3)
    result = segment(slide, tmp_path / "out.zarr", bundle=bundle, rule=ALL, settings=settings)
    write_preview(result.store, tmp_path / "out.png")
    picture = imagecodecs.imread(tmp_path / "out.png")
    tissue, glass = picture[:, 912 + 10 : 912 + 240], picture[:600, 912 + 600 : 912 + 890]
    assert np.abs(glass.astype(int) - [252, 252, 250]).max() <= 1  # margin of no answer at all would be 1
    assert (tissue.astype(int) - [252, 252, 250]).std() > 10


@pytest.mark.parametrize("rule", [0.1, "10%", 0.0])
def test_a_number_or_a_text_is_no_rule(tmp_path: Path, rule: object) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(300, 300)])
    with pytest.raises(ConfigError, match=r"rule=.*; give one of Threshold, Fraction"):
        segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), rule=rule, settings=EVERYWHERE)  # type: ignore[arg-type]
    assert not (tmp_path / "o.zarr").exists()


@pytest.mark.parametrize("answers", [(math.nan, 1.0), (0.0, math.nan)], ids=["Model 1", "Model 2"])
def test_a_model_that_gives_no_number_is_no_background(tmp_path: Path, answers: tuple[float, float]) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(300, 300)])
    with pytest.raises(BundleError, match=r"gives numbers that are not finite \(NaN\)"):
        segment(slide, tmp_path / "o.zarr", bundle=constant_bundle(*answers), rule=ALL, settings=EVERYWHERE)


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_the_mask_lies_where_the_slides_own_pixels_do(tmp_path: Path, mpp: float) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(300, 300)])
    settings = replace(EVERYWHERE, mpp=mpp)
    store = segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), rule=NONE, settings=settings).store
    described = json.loads((store.path / "labels" / "segmentation" / "zarr.json").read_text())
    first = described["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    # the first pixel begins where the slide's does, so their centres are half of what they differ apart
    assert first[1]["translation"] == [(0.5 - mpp) / 2] * 2
    assert MaskPyramid.open(store.path).spec == store.spec


def test_a_slide_with_a_hole_has_a_preview(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tiff", [texture(600, 900)])
    change_tile(path, 1, lambda data: b"\0" * len(data))
    result = segment(path, tmp_path / "o.zarr", bundle=small_bundle(), rule=NONE, settings=EVERYWHERE)
    assert result.status == "partial"
    write_preview(result.store, tmp_path / "out.png")
    assert imagecodecs.imread(tmp_path / "out.png").any()


def test_a_preview_replaces_nothing_unasked_and_never_the_slide(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(300, 300)])
    store = segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), rule=NONE, settings=EVERYWHERE).store
    write_preview(store, tmp_path / "out.png")
    before, inside = slide.read_bytes(), store.path / "out.png"
    for path, overwrite, message in (
        (tmp_path / "out.png", False, "exists; give --overwrite"),
        (slide, True, "is the slide"),
        (inside, True, "is a part of the result"),
        (tmp_path, True, "is a folder"),
    ):
        with pytest.raises(StoreError, match=message):
            write_preview(store, path, overwrite=overwrite)
    assert slide.read_bytes() == before
    assert not inside.exists()
    write_preview(store, tmp_path / "out.png", overwrite=True)


def test_what_lies_outside_of_a_result_is_refused(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(300, 300)])
    store = segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), rule=NONE, settings=EVERYWHERE).store
    for box in (Box(-5, 0, 10, 10), Box(0, 295, 10, 10), Box(0, 0, 10, 301)):
        with pytest.raises(ConfigError, match=r"is not inside level 0 of .*, 300 x 300 px"):
            store.read(box)
    with pytest.raises(ConfigError, match="no level 99"):
        store.read_overview(level=99)
    store.note(whole=False, held_by="process 7 on there, run 1")
    with pytest.raises(
        StoreError, match="process 7 on there is at work on it, or was killed before the mask was"
    ):
        MaskPyramid.open(store.path)


def test_a_result_that_is_gone_is_not_an_empty_mask(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(300, 300)])
    store = segment(slide, tmp_path / "o.zarr", bundle=small_bundle(), rule=ALL, settings=EVERYWHERE).store
    assert whole(store).any()
    store.path.rename(tmp_path / "elsewhere.zarr")
    for read in (lambda: whole(store), store.read_overview, store.tiles, lambda: store.manifest):
        with pytest.raises(StoreError, match="is gone"):
            read()
