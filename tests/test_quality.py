"""Gaps and promises against small cases worked out by hand, and calibration from slides and images."""

import os
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from command import wsi_seg
from faults import Killed
from PIL import Image
from slides import change_tile, texture, write_slide

from wsi_seg.main import commands
from wsi_twostage import cases
from wsi_twostage.calibrate import WARM, Seen, calibrate_bundle
from wsi_twostage.cases import case_of_store
from wsi_twostage.errors import BundleError, Busy, ConfigError, LostSlide, NoCases, StoreError, WriteError
from wsi_twostage.events import Event, Note, Started, TilesDone
from wsi_twostage.kept_cases import KeptCases
from wsi_twostage.models.bundle import build, copy_bundle, load_net, save_bundle
from wsi_twostage.models.header import read_spec
from wsi_twostage.models.spec import BundleSpec, Calibration, NetSpec
from wsi_twostage.pipeline import segment
from wsi_twostage.preparing import resolve
from wsi_twostage.quality import (
    THRESHOLDS,
    Case,
    TileAnswers,
    calibrate_cases,
    fit_temperature,
    least_promise,
    mean_threshold,
    promises,
    tally,
    threshold_for,
)
from wsi_twostage.selection import ALL, TargetGap, Threshold
from wsi_twostage.settings import Settings
from wsi_twostage.tiles import Box


def tile(p: int, first: int, second: int) -> TileAnswers:
    """4 x 4 px of one probability; the first so many pixels are foreground."""
    index = np.arange(16).reshape(4, 4)
    return TileAnswers(
        np.full((4, 4), p, np.uint8), (index < first).astype(np.uint8), (index < second).astype(np.uint8)
    )


def case(*tiles: TileAnswers) -> Case:
    return tally("made up", tiles, step=1)


def calibration(cases: int, *gaps: float) -> Calibration:
    n = len(gaps)
    return Calibration(cases, "slides", tuple(i / 10 for i in range(n)), gaps, (1.0,) * n)


def test_a_tile_is_counted_by_hand() -> None:
    found = case(tile(200, 6, 8))
    assert found.histogram[0, 200] == found.histogram.sum() == 16
    assert found.positive[200] == found.positive.sum() == 8
    assert found.overlap.tolist() == [[6, 6, 8]]


def test_a_coarse_probability_is_matched_with_one_pixel_of_four() -> None:
    p = np.array([[10, 250]], np.uint8)
    second = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
    found = tally("x", [TileAnswers(p, second, second)], step=2)
    assert found.histogram.sum() == 2
    assert found.positive[250] == found.positive.sum() == 1


def test_the_gap_of_a_threshold_by_hand() -> None:
    """The sure tile is left to Model 1, which has 6 of its 8 pixels; the unsure one is refined."""
    found = calibrate_cases([case(tile(255, 6, 8), tile(128, 0, 8))], unit="slides")
    sure, all_left = THRESHOLDS.searchsorted(0.5), -1
    assert found.gap[0] == 0  # at 0 everything is refined
    assert found.refined[0] == 1
    assert found.gap[sure] == pytest.approx(1 - 2 * 14 / (14 + 16), abs=1e-6)
    assert found.refined[sure] == 0.5
    assert found.threshold[all_left] == 1.0
    assert found.refined[all_left] == 0
    assert found.gap[all_left] == pytest.approx(1 - 2 * 6 / (6 + 16), abs=1e-6)


def test_a_gap_never_falls_with_the_threshold() -> None:
    generator = np.random.default_rng(0)
    cases = [case(*(tile(*generator.integers(0, 17, 3).tolist()) for _ in range(20))) for _ in range(5)]
    found = calibrate_cases(cases, unit="images")
    assert (np.diff(found.gap) >= 0).all()
    assert (np.diff(found.refined) <= 0).all()


