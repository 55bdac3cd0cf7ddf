"""What a run would do, before it does it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import small_bundle
from slides import change_tile, pyramid, texture, write_slide

from wsi_twostage.errors import ConfigError, SlideError
from wsi_twostage.models.spec import Calibration
from wsi_twostage.passes import Passes
from wsi_twostage.pipeline import segment
from wsi_twostage.planning import plan
from wsi_twostage.selection import ALL, NONE, Duration, Fraction, Threshold
from wsi_twostage.settings import Settings

IMAGE = np.full((2100, 1700, 3), 244, np.uint8)
IMAGE[300:1400, 200:1500] = texture(1100, 1300) // 2 + np.array([90, 0, 60], np.uint8)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "slide.tiff", [IMAGE])


@pytest.mark.parametrize(
    ("rule", "audit"), [(ALL, None), (ALL, 8), (NONE, None), (NONE, 8), (Fraction(0.2), 8)]
)
def test_the_plan_is_what_the_run_does(
    tmp_path: Path, slide: Path, rule: Fraction, audit: int | None
) -> None:
    bundle, settings = small_bundle(), Settings(workers=2, audit=audit)
    made = plan(slide, bundle=bundle, rule=rule, settings=settings)
    result = segment(slide, tmp_path / "o.zarr", bundle=bundle, rule=rule, settings=settings)
    assert (made.tiles, made.tissue) == (result.counts.tiles, result.counts.tissue)
    assert made.stage_1.tiles == result.counts.tissue
    assert made.stage_2.tiles == result.counts.refined
    assert made.stage_2.megapixels >= made.stage_2.tiles * bundle.spec.tile**2 / 1e6 - 0.1
    assert made.memory_gib > 0.75


def test_nothing_is_written(tmp_path: Path, slide: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    plan(slide, bundle=small_bundle(), rule=ALL, settings=Settings(workers=1))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_threshold_is_judged_by_the_models_calibration(slide: Path) -> None:
    bundle = small_bundle()
    at_most = plan(slide, bundle=bundle, rule=Threshold(0.3), settings=Settings(workers=1))
    assert at_most.stage_2.tiles == at_most.tissue
    assert "no calibration" in at_most.refined_from
    known = Calibration(7, "slides", threshold=(0.0, 0.2, 0.4), gap=(0.0, 0.1, 0.2), refined=(1.0, 0.5, 0.1))
    calibrated = replace(bundle, spec=replace(bundle.spec, calibration=known))
    made = plan(slide, bundle=calibrated, rule=Threshold(0.3), settings=Settings(workers=1))
    assert made.stage_2.tiles == round(0.3 * made.tissue)
    assert "7 slides" in made.refined_from
    other = Settings(workers=1, uncertainty="margin")
    made = plan(slide, bundle=calibrated, rule=Threshold(0.3), settings=other)
    assert made.stage_2.tiles == made.tissue
    assert "calibration is of entropy, not of margin" in made.refined_from


def test_a_budget_of_time_is_spent_and_not_more(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megapixel takes a second, and nothing else takes time."""
    monkeypatch.setattr(Passes, "pace", lambda *_: 1.0)
    monkeypatch.setattr("wsi_twostage.planning.seconds_of", lambda *_: 0.0)
    monkeypatch.setattr("wsi_twostage.planning.time.perf_counter", lambda: 0.0)
    settings, bundle = Settings(workers=1), small_bundle()
    every = plan(slide, bundle=bundle, rule=ALL, settings=settings)
    one, two, before = every.stage_1.seconds, every.stage_2.seconds, 0
    for part in (0.1, 0.3, 0.5, 0.7, 0.9):
        made = plan(slide, bundle=bundle, rule=Duration(one + part * two), settings=settings)
        assert made.stage_2.tiles >= max(before, 1)
        assert 0.6 * part * two - 0.1 < made.stage_2.seconds <= part * two + 0.1
        before = made.stage_2.tiles
    assert before < every.stage_2.tiles
    assert plan(slide, bundle=bundle, rule=Duration(999), settings=settings).stage_2 == every.stage_2
    short = plan(slide, bundle=bundle, rule=Duration(one / 2), settings=settings)
    assert short.stage_2.tiles == 0
    assert "is over before Model 1 has seen all" in short.notes[0]
    monkeypatch.setattr(Passes, "pace", lambda *_: 0.0)
    assert not plan(slide, bundle=bundle, rule=Duration(1e-9), settings=settings).seconds


def test_a_missing_level_and_missing_tissue_are_pointed_out(
    tmp_path: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_twostage.planning._LARGE_MPX", 1)
    made = plan(slide, bundle=small_bundle(), rule=NONE, settings=Settings(workers=1))
    assert any("averaged from level 0" in note for note in made.notes)
    stored = write_slide(tmp_path / "levels.tiff", pyramid(IMAGE, 4))
    assert not plan(stored, bundle=small_bundle(), rule=NONE, settings=Settings(workers=1)).notes
    blank = write_slide(tmp_path / "blank.tiff", [np.full((500, 500, 3), 244, np.uint8)])
    made = plan(blank, bundle=small_bundle(), rule=ALL, settings=Settings(workers=1))
    assert (made.tissue, made.stage_2.tiles) == (0, 0)
    assert any("no tissue" in note for note in made.notes)


def test_the_memory_bound_does_not_know_the_slides_size(tmp_path: Path) -> None:
    bounds = []
    for side in (1100, 3300):
        path = write_slide(
            tmp_path / f"{side}.tiff", [np.tile(IMAGE[300:1400, 200:1300], (side // 1100,) * 2 + (1,))]
        )
        bounds.append(plan(path, bundle=small_bundle(), rule=ALL, settings=Settings(workers=2)).memory_gib)
    assert bounds[1] < 1.1 * bounds[0]


@pytest.mark.parametrize("mpp", [1.5, 20])
def test_a_slide_that_is_larger_than_any_is_refused(tmp_path: Path, mpp: float) -> None:
    path = tmp_path / "slide.ome.zarr"
    group = zarr.create_group(path)
    group.create_array("0", shape=(3, 250_000, 250_000), chunks=(3, 512, 512), dtype="uint8", fill_value=255)
    axes = [{"name": name, "type": "space"} for name in "cyx"]
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    with pytest.raises(SlideError, match=r"250000 px at .* um/px are [\d,]+ x [\d,]+ mm, which no slide is"):
        plan(path, settings=Settings(mpp=mpp))
    with pytest.raises(SlideError, match="is the scale right"):
        segment(path, tmp_path / "out.zarr", settings=Settings(mpp=mpp))
    assert not (tmp_path / "out.zarr").exists()


def test_a_hole_in_the_slide_does_not_stop_the_plan(slide: Path) -> None:
    for tile in range(250, 600):
        change_tile(slide, tile, lambda data: b"\0" * len(data))
    made = plan(slide, bundle=small_bundle(), rule=ALL, settings=Settings(workers=1))
    assert made.stage_2.seconds >= 0


def test_bad_settings_are_refused_as_in_a_run(slide: Path) -> None:
    with pytest.raises(ConfigError, match="tissue"):
        plan(slide, settings=Settings(tissue="magic"))
