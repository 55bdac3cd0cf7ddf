"""A run that was stopped goes on: to the same bytes, and never with another slide, model or parameter."""

import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from command import wsi_seg
from conftest import SVS, small_bundle
from distributed import Client
from faults import Killed
from slides import pyramid, texture, write_slide

from wsi_twostage import cluster, stopping
from wsi_twostage.batches import batches
from wsi_twostage.errors import BundleError, ConfigError, LostSlide, SlideError, StoreError, WriteError
from wsi_twostage.events import Event, Finished, Note, TilesDone
from wsi_twostage.further import refine
from wsi_twostage.ledger import Ledger
from wsi_twostage.lock import new_holder
from wsi_twostage.mask import MaskPyramid, Source, majority
from wsi_twostage.models.bundle import build, save_bundle
from wsi_twostage.models.header import read_spec
from wsi_twostage.pipeline import segment
from wsi_twostage.selection import ALL, NONE, Duration, Fraction, TileCount, select
from wsi_twostage.settings import Settings
from wsi_twostage.slide import open_slide
from wsi_twostage.verification import verify

EVERYWHERE = Settings(tissue="none", workers=2)
RULE = Fraction(0.5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path, slide: Path) -> Path:
    """The result of a run that nothing stopped."""
    path = tmp_path_factory.mktemp("whole") / "o.zarr"
    segment(slide, path, bundle=model, rule=RULE, settings=EVERYWHERE)
    return path


@pytest.fixture
def stoppable() -> Iterator[None]:
    """A test may ask for a stop; the next one is not stopped."""
    try:
        yield
    finally:
        stopping.ASKED.clear()


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


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=[pytest.mark.kill, pytest.mark.timeout(1800)])])
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    tmp_path: Path, model: Path, slide: Path, whole: Path, kills: int
) -> None:
    """By the system, at random: also while a file is being written."""
    chance, out = random.Random(kills), tmp_path / "o.zarr"
    script = Path(sys.executable).with_name("wsi-seg")
    options = ("--tissue", "none", "--budget", "50%", "--workers", "2", "-q")
    for _ in range(kills):
        with subprocess.Popen([script, slide, "-o", out, "--model", model, *options]) as process:
            while not out.exists() and process.poll() is None:  # imports take seconds
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 1.5))
            process.send_signal(signal.SIGKILL)
        for name in ("", "labels", "labels/segmentation"):
            zarr.open_group(out / name, mode="r")
    assert wsi_seg(slide, "-o", out, "--model", model, *options, cwd=tmp_path).returncode == 0
    assert content(out) == content(whole)
    assert facts(out) == facts(whole)


@pytest.mark.kill
@pytest.mark.timeout(1800)
def test_thirty_kills_on_a_real_slide(tmp_path: Path) -> None:
    """A run that comes to its end between two of them is compared, too, and begun anew."""
    script, options = Path(sys.executable).with_name("wsi-seg"), ("--refine", "all", "-q")
    whole, out = tmp_path / "whole.zarr", tmp_path / "out.zarr"
    start = time.monotonic()
    subprocess.run([script, SVS, "-o", whole, *options], check=True)
    long, chance, kills = time.monotonic() - start, random.Random(5), 0
    while kills < 30:
        with subprocess.Popen([script, SVS, "-o", out, *options]) as process:
            try:
                process.wait(chance.uniform(0.1, 1) * long)
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
                continue
        assert content(out) == content(whole)
        shutil.rmtree(out)
    subprocess.run([script, SVS, "-o", out, *options], check=True)
    assert content(out) == content(whole)
    assert facts(out) == facts(whole)


@pytest.mark.parametrize("stage", ["stage 1", "stage 2"])
def test_a_run_that_is_asked_to_stop_ends_with_a_valid_store(
    tmp_path: Path, model: Path, slide: Path, whole: Path, stage: str
) -> None:
    def ask(event: Event) -> None:
        if isinstance(event, TilesDone) and event.stage == stage:
            stopping.ASKED.set()

    out = tmp_path / "o.zarr"
    try:
        result = segment(slide, out, bundle=model, rule=RULE, settings=EVERYWHERE, listener=ask)
    finally:
        stopping.ASKED.clear()
    assert (result.status, result.complete) == ("stopped", False)
    if stage == "stage 2":
        store = MaskPyramid.open(out)
        assert 0 < result.counts.refined < 162
        for level in range(1, store.levels):
            finer = store.lazy(level - 1).compute()
            np.testing.assert_array_equal(store.lazy(level), majority(finer))
    else:
        with pytest.raises(StoreError, match="stopped before the mask was whole"):
            MaskPyramid.open(out)
    assert segment(slide, out, bundle=model, rule=RULE, settings=EVERYWHERE).status == "ok"
    assert content(out) == content(whole)