def test_the_temperature_is_found_again() -> None:
    """Pixels whose logits are 2.5 times too large."""
    values = np.arange(256)
    true = 1 / (1 + np.exp(-np.log((values + 0.5) / (255.5 - values)) / 2.5))
    histogram = np.full((1, 256), 1000)
    found = fit_temperature([Case("x", histogram, 1000 * true, np.zeros((1, 3), np.int64))], 1.0)
    assert found == pytest.approx(2.5, rel=0.05)


@pytest.mark.parametrize("second", [0, 16])
def test_answers_that_are_all_alike_say_nothing_of_the_temperature(second: int) -> None:
    assert fit_temperature([case(tile(30, 0, second), tile(250, 0, second))], 1.3) is None


def test_a_network_that_is_far_too_sure_is_calibrated() -> None:
    """Logits 8 times too large, seen as a calibration does: at `WARM` times the temperature, in 8 bits."""
    z = np.linspace(-6, 6, 2001)
    seen = np.round(255 / (1 + np.exp(-8 * z / WARM))).astype(int)
    positive = np.bincount(seen, weights=1 / (1 + np.exp(-z)), minlength=256)
    found = Case("x", np.bincount(seen, minlength=256)[None], positive, np.zeros((1, 3), np.int64))
    assert fit_temperature([found], WARM) == pytest.approx(8, rel=0.05)


def test_a_temperature_is_found_from_a_high_one_too() -> None:
    """A quarter of it makes probabilities of 0 and 1, where Model 2 may agree with all pixels."""
    values = np.arange(256)
    true = 1 / (1 + np.exp(-np.log((values + 0.5) / (255.5 - values))))
    true[[0, 255]] = 0, 1
    histogram = np.full((1, 256), 1000)
    found = fit_temperature([Case("x", histogram, 1000 * true, np.zeros((1, 3), np.int64))], 2.0)
    assert found == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize(
    ("gaps", "cases", "target", "threshold"),
    [
        ((0.0, 0.004, 0.02), 999, 0.005, 0.1),  # (999 * 0.004 + 1) / 1000 = 0.004996
        ((0.0, 0.004, 0.02), 249, 0.005, 0.0),  # ... / 250 = 0.0079; only refining everything is sure
        ((0.0, 0.004, 0.02), 49, 0.04, 0.2),
    ],
)
def test_conformal_risk_control_by_hand(
    gaps: tuple[float, ...], cases: int, target: float, threshold: float
) -> None:
    assert threshold_for(calibration(cases, *gaps), target) == threshold


