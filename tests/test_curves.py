"""Curves of bundles on slides: whole runs, an oracle and a draw beside them, and what is refused."""

import shutil
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from click import Abort, UsageError
from click.testing import CliRunner
from PIL import Image
from slides import change_tile, texture, write_slide

from wsi_seg.main import commands
from wsi_twostage.curves import plot, slides
from wsi_twostage.curves.curve import FRACTIONS, Cells, Curve, highest, lines_of, read_curve
from wsi_twostage.curves.slides import measure_slides
from wsi_twostage.curves.truth import labelled_slides, read_truth
from wsi_twostage.errors import ConfigError
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.models.bundle import build, save_bundle
from wsi_twostage.models.spec import BundleSpec, NetSpec
from wsi_twostage.pipeline import segment
from wsi_twostage.result import Result
from wsi_twostage.settings import Settings

OF_EXPERIMENTS = "--runs, --set and --split-seed are for experiments"
TINY = NetSpec((8, 8, 8, 8, 8), (1, 1, 1, 1, 1))


def save(path: Path, *, seed: int, mpp: float = 0.5, tile: int = 128) -> Path:
    """A bundle whose two models know nothing, each in its own way."""
    torch.manual_seed(seed)
    spec = BundleSpec(path.stem, mpp, ("nucleus",), ((255, 200, 0),), tile=tile, coarse=TINY, fine=TINY)
    net = build(TINY, TINY, context=True)
    with torch.no_grad():
        for model in (net.coarse, net.fine):
            model.head[0].weight.mul_(30)
    save_bundle(path, net, spec)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "tiny.safetensors", seed=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two slides with truth, one as PNG, one as TIFF; a part of the first is glass, with truth in it."""
    for part in ("images", "masks"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for i, (name, suffix) in enumerate((("a.tiff", ".png"), ("b.ome.tif", ".tif"))):
        image = texture(600, 700, seed=i)
        truth = (image[..., 0] > 128).astype(np.uint8)
        if i == 0:
            image[:, 400:] = 250
        write_slide(tmp_path / "set" / "images" / name, [image])
        mask = tmp_path / "set" / "masks" / f"{name[0]}{suffix}"
        if suffix == ".png":
            Image.fromarray(truth * 255).save(mask)
        else:
            tifffile.imwrite(mask, truth)
    return tmp_path / "set"


def test_a_curve_of_bundles_begins_with_model_1_and_ends_with_model_2(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    report, picture = tmp_path / "new" / "curve.json", tmp_path / "new" / "curve.png"
    other = save(tmp_path / "other.safetensors", seed=5, tile=256)
    files = ["--data", str(folder), "-o", str(report), "--picture", str(picture)]
    arguments = ["curve", str(model), str(other), *files, "--repeats", "1", "--mpp", "0.5"]
    done = CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert "| other | 100% |" in done.output
    assert picture.stat().st_size > 10_000
    curve = read_curve(report)
    assert (curve.data, curve.images) == ("set", 2)
    assert [(made["model"], made["mpp"]) for made in curve.settings] == [("tiny", 0.5), ("other", 0.5)]
    ends = ("", ", oracle", ", random")
    assert [line.name for line in curve.lines] == [name + end for name in ("tiny", "other") for end in ends]
    own, *_ = curve.lines
    assert (own.points[-1].refined, own.points[-1].agreement) == (1.0, 1.0)
    assert own.points[-1].cost > 1  # stage 1 comes on top of the reference
    assert own.points[-1].dice == pytest.approx(curve.reference_dice, abs=1e-5)
    assert own.points[0].agreement < 0.9  # the models differ, or this would show nothing
    assert curve.lines[3].points[-1].agreement < 0.95  # another bundle's Model 2 is not the reference
    for first in (0, 3):  # made from tiles, they begin and end where the runs do
        for line in curve.lines[first : first + 3]:
            for at in (0, -1):
                expected = curve.lines[first].points[at]
                assert line.points[at].dice == pytest.approx(expected.dice, abs=2e-5)
                assert line.points[at].agreement == pytest.approx(expected.agreement, abs=2e-5)


def test_a_curve_that_was_interrupted_goes_on_after_its_last_whole_run(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def segment_some(slide: Path, place: Path, **more: Any) -> Result:
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(place.name)
        return segment(slide, place, **more)

    report = tmp_path / "curve.json"
    arguments = ["curve", str(model), "--data", str(folder), "-o", str(report), "--repeats", "1"]
    monkeypatch.setattr(slides, "segment", segment_some)
    assert isinstance(CliRunner().invoke(commands, arguments, standalone_mode=False).exception, Abort)
    assert sorted(path.name for path in tmp_path.glob("curve.json.runs/*")) == sorted(made)
    (tmp_path / "curve.json.runs" / "mine.txt").touch()
    again: list[str] = []

    def segment_rest(slide: Path, place: Path, **more: Any) -> Result:
        again.append(place.name)
        return segment(slide, place, **more)

    monkeypatch.setattr(slides, "segment", segment_rest)
    CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert set(made) & set(again) == {"warm-up.zarr"}
    assert len(set(made) | set(again)) == 1 + 2 * 7  # shares of two slides
    assert read_curve(report).lines[0].points[-1].agreement == 1
    assert [path.name for path in tmp_path.glob("curve.json.runs/*")] == ["mine.txt"]


def test_all_bundles_are_run_before_any_is_repeated(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [model, save(tmp_path / "other.safetensors", seed=5, tile=256)]
    found, kept = labelled_slides(folder)[1:], tmp_path / "kept"
    made: list[str] = []
    whole = len(FRACTIONS)

    def segment_some(slide: Path, place: Path, *, bundle: Path, **more: Any) -> Result:
        if len(made) == 2 * whole + 3:  # in the second repeat of the first
            raise KeyboardInterrupt
        result = segment(slide, place, bundle=bundle, **more)
        made.extend([] if place.stem == "warm-up" else [bundle.stem])
        return result

    def curve() -> Curve:
        told.clear()
        return measure_slides(
            models, found, settings=Settings(device="cpu", mpp=0.5), repeats=2, kept=kept,
            progress=lambda name, runs: told.append((name, runs)),
        )  # fmt: skip

    told: list[tuple[str, int]] = []
    monkeypatch.setattr(slides, "segment", segment_some)
    with pytest.raises(KeyboardInterrupt):
        curve()
    assert made == ["tiny"] * whole + ["other"] * whole + ["tiny"] * 3
    monkeypatch.setattr(slides, "segment", segment)
    lines = curve().lines
    assert told == [(name, i + 1) for i, name in enumerate((["tiny"] * whole + ["other"] * whole) * 2)]
    runs = [MaskPyramid.open(place).manifest for place in kept.glob("*-1.0-*.zarr")]
    seconds = [run["seconds"] for run in runs if run["model"]["path"] == str(model)]
    total, stage_1 = (median(s[key] for s in seconds) for key in ("total", "stage_1"))
    assert (len(runs), len(seconds)) == (4, 2)
    assert lines[0].points[-1].cost == pytest.approx(total / (total - stage_1), abs=1e-4)


def test_chance_takes_as_many_tiles_of_an_image_as_the_rule() -> None:
    counts = np.zeros((5, 2, 2, 3))
    counts[:, :, :, 1:] = 10
    counts[:, 1, :, 0] = 10  # Model 2 is right everywhere, Model 1 nowhere
    cells = Cells(np.zeros(5, np.float32), counts)
    own, _, chance = lines_of("x", cells, [1.0] * 7, reference_dice=1.0, within=np.array([0, 0, 0, 0, 2]))
    assert [point.dice for point in chance.points] == [point.dice for point in own.points]
    assert [point.dice for point in chance.points] == [0, 0, 0, 0.2, 0.4, 0.8, 1.0]


def test_an_oracle_takes_the_cells_that_gain() -> None:
    counts = np.zeros((4, 2, 2, 3))
    counts[:, 0] = [0, 10, 10]
    counts[:, 1] = [0, 10, 10]
    counts[2, 1] = [10, 10, 10]  # only here Model 2 is right
    cells = Cells(np.array([0.9, 0.1, 0.2, 0.3], np.float32), counts)
    own, oracle, _ = lines_of("x", cells, [1.0] * 7, reference_dice=0.25)
    at = [point.refined for point in own.points].index(0.2)  # one of four cells
    assert (own.points[at].dice, oracle.points[at].dice) == (0.0, 0.25)
    rest = np.tile([0.0, 0.0, 40.0], (2, 1))  # truth that no cell holds
    assert lines_of("x", cells, [1.0] * 7, reference_dice=0.25, rest=rest)[1].points[at].dice == round(
        20 / 120, 5
    )


def test_chance_is_what_is_expected_when_every_cell_is_as_likely() -> None:
    counts = np.random.default_rng(0).integers(0, 50, (40, 2, 2, 3)).astype(np.float64)
    counts[..., 0] = counts.min(-1) // 2  # shared pixels are of both
    cells = Cells(np.zeros(40, np.float32), counts)
    *_, chance = lines_of("x", cells, [1.0] * 7, reference_dice=0.25)
    drawn = [np.random.default_rng(seed).permutation(40) < 16 for seed in range(400)]
    mixed = [np.where(some[:, None], counts[:, 1, 0], counts[:, 0, 0]).sum(0) for some in drawn]
    at = [point.refined for point in chance.points].index(0.4)  # 16 of 40
    assert chance.points[at].dice == pytest.approx(np.mean([2 * i / (p + t) for i, p, t in mixed]), abs=2e-3)


def test_the_highest_share_keeps_reading_order_at_a_tie() -> None:
    assert highest(np.array([1, 1, 1, 2]), 0.5).tolist() == [True, False, False, True]


def test_a_share_can_be_taken_of_every_image() -> None:
    order, within = np.array([9, 8, 7, 1, 2, 3]), np.array([0, 0, 0, 1, 1, 1])
    assert highest(order, 1 / 3).tolist() == [True, True, False, False, False, False]
    assert highest(order, 1 / 3, within).tolist() == [True, False, False, False, False, True]


def test_masks_and_slides_go_in_pairs(folder: Path) -> None:
    assert [slide.slide.name for slide in labelled_slides(folder)] == ["a.tiff", "b.ome.tif"]
    (folder / "images" / "a.xml").touch()
    with pytest.raises(ConfigError, match=r"a\.png: expected one slide .*a\.\*, found a\.tiff, a\.xml"):
        labelled_slides(folder)
    for path in (folder / "images").glob("a.*"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"a\.png: expected one slide .*a\.\*, found none"):
        labelled_slides(folder)
    (folder / "masks" / "a.png").rename(folder / "masks" / "b.png")
    with pytest.raises(ConfigError, match=r"b\.tif: a second mask of .*b\.ome\.tif; the first is .*b\.png"):
        labelled_slides(folder)
    with pytest.raises(ConfigError, match="no masks"):
        labelled_slides(folder / "images")


def test_tissue_that_is_given_is_the_tissue(folder: Path, model: Path, tmp_path: Path) -> None:
    (folder / "tissue").mkdir()
    tissue = np.zeros((60, 70), np.uint8)
    tissue[:10, :10] = 255  # of the second slide, all of which looks like tissue: one of its tiles
    Image.fromarray(tissue).save(folder / "tissue" / "b.png")
    slides = labelled_slides(folder)
    assert [slide.tissue for slide in slides] == [None, folder / "tissue" / "b.png"]
    seen = measure_slides(
        [model], slides[1:], settings=Settings(device="cpu", mpp=0.5), repeats=1, kept=tmp_path / "kept"
    )
    runs = [MaskPyramid.open(place) for place in (tmp_path / "kept").glob("*.zarr")]
    assert {run.manifest["counts"]["tissue"] for run in runs} == {1}
    assert seen.settings[0]["tissue"] == "file"
    for name in ("Thumbs.db", "._b.png"):  # of systems
        (folder / "tissue" / name).touch()
    assert labelled_slides(folder) == slides
    (folder / "tissue" / "b.geojson").touch()
    with pytest.raises(ConfigError, match=r"b\.png: a second file of this name; the first is .*b\.geojson"):
        labelled_slides(folder)
    (folder / "tissue" / "b.png").rename(folder / "tissue" / "c.png")
    with pytest.raises(ConfigError, match=r"c\.png: tissue of no slide"):
        labelled_slides(folder)


def test_a_mask_that_does_not_fit_is_refused(folder: Path, model: Path) -> None:
    tifffile.imwrite(folder / "masks" / "b.tif", np.zeros((10, 10), np.uint8))
    with pytest.raises(ConfigError, match=r"b\.tif: 10 x 10 px, its slide 700 x 600"):
        measure_slides([model], labelled_slides(folder), settings=Settings(device="cpu"), repeats=1)
    (folder / "masks" / "b.tif").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match=r"b\.tif: not a TIFF image"):
        measure_slides([model], labelled_slides(folder), settings=Settings(device="cpu"), repeats=1)


@pytest.mark.parametrize("kind", ["inverted", "bits", "colours", "large", "without a limit"])
def test_truth_is_what_is_not_black_in_the_picture(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    truth = texture(600, 700, seed=1)[..., 0] > 128
    grey, place = truth.astype(np.uint8) * 255, folder / "masks" / "b.tif"
    if kind == "inverted":
        tifffile.imwrite(place, ~grey, photometric="miniswhite")
    elif kind == "bits":
        Image.fromarray(truth).save(place, compression="group4")
    elif kind == "colours":
        tifffile.imwrite(place, np.dstack([grey] * 3), photometric="rgb")
    else:
        place.unlink()
        Image.fromarray(grey).save(place.with_suffix(".png"))
        most = 1000 if kind == "large" else None  # the picture has far more than twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    found = read_truth(labelled_slides(folder)[1], 0.5, Settings(device="cpu"))
    np.testing.assert_array_equal(found, truth)


def test_a_bundle_may_have_any_name(folder: Path, model: Path, tmp_path: Path) -> None:
    renamed = shutil.copy(model, tmp_path / "tumour.bundle")
    arguments = [
        "curve",
        str(renamed),
        "--data",
        str(folder),
        "-o",
        str(tmp_path / "x.json"),
        "--repeats",
        "1",
    ]
    done = CliRunner().invoke(commands, [*arguments, "--device", "cpu"])
    assert done.exit_code == 0, done.exception


def test_the_slide_of_a_mask_is_found_by_its_whole_name(folder: Path) -> None:
    (folder / "images" / "a.2.svs").touch()
    assert [slide.slide.name for slide in labelled_slides(folder)] == ["a.tiff", "b.ome.tif"]
    (folder / "images" / "a.tiff").unlink()
    zarr = folder / "images" / "a.ome.zarr"
    zarr.mkdir()
    (zarr / "zarr.json").write_text('{"attributes": {"ome": {"multiscales": []}}}')
    assert labelled_slides(folder)[0].slide == zarr


def test_a_slide_with_holes_gives_no_curve(folder: Path, model: Path, tmp_path: Path) -> None:
    change_tile(folder / "images" / "a.tiff", 0, lambda data: b"\x00" * len(data))
    for _ in range(2):  # what the first call kept is no better
        with pytest.raises(ConfigError, match=r"a\.tiff: \d+ of its \d+ tissue tiles have no answer"):
            measure_slides(
                [model],
                labelled_slides(folder),
                settings=Settings(device="cpu"),
                repeats=1,
                kept=tmp_path / "runs",
            )


@pytest.mark.parametrize("there", ["curve.json", "curve.png"])
def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    output = str(tmp_path / "curve.json")
    arguments = ["curve", "nuclei-he", "--data", "no", "-o", output, "--picture", str(tmp_path / "curve.png")]
    with pytest.raises(ConfigError, match=f"{there} exists; give another name, or --overwrite"):
        CliRunner().invoke(commands, arguments, catch_exceptions=False)
    with pytest.raises(ConfigError, match="no: no masks"):  # so it goes on
        CliRunner().invoke(commands, [*arguments, "--overwrite"], catch_exceptions=False)
    assert (tmp_path / there).read_text() == "mine"


def test_a_picture_that_cannot_be_drawn_is_refused_before_anything_is_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ConfigError("pictures need matplotlib")

    monkeypatch.setattr(plot, "ensure_drawing", missing)
    arguments = [
        "curve",
        "nuclei-he",
        "--data",
        str(folder),
        "-o",
        str(tmp_path / "x.json"),
        "--picture",
        "x.png",
    ]
    with pytest.raises(ConfigError, match="need matplotlib"):
        CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert not list(tmp_path.glob("x.*"))


def test_what_cannot_be_compared_is_refused(folder: Path, model: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "other.safetensors", seed=0, mpp=0.25)
    with pytest.raises(ConfigError, match=r"other\.safetensors: 1 classes at 0\.25 um/px; .* here 0\.5"):
        measure_slides([model, other], labelled_slides(folder))
    with pytest.raises(ConfigError, match="two bundles of one name"):
        measure_slides([model, model], labelled_slides(folder))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["nuclei-he", "unet-bowl"], "do not share a picture", id="bundles and experiments"),
        pytest.param(["nuclei-he", "--runs", "."], OF_EXPERIMENTS, id="a bundle with runs"),
        pytest.param(["nuclei-he", "--split-seed", "1"], OF_EXPERIMENTS, id="a bundle with splits"),
        pytest.param(["unet-bowl"], "unet-bowl: neither .* need --runs", id="an experiment without runs"),
        pytest.param(["net.onnx"], "net.onnx: neither a .safetensors file nor a shipped", id="neither"),
        pytest.param(["unet-bowl", "--runs", ".", "--mpp", "1"], "--mpp is for bundles", id="runs with mpp"),
        pytest.param(["nuclei-he", "--picture", "x.doc"], "must end in .png or .svg", id="no picture"),
        pytest.param(["nuclei-he", "-o", "x.safetensors"], "must end in .json", id="no JSON"),
    ],
)
def test_kinds_are_not_mixed(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        CliRunner().invoke(
            commands,
            ["curve", "-o", "x.json", "--data", ".", *arguments],
            catch_exceptions=False,
            standalone_mode=False,
        )