def test_a_stop_before_model_1s_mask_is_written_is_no_whole_mask(
    tmp_path: Path, model: Path, slide: Path, whole: Path
) -> None:
    seen = 0

    def ask(event: Event) -> None:
        nonlocal seen
        if isinstance(event, TilesDone) and event.stage == "stage 1":
            seen += event.tiles
            if seen == 18 * 18:
                stopping.ASKED.set()

    out = tmp_path / "o.zarr"
    try:
        assert not segment(slide, out, bundle=model, rule=RULE, settings=EVERYWHERE, listener=ask).complete
    finally:
        stopping.ASKED.clear()
    with pytest.raises(StoreError, match="before the mask was whole"):
        MaskPyramid.open(out)
    segment(slide, out, bundle=model, rule=RULE, settings=EVERYWHERE)
    assert content(out) == content(whole)


@pytest.mark.parametrize("stopped_between", [False, True])
def test_what_a_killed_run_wrote_and_did_not_enter_does_not_stay(
    tmp_path: Path, model: Path, slide: Path, stopped_between: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the next run does not want it, nor the one after it."""
    monkeypatch.setattr("wsi_twostage.ledger.COMMIT_S", math.inf)
    outs = [tmp_path / "a.zarr", tmp_path / "b.zarr"]

    def kill(event: Event) -> None:
        if isinstance(event, TilesDone) and event.stage == "stage 2":
            raise Killed

    with pytest.raises(Killed):
        segment(slide, outs[0], bundle=model, rule=RULE, settings=EVERYWHERE, listener=kill)
    if stopped_between:
        over = replace(EVERYWHERE, until=time.time())
        assert not segment(slide, outs[0], bundle=model, rule=RULE, settings=over).complete
    for out in outs:
        segment(slide, out, bundle=model, rule=NONE, settings=EVERYWHERE)
    assert Ledger.read(MaskPyramid.open(outs[0])).having(Source.MODEL_2).sum() == 0
    assert content(outs[0]) == content(outs[1])


def test_a_file_that_a_killed_process_was_writing_does_not_stay(
    tmp_path: Path, model: Path, slide: Path, whole: Path
) -> None:
    out = tmp_path / "o.zarr"
    segment(slide, out, bundle=model, rule=NONE, settings=EVERYWHERE)
    shard = next((out / "labels" / "segmentation" / "0").rglob("c/0/*"))
    shard.with_name(f"{shard.name}.{'0a' * 16}.partial").write_bytes(b"half of")  # as zarr names it
    segment(slide, out, bundle=model, rule=RULE, settings=EVERYWHERE)
    assert content(out) == content(whole)


@pytest.mark.parametrize("before", ["rank", "round"])
@pytest.mark.parametrize("way", ["audit", "refine"])
def test_killed_while_it_notes_what_is_chosen_it_goes_on_to_the_same_bytes(
    tmp_path: Path, model: Path, slide: Path, monkeypatch: pytest.MonkeyPatch, way: str, before: str
) -> None:
    """A round is two columns, of two files."""
    outs, audited = [tmp_path / "a.zarr", tmp_path / "b.zarr"], replace(EVERYWHERE, audit=80)

    def choose(out: Path) -> None:
        if way == "audit":
            segment(slide, out, bundle=model, rule=Fraction(0.1), settings=audited)
        else:
            refine(out, Fraction(0.3))

    write = MaskPyramid.write_tile_column

    def kill(mask: MaskPyramid, name: str, column: Any) -> None:
        if name == before and Ledger.read(mask).having(Source.MODEL_2).any():  # not the run's own round
            raise Killed
        write(mask, name, column)

    for out in outs:
        segment(slide, out, bundle=model, rule=Fraction(0.1), settings=EVERYWHERE)
    with monkeypatch.context() as patch:
        patch.setattr(MaskPyramid, "write_tile_column", kill)
        with pytest.raises(Killed):
            choose(outs[0])
    for out in outs:
        choose(out)
    assert content(outs[0]) == content(outs[1])
    assert facts(outs[0]) == facts(outs[1])


def test_what_a_kill_left_of_an_entry_is_not_counted(tmp_path: Path, model: Path, slide: Path) -> None:
    """Columns are written one after the other, the source last."""
    mask = segment(slide, tmp_path / "o.zarr", bundle=model, rule=NONE, settings=EVERYWHERE).store
    for name in ("disagreement", "milliseconds"):
        mask.write_tile_column(name, np.full(324, 0.5, np.float32))
    result = segment(slide, tmp_path / "o.zarr", bundle=model, rule=Fraction(0.1), settings=EVERYWHERE)
    assert (~np.isnan(result.tiles["disagreement"])).sum() == result.counts.refined == 32
    assert not verify(mask.path).problems


def test_a_round_without_ranks_was_not_chosen_or_is_released(
    tmp_path: Path, model: Path, slide: Path
) -> None:
    """Ranks are written first: a kill behind them leaves the rounds of what was let go."""
    mask = segment(slide, tmp_path / "o.zarr", bundle=model, rule=NONE, settings=EVERYWHERE).store
    mask.write_tile_column("round", np.ones(324, np.int16))
    result = refine(mask.path)
    assert result.counts.refined == 0
    assert (result.tiles["round"] == -1).all()
    assert not verify(mask.path).problems


def test_a_run_that_was_killed_before_its_choice_is_not_refined(
    tmp_path: Path, model: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    segment(slide, outs[0], bundle=model, rule=Fraction(0.1), settings=EVERYWHERE)

    def kill(*given: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "choose", kill)
        with pytest.raises(Killed):
            segment(slide, outs[0], bundle=model, rule=Fraction(0.4), settings=EVERYWHERE)
    assert "not chosen yet" in verify(outs[0]).unfinished
    with pytest.raises(StoreError, match=r"ended before it chose tiles \(budget 40%\); give the command"):
        refine(outs[0])
    for out in outs:
        segment(slide, out, bundle=model, rule=Fraction(0.4), settings=EVERYWHERE)
    assert refine(outs[0]).counts.refined == 130
    assert content(outs[0]) == content(outs[1])


def test_tiles_that_wait_are_in_no_complete_result(
    tmp_path: Path, model: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o.zarr"
    segment(slide, out, bundle=model, rule=Fraction(0.1), settings=EVERYWHERE)
    choose = Ledger.choose_more

    def kill(*given: Any) -> None:
        choose(*given)
        raise Killed

    monkeypatch.setattr(Ledger, "choose_more", kill)
    with pytest.raises(Killed):
        refine(out, Fraction(0.1))
    assert "32 chosen tiles" in verify(out).unfinished


def test_what_there_was_no_time_for_is_not_chosen_any_more(tmp_path: Path, model: Path, slide: Path) -> None:
    out = tmp_path / "o.zarr"
    first = segment(slide, out, bundle=model, rule=Duration(0.001), settings=EVERYWHERE)
    assert (first.counts.refined, first.status) == (0, "ok")
    assert refine(out, TileCount(5)).counts.refined == 5
    again = replace(EVERYWHERE, audit=16, overwrite=True)
    result = segment(slide, out, bundle=model, rule=Duration(0.001), settings=again)
    assert result.counts.refined == 16
    assert result.audit


def slow(fine: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
    time.sleep(0.2)
    return fine[:, :1] - 0.5


def test_a_budget_of_time_refines_what_there_is_time_for(tmp_path: Path, slide: Path) -> None:
    bundle, out = replace(small_bundle(), f2=slow), tmp_path / "o.zarr"
    result = segment(slide, out, bundle=bundle, rule=Duration(8), settings=EVERYWHERE)
    table = result.tiles
    assert result.status == "ok"
    assert 0 < result.counts.refined < result.counts.tissue
    refined = table["source"] == Source.MODEL_2
    assert table["uncertainty"][refined].mean() > table["uncertainty"][~refined].mean()
    assert (table["milliseconds"][refined] > 10).all()
    assert np.isnan(table["milliseconds"][~refined]).all()


def test_a_budget_of_time_leaves_time_for_the_audit(tmp_path: Path, slide: Path) -> None:
    bundle, by_rule = replace(small_bundle(), f2=slow), []
    for count in (None, 40):
        settings = replace(EVERYWHERE, workers=2, audit=count)
        out = tmp_path / f"{count}.zarr"
        result = segment(slide, out, bundle=bundle, rule=Duration(8), settings=settings)
        assert result.audited == (count or 0)
        by_rule.append(result.counts.refined - result.audited)
    assert by_rule[1] < by_rule[0]


def test_batches_double_and_hold_each_chosen_tile_once() -> None:
    scores = np.random.default_rng(0).random((40, 50), np.float32)
    patches = select(scores, scores > 0.2, ALL)
    found = list(batches(patches))
    assert [int(batch.sum()) for batch in found[:4]] == [64, 128, 256, 512]
    np.testing.assert_array_equal(np.sum(found, axis=0), patches.chosen)
    for first, second in pairwise(found):
        assert scores[first].min() >= scores[second].max()


def test_a_second_signal_ends_whatever_hangs() -> None:
    code = """
import os, signal, time
from wsi_twostage import cluster, stopping
with stopping.on_signals():
    os.kill(os.getpid(), signal.SIGINT)
    assert stopping.ASKED.wait(10)
    os.kill(os.getpid(), signal.SIGINT)  # the same one, told to the group
    time.sleep(stopping.ECHO_S + 0.1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == 75


def test_a_slide_that_is_cut_during_a_run_is_lost_and_what_is_on_disk_is_valid(
    tmp_path: Path, model: Path
) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(600, 700)])
    kept, out = slide.read_bytes(), tmp_path / "o.zarr"

    def cut(event: Event) -> None:
        if isinstance(event, Finished) and event.stage == "stage 1":
            os.truncate(slide, 500)

    with pytest.raises(LostSlide, match=r"slide\.tiff: truncated"):
        segment(slide, out, bundle=model, rule=ALL, settings=EVERYWHERE, listener=cut)
    slide.write_bytes(kept)
    assert MaskPyramid.open(out).manifest["held_by"] is None
    assert segment(slide, out, bundle=model, rule=ALL, settings=EVERYWHERE).status == "ok"