@pytest.mark.parametrize(
    ("found", "target", "message"),
    [
        (None, 0.01, "carries no calibration; make one with wsi-seg calibrate"),
        (
            calibration(61, 0.0, 0.1),
            0.005,
            r"rests on 61 slides, which can promise 0\.0162 at best; 199 are needed, and so 249 or",
        ),
        (calibration(61, 0.0), 0.0, "must be within 0..1"),
    ],
    ids=["none", "too few", "zero"],
)
def test_what_cannot_be_promised_is_refused(found: Calibration | None, target: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        threshold_for(found, target)


@pytest.mark.parametrize("cases", [1, 2, 6, 7, 8, 11, 61, 99, 998])
def test_the_best_that_can_be_promised_is_granted(cases: int) -> None:
    best = float(f"{least_promise(cases):g}")
    assert threshold_for(calibration(cases, 0.0), best) == 0.0
    assert best == pytest.approx(1 / (cases + 1), rel=0.01)


def test_promises_leave_out_what_they_cannot_hold() -> None:
    found = promises(calibration(61, 0.0, 0.01, 0.04))
    assert [(p.target, p.threshold) for p in found] == [(0.02, 0.0), (0.03, 0.1), (0.05, 0.1), (0.1, 0.2)]


def test_the_default_threshold_is_by_the_mean() -> None:
    assert mean_threshold(calibration(3, 0.0, 0.004, 0.006), 0.005) == 0.1


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random networks, saved."""
    path = tmp_path_factory.mktemp("bundle") / "tiny.safetensors"
    tiny = NetSpec((8, 8, 8, 8, 8), (1, 1, 1, 1, 1))
    torch.manual_seed(3)
    spec = BundleSpec(
        "tiny", 0.5, ("nucleus",), ((1, 2, 3),), tile=128, halo=32, coarse_halo=16, context_halo=16,
        coarse=tiny, fine=tiny, temperature=1.2, decisions=(0.5, 0.5),
    )  # fmt: skip
    save_bundle(path, build(tiny, tiny, context=True), spec)
    return path


EVERYWHERE = Settings(tissue="none", workers=1)


def test_a_case_of_a_store_gives_the_gap_of_a_run(bundle: Path, tmp_path: Path) -> None:
    """What the counts say of a threshold is what a run with that threshold leaves."""
    slide = write_slide(tmp_path / "slide.tiff", [texture(300, 390)])
    every = segment(slide, tmp_path / "all.zarr", bundle=bundle, rule=ALL, settings=EVERYWHERE)
    spec = read_spec(bundle)
    found = calibrate_cases([case_of_store("slide", every.store, spec)], unit="slides")
    middle = float(np.median(every.tiles["uncertainty"]))
    index = int(np.searchsorted(THRESHOLDS, middle))
    rule = Threshold(float(THRESHOLDS[index]))
    some = segment(slide, tmp_path / "some.zarr", bundle=bundle, rule=rule, settings=EVERYWHERE)
    one, two = (r.store.read(Box(0, 0, 300, 390)) > 0 for r in (some, every))
    gap = 1 - 2 * (one & two).sum() / (one.sum() + two.sum())
    assert found.refined[index] == pytest.approx(some.counts.refined / some.counts.tissue, abs=1e-4)
    assert found.gap[index] == pytest.approx(gap, abs=1e-5)


def test_calibrating_on_slides_writes_a_bundle(bundle: Path, tmp_path: Path) -> None:
    slides = [write_slide(tmp_path / f"{i}.tiff", [texture(260, 300, seed=i)]) for i in range(2)]
    output, seen = tmp_path / "new.safetensors", list[Seen]()
    spec = calibrate_bundle(slides, output, model=bundle, settings=EVERYWHERE, progress=seen.append)
    assert seen == [Seen(0, 2), Seen(1, 2, "0.tiff"), Seen(2, 2, "1.tiff")]
    assert read_spec(output) == spec
    assert spec.calibration is not None
    assert (spec.calibration.cases, spec.calibration.unit) == (2, "slides")
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(load_net(output).f1(x), load_net(bundle).f1(x), rtol=0, atol=0)
    result = segment(slides[0], tmp_path / "x.zarr", bundle=output, rule=TargetGap(0.9), settings=EVERYWHERE)
    assert str(result.store.manifest["rule"]).startswith("threshold")


def test_a_promise_is_of_runs_like_those_of_the_calibration(bundle: Path, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "0.tiff", [texture(260, 300)])
    output = tmp_path / "new.safetensors"
    spec = calibrate_bundle([slide], output, model=bundle, settings=EVERYWHERE)
    assert spec.calibration is not None
    assert (spec.calibration.tissue, spec.calibration.precision) == ("none", "fp32")
    texts = []
    for tissue in ("none", "otsu"):
        said: list[Event] = []
        resolve(TargetGap(0.9), spec, Settings(tissue=tissue), said.append)
        texts.append([event.text for event in said if isinstance(event, Note)])
    assert texts[0] == []
    assert "runs like those of the calibration, but here tissue is otsu and was none" in texts[1][0]


@pytest.mark.parametrize(
    ("masks", "tissue"),
    [(("none", "otsu"), ""), (("none", "none"), "none"), (("0.png", "1.png"), "file"), (("0.png", ""), "")],
)
def test_slides_with_tissue_of_their_own_may_have_been_seen_one_way(
    bundle: Path, tmp_path: Path, masks: tuple[str, str], tissue: str
) -> None:
    for i in range(2):
        write_slide(tmp_path / f"{i}.tiff", [texture(260, 300, seed=i)])
        Image.new("L", (300, 260), 255).save(tmp_path / f"{i}.png")
    listed = tmp_path / "slides.csv"
    listed.write_text(f"wsi,mask\n0.tiff,{masks[0]}\n1.tiff,{masks[1]}\n")
    spec = calibrate_bundle([listed], tmp_path / "new.safetensors", model=bundle, settings=EVERYWHERE)
    assert spec.calibration is not None
    assert (spec.calibration.tissue, spec.calibration.precision) == (tissue, "fp32")


def test_the_default_threshold_is_of_entropy_whatever_the_promise_is_of(bundle: Path, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "0.tiff", [texture(260, 300)])
    found = [
        calibrate_bundle(
            [slide], tmp_path / f"{kind}.safetensors", model=bundle,
            settings=replace(EVERYWHERE, uncertainty=kind),
        )
        for kind in ("entropy", "margin")
    ]  # fmt: skip
    assert found[0].threshold == found[1].threshold
    assert found[0].calibration != found[1].calibration


def test_a_calibration_that_was_killed_goes_on(bundle: Path, tmp_path: Path) -> None:
    slides = [write_slide(tmp_path / f"{i}.tiff", [texture(260, 300, seed=i)]) for i in range(6)]
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    calibrate_bundle(slides, whole, model=bundle, settings=EVERYWHERE)
    stages: list[str] = []

    def kill(event: Event) -> None:
        stages.extend([event.stage] if isinstance(event, Started) else [])
        if stages.count("stage 2") == 4 and isinstance(event, TilesDone):
            raise Killed

    with pytest.raises(Killed):
        calibrate_bundle(slides, cut, model=bundle, settings=EVERYWHERE, listener=kill)
    (tmp_path / "cut.safetensors.cases" / "note.txt").write_text("the user's own")
    events: list[Event] = []
    calibrate_bundle(slides, cut, model=bundle, settings=EVERYWHERE, listener=events.append)
    again = [e.stage for e in events if isinstance(e, Started)]
    assert again.count("stage 2") == 3  # of the slide that was at work, and of two more
    assert cut.read_bytes() == whole.read_bytes()
    assert os.listdir(tmp_path / "cut.safetensors.cases") == ["note.txt"]
    assert not (tmp_path / "whole.safetensors.cases").exists()


@pytest.mark.parametrize("part", [slice(0, 0), slice(0, 99), slice(9, None)])
def test_a_damaged_case_counts_as_none(tmp_path: Path, part: slice) -> None:
    kept, made_of = KeptCases(tmp_path / "x.cases"), "0123456789abcdef"
    kept.keep(made_of, case(tile(255, 6, 8)))
    assert kept.read(made_of) is not None
    (file,) = kept.folder.glob("*.npz")
    file.write_bytes(file.read_bytes()[part])
    assert kept.read(made_of) is None


def test_a_case_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    kept, made_of = KeptCases(tmp_path / "x.cases"), "0123456789abcdef"
    (kept.folder / f"{made_of}.npz").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be read"):
        kept.read(made_of)


def test_slides_come_from_folders_and_manifests_as_for_a_run(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    slides = [write_slide(folder / f"{i}.tiff", [texture(260, 300, seed=i)]) for i in range(2)]
    listed = tmp_path / "slides.csv"
    listed.write_text("wsi,mpp\n" + "".join(f"slides/{slide.name},0.5\n" for slide in slides))
    specs = [
        calibrate_bundle(inputs, tmp_path / f"{i}.safetensors", model=bundle, settings=EVERYWHERE)
        for i, inputs in enumerate((slides, [folder], [str(listed)]))
    ]
    assert specs[0] == specs[1] == specs[2]
    with pytest.raises(ConfigError, match="given twice"):
        calibrate_bundle([folder, slides[0]], tmp_path / "new.safetensors", model=bundle)


def test_another_model_does_not_go_on_with_a_calibration(bundle: Path, tmp_path: Path) -> None:
    slides = [write_slide(tmp_path / f"{i}.tiff", [texture(260, 300, seed=i)]) for i in range(2)]
    output, other = tmp_path / "new.safetensors", tmp_path / "other.safetensors"
    copy_bundle(bundle, other, replace(read_spec(bundle), decisions=(0.4, 0.6)))

    def kill(seen: Seen) -> None:
        if seen.inputs:
            raise Killed

    with pytest.raises(Killed):
        calibrate_bundle(slides, output, model=bundle, settings=EVERYWHERE, progress=kill)
    ran: list[Event] = []
    calibrate_bundle(slides, output, model=other, settings=EVERYWHERE, listener=ran.append)
    assert sum(isinstance(e, Started) and e.stage == "stage 2" for e in ran) == 2


def test_calibrating_on_images_needs_no_masks(bundle: Path, tmp_path: Path) -> None:
    for i in range(3):
        imagecodecs.imwrite(tmp_path / f"{i}.png", texture(200, 260, seed=i))
    spec = calibrate_bundle([tmp_path], tmp_path / "new.safetensors", model=bundle, settings=EVERYWHERE)
    assert spec.calibration is not None
    assert (spec.calibration.cases, spec.calibration.unit) == (3, "images")
    assert (spec.calibration.tissue, spec.calibration.precision) == ("", "fp32")


def test_images_that_are_named_one_by_one_are_no_slides(bundle: Path, tmp_path: Path) -> None:
    """They may be patches of one slide, and a promise for slides does not rest on them."""
    images = [tmp_path / f"{i}.png" for i in range(2)]
    for i, image in enumerate(images):
        imagecodecs.imwrite(image, texture(200, 260, seed=i))
    told = replace(EVERYWHERE, mpp=0.5)
    spec = calibrate_bundle(images, tmp_path / "new.safetensors", model=bundle, settings=told)
    assert spec.calibration is not None
    assert (spec.calibration.cases, spec.calibration.unit) == (2, "images")


def test_what_cannot_be_used_is_left_out_and_named(bundle: Path, tmp_path: Path) -> None:
    slides = [write_slide(tmp_path / "0.tiff", [texture(260, 300)])]
    slides += [write_slide(tmp_path / "blank.tiff", [np.full((260, 300, 3), 245, np.uint8)])]
    (tmp_path / "no.svs").write_bytes(b"nothing")
    seen: list[Seen] = []
    spec = calibrate_bundle(
        [*slides, tmp_path / "no.svs"], tmp_path / "new.safetensors", model=bundle,
        settings=Settings(workers=1), progress=seen.append,
    )  # fmt: skip
    assert spec.calibration is not None
    assert spec.calibration.cases == 1
    assert seen[1:3] == [Seen(1, 3, "0.tiff"), Seen(2, 3, "blank.tiff", "no tissue")]
    assert "no.svs" in seen[3].left_out


def test_of_a_slide_that_can_be_read_in_part_the_rest_counts(bundle: Path, tmp_path: Path) -> None:
    image = texture(640, 640)
    slides = [write_slide(tmp_path / f"{name}.tiff", [image, image[::4, ::4]]) for name in ("some", "none")]
    change_tile(slides[0], 55, lambda data: b"\x00" * len(data))
    for number in range(100):
        change_tile(slides[1], number, lambda data: b"\x00" * len(data))
    seen: list[Seen] = []
    said: list[Event] = []
    calibrate_bundle(
        slides, tmp_path / "new.safetensors", model=bundle, settings=EVERYWHERE, progress=seen.append,
        listener=said.append,
    )  # fmt: skip
    assert seen[1] == Seen(1, 2, "some.tiff")
    assert "of its 25 tissue tiles could be read" in seen[2].left_out
    assert any(isinstance(event, Note) and "cannot be read" in event.text for event in said)


def test_a_slide_that_goes_away_ends_a_calibration(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = [write_slide(tmp_path / f"{i}.tiff", [texture(260, 300, seed=i)]) for i in range(2)]
    real = cases.segment

    def lose(slide: object, *arguments: object, **more: object) -> object:
        if "1.tiff" in str(getattr(slide, "path", slide)):
            raise LostSlide("gone")
        return real(slide, *arguments, **more)  # type: ignore[arg-type]

    output = tmp_path / "new.safetensors"
    monkeypatch.setattr(cases, "segment", lose)
    with pytest.raises(LostSlide):
        calibrate_bundle(slides, output, model=bundle, settings=EVERYWHERE)
    assert not output.exists()
    monkeypatch.setattr(cases, "segment", real)
    spec = calibrate_bundle(slides, output, model=bundle, settings=EVERYWHERE)
    assert spec.calibration is not None
    assert spec.calibration.cases == 2


def test_an_image_that_cannot_be_read_is_left_out(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"nothing")
    imagecodecs.imwrite(tmp_path / "1.png", texture(200, 260))
    seen: list[Seen] = []
    calibrate_bundle([tmp_path], tmp_path / "x.safetensors", model=bundle, progress=seen.append)
    assert "not an image" in seen[1].left_out
    assert seen[2] == Seen(2, 2, "1.png")


def test_every_fifth_input_fits_the_temperature_alone(bundle: Path, tmp_path: Path) -> None:
    for i in range(6):
        imagecodecs.imwrite(tmp_path / f"{i}.png", texture(129, 141, seed=i))
    before, model = read_spec(bundle), tmp_path / "told.safetensors"
    copy_bundle(bundle, model, replace(before, card={"data": "x", "curve": [{"threshold": 0.5}]}))
    spec = calibrate_bundle([tmp_path], tmp_path / "new.safetensors", model=model, settings=EVERYWHERE)
    assert spec.calibration is not None
    assert spec.calibration.cases == 4
    assert spec.card == {"data": "x"}  # the curve's thresholds were of another temperature
    assert spec.temperature != before.temperature
    cuts = [s.temperature * np.log(s.decisions[0] / (1 - s.decisions[0])) for s in (before, spec)]
    assert cuts[0] == pytest.approx(cuts[1], abs=1e-3)  # Model 1's mask stays


def test_the_same_input_twice_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        calibrate_bundle([tmp_path / "a.svs"] * 2, tmp_path / "new.safetensors", model=bundle)


@pytest.mark.parametrize("number", [3, 5])  # with five, one of the two fits the temperature
def test_a_copy_counts_once(bundle: Path, tmp_path: Path, number: int) -> None:
    for kind in ("slides", "images"):
        (tmp_path / kind).mkdir()
    for i in range(number):
        seed = i % (number - 1)
        write_slide(tmp_path / "slides" / f"{i}.tiff", [texture(260, 300, seed=seed)])
        imagecodecs.imwrite(tmp_path / "images" / f"{i}.png", texture(129, 141, seed=seed))
    for kind in ("slides", "images"):
        seen: list[Seen] = []
        spec = calibrate_bundle(
            [tmp_path / kind], tmp_path / f"{kind}.safetensors", model=bundle, settings=EVERYWHERE,
            progress=seen.append,
        )  # fmt: skip
        assert spec.calibration is not None
        assert spec.calibration.cases == (2 if number == 3 else 3)
        (out,) = (at for at in seen if at.left_out)
        assert "a copy of 0." in out.left_out
        assert not out.failed


def test_a_name_that_is_no_utf_8_is_calibrated_on(bundle: Path, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "a.tiff", [texture(260, 300)]).rename(tmp_path / "M\udcfcller.tiff")
    spec = calibrate_bundle([slide], tmp_path / "new.safetensors", model=bundle, settings=EVERYWHERE)
    assert spec.calibration is not None
    assert spec.calibration.cases == 1


def test_a_list_whose_tissue_is_missing_costs_one_slide(bundle: Path, tmp_path: Path) -> None:
    for i in range(2):
        write_slide(tmp_path / f"{i}.tiff", [texture(260, 300, seed=i)])
    listed, seen = tmp_path / "slides.csv", list[Seen]()
    listed.write_text("wsi,mask,output\n0.tiff,gone.png,/elsewhere/0.zarr\n1.tiff,,/elsewhere/1.zarr\n")
    output = tmp_path / "new.safetensors"
    spec = calibrate_bundle([listed], output, model=bundle, settings=EVERYWHERE, progress=seen.append)
    assert spec.calibration is not None
    assert spec.calibration.cases == 1
    assert seen[1].name == "0.tiff"
    assert "gone.png" in seen[1].left_out
    assert seen[1].failed


@pytest.mark.parametrize("slides", [True, False])
def test_a_network_of_no_numbers_is_not_calibrated(bundle: Path, tmp_path: Path, slides: bool) -> None:
    net, broken, data = load_net(bundle), tmp_path / "nan.safetensors", tmp_path / "data"
    next(net.fine.parameters()).data.fill_(float("nan"))
    save_bundle(broken, net, read_spec(bundle))
    data.mkdir()
    if slides:
        write_slide(data / "0.tiff", [texture(260, 300)])
    else:
        imagecodecs.imwrite(data / "0.png", texture(140, 140))
    with pytest.raises(BundleError, match="numbers that are not finite"):
        calibrate_bundle([data], tmp_path / "new.safetensors", model=broken, settings=EVERYWHERE)


def test_one_calibration_at_a_time_writes_a_bundle(bundle: Path, tmp_path: Path) -> None:
    slides = [write_slide(tmp_path / f"{i}.tiff", [texture(260, 300, seed=i)]) for i in range(2)]
    output, said = tmp_path / "new.safetensors", list[str]()

    def second(seen: Seen) -> None:
        if not seen.inputs:
            return
        with pytest.raises(Busy) as refused:
            calibrate_bundle(slides, output, model=bundle, settings=EVERYWHERE)
        said.append(str(refused.value))

    calibrate_bundle(slides, output, model=bundle, settings=EVERYWHERE, progress=second)
    assert ["is being written by another calibration; wait for it" in line for line in said] == [True, True]
    assert read_spec(output).calibration


def test_a_place_that_cannot_be_written_is_said_before_the_first_input(bundle: Path, tmp_path: Path) -> None:
    imagecodecs.imwrite(tmp_path / "0.png", texture(140, 140))
    output, seen = bundle / "new.safetensors", list[Seen]()  # in a file
    with pytest.raises(WriteError, match=r"new\.safetensors: cannot be written"):
        calibrate_bundle([tmp_path], output, model=bundle, settings=EVERYWHERE, progress=seen.append)
    assert not seen


def test_what_was_seen_is_kept_where_the_rest_could_not_be_read(bundle: Path, tmp_path: Path) -> None:
    """The first of five fits the temperature; without the others there is nothing to calibrate on."""
    write_slide(tmp_path / "0.tiff", [texture(260, 300)])
    for i in range(1, 5):
        (tmp_path / f"{i}.tiff").write_bytes(b"nothing")
    output = tmp_path / "new.safetensors"
    for _ in range(2):
        done = wsi_seg("calibrate", tmp_path, "-o", output, "--model", bundle, cwd=tmp_path)
        assert done.returncode == 1
        assert "wsi-seg: nothing to calibrate on" in done.stderr
    assert len(list((tmp_path / "new.safetensors.cases").glob("*.npz"))) == 1
    blank = write_slide(tmp_path / "blank.tif", [np.full((260, 300, 3), 245, np.uint8)])
    with pytest.raises(NoCases):
        calibrate_bundle([blank], tmp_path / "b.safetensors", model=bundle)
    assert not (tmp_path / "b.safetensors.cases").exists()


def test_another_uncertainty_is_refused() -> None:
    with pytest.raises(ConfigError, match="is of entropy, not of margin"):
        threshold_for(calibration(999, 0.0), 0.1, uncertainty="margin")


def test_slides_and_images_do_not_mix(bundle: Path, tmp_path: Path) -> None:
    imagecodecs.imwrite(tmp_path / "0.png", texture(200, 260))
    slide = write_slide(tmp_path / "slide.tiff", [texture(260, 300)])
    with pytest.raises(ConfigError, match="go without slides"):
        calibrate_bundle([tmp_path, slide], tmp_path / "new.safetensors", model=bundle)


def test_a_folder_of_slides_is_not_taken_for_one_of_images(bundle: Path, tmp_path: Path) -> None:
    imagecodecs.imwrite(tmp_path / "overview.png", texture(200, 260))
    write_slide(tmp_path / "slide.tiff", [texture(260, 300)])
    with pytest.raises(ConfigError, match=r"1 PNG or JPEG images beside 1 slides, such as slide\.tiff"):
        calibrate_bundle([tmp_path], tmp_path / "new.safetensors", model=bundle)


def test_a_target_gap_without_calibration_touches_nothing(bundle: Path, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(260, 300)])
    with pytest.raises(ConfigError, match="carries no calibration"):
        segment(slide, tmp_path / "x.zarr", bundle=bundle, rule=TargetGap(0.1), settings=EVERYWHERE)
    assert not (tmp_path / "x.zarr").exists()


def test_the_command_prints_its_promises(bundle: Path, tmp_path: Path) -> None:
    for i in range(15):
        imagecodecs.imwrite(tmp_path / f"{i}.png", texture(140, 140, seed=i))
    output = str(tmp_path / "new.safetensors")
    arguments = ["calibrate", str(tmp_path), "-o", output, "--model", str(bundle), "--device", "cpu"]
    done = CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert "from 12 images" in done.output
    assert "| 0.1 | " in done.output  # 1 / 13 = 0.077
    before = Path(output).read_bytes()
    again = CliRunner().invoke(commands, arguments)
    assert isinstance(again.exception, StoreError)
    assert Path(output).read_bytes() == before


def test_the_command_ends_with_3_where_inputs_were_left_out(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"nothing")
    imagecodecs.imwrite(tmp_path / "1.png", texture(140, 140))
    output = tmp_path / "new.safetensors"
    arguments = ["calibrate", str(tmp_path), "-o", str(output), "--model", str(bundle), "--device", "cpu"]
    done = CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert done.exit_code == 3
    assert "1 inputs could not be read and are left out" in done.stderr
    assert read_spec(output).calibration


def test_what_came_meanwhile_is_not_replaced(bundle: Path, tmp_path: Path) -> None:
    slide, output = write_slide(tmp_path / "0.tiff", [texture(260, 300)]), tmp_path / "new.safetensors"
    with pytest.raises(StoreError, match="exists"):
        calibrate_bundle(
            [slide],
            output,
            model=bundle,
            settings=EVERYWHERE,
            progress=lambda seen: output.write_text("another's") and None,
        )
    assert output.read_text() == "another's"


def test_the_default_threshold_is_of_entropy_alone(bundle: Path, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(260, 300)])
    margin = Settings(tissue="none", workers=1, uncertainty="margin")
    with pytest.raises(ConfigError, match="is of entropy; with margin give a rule"):
        segment(slide, tmp_path / "x.zarr", bundle=bundle, settings=margin)
    result = segment(slide, tmp_path / "x.zarr", bundle=bundle, rule=Threshold(0.3), settings=margin)
    assert result.store.manifest["uncertainty"] == "margin"


def test_what_too_few_slides_can_promise_is_said(bundle: Path, tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(140, 140)])
    output = str(tmp_path / "new.safetensors")
    arguments = ["calibrate", str(slide), "--mpp", "0.5", "-o", output, "--model", str(bundle)]
    done = CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert "1 slides can promise a gap of 0.5 at best" in done.output


def test_rules_exclude_each_other(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["x.svs", "--target-gap", "0.02", "--budget", "10%"])
    assert isinstance(done.exception, ConfigError)
    assert "--budget and --target-gap" in str(done.exception)
