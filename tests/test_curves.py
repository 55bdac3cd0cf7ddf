"""Curves of bundles on slides: whole runs, an oracle and a draw beside them, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from click import UsageError
from click.testing import CliRunner
from PIL import Image
from slides import texture, write_slide

from wsi_seg.main import commands
from wsi_twostage.curves.curve import Cells, highest, lines_of, read_curve
from wsi_twostage.curves.slides import labelled_slides, measure_slides
from wsi_twostage.errors import ConfigError
from wsi_twostage.models.bundle import BundleSpec, NetSpec, build, save_bundle
from wsi_twostage.pipeline import Settings

TINY = NetSpec((8, 8, 8, 8, 8), (1, 1, 1, 1, 1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    spec = BundleSpec("tiny", 0.5, ("nucleus",), ((255, 200, 0),), tile=128, coarse=TINY, fine=TINY)
    save_bundle(path, build(TINY, TINY, context=True), spec)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two slides with truth, one as PNG, one as TIFF."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for i, (name, suffix) in enumerate((("a.tiff", ".png"), ("b.ome.tif", ".tif"))):
        image = texture(300, 400, seed=i)
        write_slide(tmp_path / "images" / name, [image])
        truth = (image[..., 0] > 128).astype(np.uint8)
        mask = tmp_path / "masks" / f"{name[0]}{suffix}"
        if suffix == ".png":
            Image.fromarray(truth * 255).save(mask)
        else:
            tifffile.imwrite(mask, truth)
    return tmp_path


def test_a_curve_of_bundles_begins_with_model_1_and_ends_with_model_2(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    report, picture = tmp_path / "curve.json", tmp_path / "curve.png"
    files = ["--data", str(folder), "-o", str(report), "--picture", str(picture)]
    done = CliRunner().invoke(
        commands, ["curve", str(model), *files, "--repeats", "1"], catch_exceptions=False
    )
    assert "| tiny | 100% | 1.0 |" in done.output
    assert picture.stat().st_size > 10_000
    curve = read_curve(report)
    assert (curve.data, curve.images) == ("a, b", 2)
    own, oracle, random = curve.lines
    assert [line.name for line in curve.lines] == ["tiny", "tiny, oracle", "tiny, random"]
    assert (own.points[-1].refined, own.points[-1].cost, own.points[-1].agreement) == (1.0, 1.0, 1.0)
    assert own.points[-1].dice == pytest.approx(curve.reference_dice, abs=1e-5)
    for line in (oracle, random):  # made from tiles, they begin and end where the runs do
        for at in (0, -1):
            assert line.points[at].dice == pytest.approx(own.points[at].dice, abs=1e-5)
            assert line.points[at].agreement == pytest.approx(own.points[at].agreement, abs=1e-5)


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


def test_the_highest_share_keeps_reading_order_at_a_tie() -> None:
    assert highest(np.array([1, 1, 1, 2]), 0.5).tolist() == [True, False, False, True]


def test_a_mask_without_a_slide_is_named(folder: Path) -> None:
    (folder / "images" / "a.tiff").unlink()
    with pytest.raises(ConfigError, match=r"a\.png: no slide of this name in .*images"):
        labelled_slides(folder)
    with pytest.raises(ConfigError, match="no masks"):
        labelled_slides(folder / "images")


def test_a_mask_of_another_size_is_refused(folder: Path, model: Path) -> None:
    tifffile.imwrite(folder / "masks" / "b.tif", np.zeros((10, 10), np.uint8))
    with pytest.raises(ConfigError, match=r"b\.tif: 10 x 10 px, its slide 400 x 300"):
        measure_slides([model], labelled_slides(folder), settings=Settings(device="cpu"), repeats=1)


def test_what_cannot_be_compared_is_refused(folder: Path, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    spec = BundleSpec("other", 0.25, ("nucleus",), ((255, 200, 0),), tile=128, coarse=TINY, fine=TINY)
    save_bundle(other, build(TINY, TINY, context=True), spec)
    with pytest.raises(ConfigError, match="one class and one mpp"):
        measure_slides([model, other], labelled_slides(folder))
    with pytest.raises(ConfigError, match="two bundles of one name"):
        measure_slides([model, model], labelled_slides(folder))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["nuclei-he", "unet-bowl"], "do not share a picture", id="bundles and experiments"),
        pytest.param(["nuclei-he", "--runs", "."], "--runs and --set are for", id="a bundle with runs"),
        pytest.param(["unet-bowl"], "experiments need --runs", id="an experiment without runs"),
    ],
)
def test_kinds_are_not_mixed(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        CliRunner().invoke(
            commands,
            ["curve", *arguments, "--data", ".", "-o", "x.json"],
            catch_exceptions=False,
            standalone_mode=False,
        )