@pytest.mark.parametrize("stage", ["start", "overview", "stage 1"])
def test_another_slide_of_the_same_shape_leaves_no_pixels(
    tmp_path: Path, model: Path, slide: Path, whole: Path, stage: str
) -> None:
    mine, out = tmp_path / "slide.tiff", tmp_path / "o.zarr"
    shutil.copy(slide, mine)
    other = write_slide(tmp_path / "other.tiff", pyramid(texture(2200, 2300, seed=7), 3))
    assert open_slide(other).levels == open_slide(slide).levels

    def swap(event: Event) -> None:
        looking = stage == "start" and isinstance(event, TilesDone) and event.stage == "overview"
        if looking or (isinstance(event, Finished) and event.stage == stage):
            shutil.copy(other, mine)

    with pytest.raises(LostSlide, match=r"slide\.tiff: not the slide that the run was started with"):
        segment(mine, out, bundle=model, rule=RULE, settings=EVERYWHERE, listener=swap)
    with pytest.raises(StoreError, match="holds another result"):
        segment(mine, out, bundle=model, rule=RULE, settings=EVERYWHERE)
    shutil.copy(slide, mine)
    segment(mine, out, bundle=model, rule=RULE, settings=EVERYWHERE)
    assert content(out) == content(whole)


def test_another_slide_that_comes_before_the_workers_do_leaves_no_pixels(
    tmp_path: Path, model: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue takes minutes; the store is labelled with the slide that was there before."""
    mine, connect = tmp_path / "slide.tiff", cluster.connect
    shutil.copy(slide, mine)
    other = write_slide(tmp_path / "other.tiff", pyramid(texture(2200, 2300, seed=7), 3))

    @contextmanager
    def slow(**how: Any) -> Iterator[Client]:
        shutil.copy(other, mine)
        with connect(**how) as client:
            yield client

    monkeypatch.setattr(cluster, "connect", slow)
    with pytest.raises(LostSlide, match=r"slide\.tiff: not the slide that the run was started with"):
        segment(mine, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=EVERYWHERE)


def test_a_run_that_is_stopped_while_it_looks_at_the_slide_goes_on_to_the_same_bytes(
    tmp_path: Path, model: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_twostage.preparing.OVERVIEW_MPP", 0.5)  # as large as the slide
    seen: list[Event] = []

    def ask(event: Event) -> None:
        seen.append(event)
        if sum(isinstance(e, TilesDone) for e in seen) == 2:
            stopping.ASKED.set()

    outs = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    try:
        stopped = segment(slide, outs[0], bundle=model, rule=RULE, settings=EVERYWHERE, listener=ask)
    finally:
        stopping.ASKED.clear()
    assert stopped.status == "stopped"
    looked = [e.stage for e in seen if isinstance(e, TilesDone)]
    assert set(looked) == {"overview"}
    assert 2 <= len(looked) < len(stopped.store.spec.overview(0))  # what is at work is finished
    assert verify(outs[0]).unfinished == "its tissue is not known yet"
    for out in outs:
        segment(slide, out, bundle=model, rule=RULE, settings=EVERYWHERE)
    assert content(outs[0]) == content(outs[1])


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "--max-seconds"])
def test_a_command_that_is_stopped_ends_with_75_and_goes_on(
    tmp_path: Path, model: Path, slide: Path, whole: Path, how: str
) -> None:
    out = tmp_path / "o.zarr"
    script = Path(sys.executable).with_name("wsi-seg")
    options = ("--model", model, "--tissue", "none", "--budget", "50%", "--workers", "1", "-q")
    more = ("--max-seconds", "0.1") if how == "--max-seconds" else ()
    with subprocess.Popen([script, slide, "-o", out, *options, *more], stderr=subprocess.PIPE) as process:
        if not more:
            while not out.exists():
                time.sleep(0.01)
            process.send_signal(getattr(signal, how))
        said = process.communicate()[1].decode()
    assert process.returncode == 75, said
    assert "the same command goes on with it" in said
    assert wsi_seg(slide, "-o", out, *options, cwd=tmp_path).returncode == 0
    assert content(out) == content(whole)


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
        ("now a model in memory", {"bundle": small_bundle()}),
    ):
        given = {"slide": slide, "bundle": model, "settings": EVERYWHERE, **changed}
        with pytest.raises(StoreError, match=f"holds another result .*{message}.*--overwrite"):
            segment(given.pop("slide"), whole, rule=RULE, **given)  # type: ignore[arg-type]
    assert content(whole) == before


def test_a_result_is_refined_further_here_or_elsewhere(tmp_path: Path, model: Path, slide: Path) -> None:
    out = tmp_path / "o.zarr"
    segment(slide, out, bundle=model, rule=Fraction(0.1), settings=EVERYWHERE)
    first = Ledger.read(MaskPyramid.open(out)).having(Source.MODEL_2)
    moved, elsewhere = shutil.copy(slide, tmp_path / "moved.tiff"), tmp_path / "elsewhere.zarr"
    shutil.move(out, elsewhere)
    result = refine(elsewhere, Fraction(0.1), slide=moved, settings=Settings(workers=1))
    ledger = Ledger.read(result.store)
    assert (result.counts.refined, result.status) == (64, "ok")
    assert (ledger.grid("round", -1)[first] == 0).all()
    assert (ledger.columns["round"] == 1).sum() == 32
    scores, second = ledger.grid("uncertainty"), ledger.grid("round", -1) == 1
    assert scores[second].min() >= scores[ledger.seen & ~first & ~second].max()
    assert result.store.manifest["further"] == ["budget 10%"]
    assert refine(elsewhere, ALL).counts.refined == 324
    straight = segment(slide, tmp_path / "all.zarr", bundle=model, rule=ALL, settings=EVERYWHERE).store
    for level in range(straight.levels):
        np.testing.assert_array_equal(result.store.lazy(level), straight.lazy(level))


def test_a_model_that_is_gone_is_asked_for_by_name(tmp_path: Path, model: Path, slide: Path) -> None:
    out, mine = tmp_path / "o.zarr", shutil.copy(model, tmp_path / "mine.safetensors")
    segment(slide, out, bundle=mine, rule=NONE, settings=EVERYWHERE)
    mine.unlink()
    with pytest.raises(BundleError, match=r"mine.safetensors: no such model; give a \.safetensors bundle"):
        refine(out, ALL)
    assert refine(out, ALL, bundle=model, settings=EVERYWHERE).status == "ok"


def test_a_region_is_refined(tmp_path: Path, model: Path, slide: Path) -> None:
    out, region = tmp_path / "o.zarr", tmp_path / "r.geojson"
    segment(slide, out, bundle=model, rule=NONE, settings=EVERYWHERE)
    ring = [[300, 140], [500, 140], [500, 250], [300, 250], [300, 140]]  # (x, y): tiles (1, 2) and (1, 3)
    region.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    result = refine(out, region=region)
    assert np.argwhere(Ledger.read(result.store).having(Source.MODEL_2)).tolist() == [[1, 2], [1, 3]]


@pytest.mark.parametrize("rule", [None, Duration(600)])
def test_a_region_is_refined_before_what_waits_elsewhere(
    tmp_path: Path, model: Path, slide: Path, rule: Duration | None
) -> None:
    outs, region = [tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "r.geojson"
    ring = [[300, 140], [500, 140], [500, 250], [300, 250], [300, 140]]  # (x, y): tiles (1, 2) and (1, 3)
    region.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    for out in outs:
        segment(slide, out, bundle=model, rule=NONE, settings=EVERYWHERE)

    def kill(event: Event) -> None:
        if isinstance(event, TilesDone):
            raise Killed

    with pytest.raises(Killed):
        refine(outs[0], Fraction(0.3), listener=kill)
    before, said = Ledger.read(MaskPyramid.open(outs[0])), list[str]()
    first = refine(
        outs[0], rule, region=region, listener=lambda e: said.append(e.text) if isinstance(e, Note) else None
    )
    after = Ledger.read(first.store)
    assert (after.settled & ~before.settled).sum() == 2
    assert after.settled[1, 2]
    assert after.settled[1, 3]
    assert first.status == "ok"
    assert first.store.manifest["complete"] is False
    assert said == [f"{after.open.sum()} tiles elsewhere wait for Model 2; refine without a region goes on"]
    assert refine(outs[0]).store.manifest["complete"] is True
    refine(outs[1], Fraction(0.3))
    refine(outs[1], rule, region=region)
    assert content(outs[0]) == content(outs[1])


def test_a_budget_of_time_leaves_what_a_run_before_it_had_chosen(
    tmp_path: Path, model: Path, slide: Path
) -> None:
    out = tmp_path / "o.zarr"

    def kill(event: Event) -> None:
        if isinstance(event, TilesDone) and event.stage == "stage 2":
            raise Killed

    with pytest.raises(Killed):
        segment(slide, out, bundle=model, rule=Fraction(0.5), settings=EVERYWHERE, listener=kill)
    result = refine(out, Duration(0.001))
    assert result.store.manifest["complete"] is False
    assert Ledger.read(result.store).open.any()
    assert refine(out).counts.refined == 162  # the run's half
    assert MaskPyramid.open(out).manifest["complete"] is True


def test_what_model_2_has_seen_is_not_paid_for_again(tmp_path: Path, model: Path, slide: Path) -> None:
    out = tmp_path / "o.zarr"
    for share in (0.2, 0.1):  # the smaller one leaves tiles that are refined and not chosen
        segment(slide, out, bundle=model, rule=Fraction(share), settings=EVERYWHERE)
    assert refine(out, Fraction(0.1)).counts.refined == 65 + 32


def test_a_budget_of_time_is_spent_once(tmp_path: Path, model: Path, slide: Path) -> None:
    out = tmp_path / "o.zarr"
    runs = [
        segment(slide, out, bundle=model, rule=Duration(seconds), settings=EVERYWHERE)
        for seconds in (0.001, 0.001, 600)
    ]
    assert [(run.status, run.counts.refined) for run in runs] == [("ok", 0), ("done", 0), ("ok", 324)]


def test_a_budget_of_time_stays_spent_when_more_is_refined_or_nothing_was_to_do(
    tmp_path: Path, model: Path, slide: Path
) -> None:
    out, again = tmp_path / "o.zarr", {"bundle": model, "rule": Duration(0.001), "settings": EVERYWHERE}
    segment(slide, out, **again)  # type: ignore[arg-type]
    assert refine(out, TileCount(5)).counts.refined == 5

    def kill(event: Event) -> None:
        if isinstance(event, Finished) and event.stage == "selection":
            raise Killed

    with pytest.raises(Killed):
        segment(slide, out, **again, listener=kill)  # type: ignore[arg-type]
    longer = Ledger.read(MaskPyramid.open(out))
    assert MaskPyramid.open(out).manifest["spent"]
    assert not longer.open.any()
    assert segment(slide, out, **again).status == "done"  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_budget_of_time_that_was_cut_short_leaves_nothing_to_the_slides_own_command(
    tmp_path: Path, model: Path, slide: Path, how: str, stoppable: None
) -> None:
    out = tmp_path / "o.zarr"
    segment(slide, out, bundle=model, rule=Fraction(0.1), settings=EVERYWHERE)

    def end(event: Event) -> None:
        if isinstance(event, TilesDone) and event.stage == "stage 2":
            if how == "killed":
                raise Killed
            stopping.ASKED.set()

    with suppress(Killed):
        assert refine(out, Duration(600), listener=end).status == "stopped"
    stopping.ASKED.clear()
    before = Ledger.read(MaskPyramid.open(out)).settled.sum()
    result = segment(slide, out, bundle=model, rule=Fraction(0.1), settings=EVERYWHERE)
    assert result.counts.refined == before < 324
    assert result.status in ("ok", "done")


def test_an_audit_that_was_cut_short_is_of_its_whole_sample(
    tmp_path: Path, model: Path, slide: Path, stoppable: None
) -> None:
    out, stages = tmp_path / "o.zarr", list[str]()

    def end(event: Event) -> None:
        if isinstance(event, Finished):
            stages.append(event.stage)
        if isinstance(event, TilesDone) and "stage 2" in stages:
            stopping.ASKED.set()

    audited = replace(EVERYWHERE, audit=80)
    first = segment(slide, out, bundle=model, rule=Duration(0.001), settings=audited, listener=end)
    assert first.status == "stopped"
    assert first.counts.refined < 80
    stopping.ASKED.clear()
    result = refine(out, settings=audited)
    assert (result.counts.refined, result.audited) == (80, 80)


def test_the_audit_of_a_budget_of_time_does_not_do_what_an_earlier_run_left(
    tmp_path: Path, model: Path, slide: Path
) -> None:
    out = tmp_path / "o.zarr"

    def kill(event: Event) -> None:
        if isinstance(event, TilesDone) and event.stage == "stage 2":
            raise Killed

    with pytest.raises(Killed):
        segment(slide, out, bundle=model, rule=Fraction(0.8), settings=EVERYWHERE, listener=kill)
    before = Ledger.read(MaskPyramid.open(out)).settled.sum()
    result = refine(out, Duration(0.001), settings=replace(EVERYWHERE, audit=16))
    assert result.counts.refined == before + 16
    assert result.audited == 16
    assert Ledger.read(result.store).open.any()
    assert not refine(out).audit  # it was of a mask with fewer tiles refined


def test_glass_costs_a_budget_of_time_nothing(
    tmp_path: Path, model: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Levels are to be written over what is refined, however large the slide is."""
    out = tmp_path / "o.zarr"
    segment(slide, out, bundle=model, rule=Fraction(0.9), settings=EVERYWHERE)
    monkeypatch.setattr("wsi_twostage.schedule.LEVELS_S", 20.0)  # one or two shards of four have tiles left
    within = tmp_path / "r.geojson"
    ring = [[0, 0], [250, 0], [250, 250], [0, 250], [0, 0]]
    within.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    free = Ledger.read(MaskPyramid.open(out)).having(Source.MODEL_1)[:2, :2].sum()
    refined = refine(out, Duration(25), region=within).counts.refined
    assert refined == round(0.9 * 324) + free


def test_a_result_that_comes_between_two_looks_is_not_gone_on_with(
    tmp_path: Path, model: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, other = tmp_path / "o.zarr", replace(EVERYWHERE, uncertainty="margin", overwrite=True)
    segment(slide, out, bundle=model, rule=NONE, settings=EVERYWHERE)

    def overtaken() -> str:
        """It is called while nobody has the lock."""
        monkeypatch.undo()
        segment(slide, out, bundle=model, rule=NONE, settings=other)
        return new_holder()

    monkeypatch.setattr("wsi_twostage.manifest.new_holder", overtaken)
    with pytest.raises(StoreError, match="uncertainty margin, now entropy"):
        segment(slide, out, bundle=model, rule=ALL, settings=EVERYWHERE)
    assert verify(out).problems == ()
    assert MaskPyramid.open(out).manifest["uncertainty"] == "margin"


def test_a_region_beside_the_tissue_is_refused(tmp_path: Path, model: Path, slide: Path) -> None:
    out, region = tmp_path / "o.zarr", tmp_path / "r.geojson"
    segment(slide, out, bundle=model, rule=Fraction(0.1), settings=replace(EVERYWHERE, audit=16))
    before = content(out)
    ring = [[50_000, 50_000], [50_100, 50_000], [50_100, 50_100], [50_000, 50_000]]
    region.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    with pytest.raises(
        ConfigError, match=r"r\.geojson: none of its polygons lies on .*; its coordinates are pixels"
    ):
        refine(out, region=region)
    assert content(out) == before


def test_a_region_beside_the_tissue_but_on_the_slide_is_refused(
    tmp_path: Path, model: Path, slide: Path
) -> None:
    out, region, tissue = tmp_path / "o.zarr", tmp_path / "r.geojson", tmp_path / "t.geojson"
    for path, left in ((tissue, 100), (region, 1500)):
        ring = [[left, 100], [left + 500, 100], [left + 500, 600], [left, 100]]
        path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    segment(slide, out, bundle=model, rule=NONE, settings=replace(EVERYWHERE, tissue=str(tissue)))
    with pytest.raises(ConfigError, match=r"r\.geojson: touches no tissue of .*; its coordinates are pixels"):
        refine(out, region=region)


def test_a_slide_that_was_moved_is_known_once_it_was_found(tmp_path: Path, model: Path, slide: Path) -> None:
    old, new, out = tmp_path / "old.tiff", tmp_path / "new.tiff", tmp_path / "o.zarr"
    shutil.copy(slide, old)
    segment(old, out, bundle=model, rule=NONE, settings=EVERYWHERE)
    old.rename(new)
    with pytest.raises(SlideError, match=r"old\.tiff: not there any more; --slide says where it is now"):
        refine(out, Fraction(0.1))
    refine(out, Fraction(0.1), slide=new)
    assert MaskPyramid.open(out).manifest["slide"]["path"] == str(new)
    refine(out, Fraction(0.1))


def test_a_round_that_was_stopped_is_finished(tmp_path: Path, model: Path, slide: Path) -> None:
    outs = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    for out in outs:
        segment(slide, out, bundle=model, rule=Fraction(0.05), settings=EVERYWHERE)

    def kill(event: Event) -> None:
        if isinstance(event, TilesDone):
            raise Killed

    with pytest.raises(Killed):
        refine(outs[0], Fraction(0.3), listener=kill)
    refine(outs[0])
    refine(outs[1], Fraction(0.3))
    assert content(outs[0]) == content(outs[1])


def test_another_slide_is_not_refined(tmp_path: Path, model: Path, slide: Path) -> None:
    segment(slide, tmp_path / "o.zarr", bundle=model, rule=NONE, settings=EVERYWHERE)
    other = write_slide(tmp_path / "b.tiff", [texture(2200, 2300, seed=1)])
    with pytest.raises(StoreError, match=r"another result .*; give the slide and the model that made it"):
        refine(tmp_path / "o.zarr", ALL, slide=other)


def test_an_output_that_goes_away_during_a_run_is_no_wrong_option(
    tmp_path: Path, model: Path, slide: Path
) -> None:
    out = tmp_path / "o.zarr"

    def remove(event: Event) -> None:
        if isinstance(event, TilesDone) and event.stage == "stage 2":
            out.rename(tmp_path / "moved.zarr")

    with pytest.raises(WriteError, match=r"o\.zarr"):
        segment(slide, out, bundle=model, rule=RULE, settings=EVERYWHERE, listener=remove)
    shutil.rmtree(out, ignore_errors=True)
    segment(slide, tmp_path / "moved.zarr", bundle=model, rule=RULE, settings=EVERYWHERE)


def test_two_runs_on_one_output_are_one_too_many(tmp_path: Path, model: Path, slide: Path) -> None:
    said: list[str] = []

    def second(event: Event) -> None:
        if isinstance(event, TilesDone) and not said:
            for settings in (EVERYWHERE, replace(EVERYWHERE, overwrite=True)):
                with pytest.raises(StoreError) as error:
                    segment(slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=settings)
                said.append(str(error.value))

    result = segment(
        slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=EVERYWHERE, listener=second
    )
    assert result.status == "ok"
    for line in said:
        assert f"is being written by process {os.getpid()} on {socket.gethostname()}; wait for it" in line
    assert len(said) == 2
