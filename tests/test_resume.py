"""A run that was stopped goes on: to the same bytes, and never with another slide, model or parameter."""

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import small_bundle
from slides import pyramid, texture, write_slide

from wsi_twostage.errors import StoreError
from wsi_twostage.events import Event, TilesDone
from wsi_twostage.ledger import Ledger
from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.models.bundle import BundleSpec, NetSpec, build, read_spec, save_bundle
from wsi_twostage.pipeline import Settings, segment
from wsi_twostage.selection import ALL, NONE, Fraction

EVERYWHERE = Settings(tissue="none", workers=2)
RULE = Fraction(0.5)


class Killed(BaseException):
    """Like a SIGKILL: nobody is asked."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in a file: one in memory is never the same as another."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny.safetensors")


def tiny_model(path: Path) -> Path:
    tiny = NetSpec((8, 8, 8, 8, 8), (1, 1, 1, 1, 1))
    spec = BundleSpec("tiny", 0.5, ("nucleus",), ((1, 2, 3),), tile=128, coarse=tiny, fine=tiny)
    save_bundle(path, build(tiny, tiny, context=True), spec)
    return path


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 x 2 shards, 306 tiles."""
    return write_slide(tmp_path_factory.mktemp("slides") / "slide.tiff", pyramid(texture(2200, 2300), 3))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path, slide: Path) -> Path:
    """The result of a run that nothing stopped."""
    path = tmp_path_factory.mktemp("whole") / "o.zarr"
    segment(slide, path, bundle=model, rule=RULE, settings=EVERYWHERE)
    return path


def content(store: Path) -> dict[str, bytes]:
    """All files, but for those that say how long something took."""
    timed = ("wsi_twostage/zarr.json", "wsi_twostage/tiles/milliseconds/")
    files = {str(path.relative_to(store)): path for path in store.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(timed)}


def facts(store: Path) -> dict[str, object]:
    return {name: value for name, value in MaskPyramid.open(store).manifest.items() if name != "seconds"}


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 7, 9])
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(
    tmp_path: Path, model: Path, slide: Path, whole: Path, after: int
) -> None:
    """``after`` so many tasks have told of themselves."""
    events: list[Event] = []

    def kill(event: Event) -> None:
        events.append(event)
        if sum(isinstance(e, TilesDone) for e in events) > after:
            raise Killed

    with pytest.raises(Killed):
        segment(slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=EVERYWHERE, listener=kill)
    segment(slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=EVERYWHERE)
    assert content(tmp_path / "o.zarr") == content(whole)
    assert facts(tmp_path / "o.zarr") == facts(whole)


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.kill)])
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    tmp_path: Path, model: Path, slide: Path, whole: Path, kills: int
) -> None:
    """By the system, at random: also while a file is being written."""
    chance, out = random.Random(kills), tmp_path / "o.zarr"
    script = Path(sys.executable).with_name("wsi-seg")
    options = ("--tissue", "none", "--budget", "50%", "--workers", "2", "-q")
    for _ in range(kills):
        with subprocess.Popen([script, slide, "-o", out, "--model", model, *options]) as process:
            for _ in range(1000):  # until it has begun; imports take seconds
                if out.exists() or process.poll() is not None:
                    break
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 1.5))
            process.send_signal(signal.SIGKILL)
        for name in ("", "labels", "labels/segmentation"):
            zarr.open_group(out / name, mode="r")
    subprocess.run([script, slide, "-o", out, "--model", model, *options], check=True)
    assert content(out) == content(whole)
    assert facts(out) == facts(whole)


def test_what_is_done_is_not_done_again(
    tmp_path: Path, model: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_twostage.ledger.COMMIT_S", 0)
    tiles = {"stage 1": 0, "stage 2": 0}

    def count(event: Event) -> None:
        if isinstance(event, TilesDone) and event.stage in tiles:
            tiles[event.stage] += event.tiles
            if tiles["stage 2"] > 60:
                raise Killed

    with pytest.raises(Killed):
        segment(slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=EVERYWHERE, listener=count)
    left = Ledger.read(MaskPyramid.open(tmp_path / "o.zarr")).having(Source.MODEL_2).sum()
    tiles["stage 2"] = -1000
    segment(slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=EVERYWHERE, listener=count)
    assert left > 0
    assert tiles["stage 1"] == 18 * 18
    assert tiles["stage 2"] + 1000 == 162 - left


def test_a_finished_run_is_left_as_it_is(model: Path, slide: Path, whole: Path) -> None:
    before = content(whole)
    events: list[Event] = []
    result = segment(slide, whole, bundle=model, rule=RULE, settings=EVERYWHERE, listener=events.append)
    assert result.counts.refined == 162
    assert not any(isinstance(event, TilesDone) for event in events)
    assert content(whole) == before


def test_a_larger_budget_goes_on_from_a_smaller_one(tmp_path: Path, model: Path, slide: Path) -> None:
    out = tmp_path / "o.zarr"
    refined = []
    for rule in (NONE, Fraction(0.1), Fraction(0.05), ALL):
        result = segment(slide, out, bundle=model, rule=rule, settings=EVERYWHERE)
        refined.append(result.counts.refined)
    assert refined == [0, 32, 32, 324]
    straight = segment(slide, tmp_path / "all.zarr", bundle=model, rule=ALL, settings=EVERYWHERE).store
    for level in range(straight.levels):
        np.testing.assert_array_equal(result.store.lazy(level), straight.lazy(level))


def test_another_run_is_refused_and_what_differs_is_said(
    tmp_path: Path, model: Path, slide: Path, whole: Path
) -> None:
    before = content(whole)
    other_slide = write_slide(tmp_path / "b.tiff", [texture(2200, 2300, seed=1)])
    other_model = tmp_path / "b.safetensors"
    net = build(read_spec(model).coarse, read_spec(model).fine, context=True)  # type: ignore[arg-type]
    save_bundle(other_model, net, read_spec(model))
    for message, changed in (
        ("slide [0-9a-f]{16} at 0.5 um/px, now [0-9a-f]{16} at", {"slide": other_slide}),
        ("model [0-9a-f]{16}, now [0-9a-f]{16}", {"bundle": other_model}),
        ("uncertainty entropy, now margin", {"settings": replace(EVERYWHERE, uncertainty="margin")}),
        ("precision fp32, now bf16", {"settings": replace(EVERYWHERE, precision="bf16")}),
        ("now in memory", {"bundle": small_bundle()}),
    ):
        given = {"slide": slide, "bundle": model, "settings": EVERYWHERE, **changed}
        with pytest.raises(StoreError, match=f"holds another result .*{message}.*--overwrite"):
            segment(given.pop("slide"), whole, rule=RULE, **given)  # type: ignore[arg-type]
    assert content(whole) == before
