"""What happens to workers in other processes: nothing is lost, nothing is done twice in the result."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from distributed import Client, LocalCluster
from faults import PARENT, BadView

from wsi_twostage import cluster, dispatch, fitness, preparing, stopping
from wsi_twostage.coarse import coarse_shard
from wsi_twostage.errors import ClusterError, ConfigError, StoreError, WriteError
from wsi_twostage.events import Event, Finished, Note, TilesDone
from wsi_twostage.fine import give_up_shard, refine_shard
from wsi_twostage.further import refine
from wsi_twostage.ledger import Ledger
from wsi_twostage.mask import MaskPyramid, Shard, Source
from wsi_twostage.pipeline import segment
from wsi_twostage.preparing import Views, prepare
from wsi_twostage.result import Result
from wsi_twostage.selection import NONE, TileCount
from wsi_twostage.settings import Settings
from wsi_twostage.slide import Slide
from wsi_twostage.tiles import Tile
from wsi_twostage.verification import verify

pytestmark = pytest.mark.timeout(600)
EVERYWHERE = Settings(tissue="none", workers=1)
RULE = TileCount(4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path, slide: Path) -> MaskPyramid:
    """The result of one thread in this process."""
    path = tmp_path_factory.mktemp("whole") / "o.zarr"
    return segment(slide, path, bundle=model, rule=RULE, settings=EVERYWHERE).store


@pytest.fixture(scope="module")
def processes() -> Iterator[Client]:
    """Two workers in processes of their own."""
    assert str(os.getpid()) == PARENT
    with cluster.connect(workers=2, processes=2) as client:
        yield client


def assert_same(one: MaskPyramid, two: MaskPyramid) -> None:
    for level in range(one.levels):
        np.testing.assert_array_equal(one.lazy(level).compute(), two.lazy(level).compute())
    np.testing.assert_array_equal(one.read_source(), two.read_source())


def spoil(
    patch: pytest.MonkeyPatch, kind: str, spot: tuple[int, int], flag: Path, *, view: str = "fine"
) -> None:
    """Model 2, or who reads another view, finds a bad spot in the slide, as long as the flag is there."""
    flag.write_text("bad")

    def spoiled(slide: Slide, spec: object) -> Views:
        views = views_of(slide, spec)  # type: ignore[arg-type]
        return views._replace(**{view: BadView(getattr(views, view), kind, spot, flag)})  # type: ignore[arg-type]

    views_of = preparing.views_of
    patch.setattr(preparing, "views_of", spoiled)


def a_refined_tile(mask: MaskPyramid) -> Tile:
    row, col = np.argwhere(mask.read_source() == Source.MODEL_2)[0]
    return Tile(int(row), int(col))


def segment_and_hear(
    slide: Path, output: Path, model: Path, settings: Settings, client: Client
) -> tuple[Result, list[str]]:
    """A run by worker processes, and the notes that came with it."""
    said: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, Note):
            said.append(event.text)

    result = segment(slide, output, bundle=model, rule=RULE, settings=settings, client=client, listener=hear)
    return result, said


def test_a_worker_that_is_killed_costs_nothing_but_time(
    tmp_path: Path, model: Path, slide: Path, whole: MaskPyramid, processes: Client
) -> None:
    killed: list[int] = []

    def kill(event: Event) -> None:
        if isinstance(event, TilesDone) and event.stage == "stage 1" and not killed:
            killed.append(next(iter(processes.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    result = segment(
        slide,
        tmp_path / "o.zarr",
        bundle=model,
        rule=RULE,
        settings=EVERYWHERE,
        client=processes,
        listener=kill,
    )
    assert killed
    assert result.status == "ok"
    assert_same(result.store, whole)


def test_a_tile_that_ends_its_worker_keeps_model_1s_answer(
    tmp_path: Path,
    model: Path,
    slide: Path,
    whole: MaskPyramid,
    processes: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = a_refined_tile(whole)
    box = whole.spec.tiles.box(bad)
    spoil(monkeypatch, "crash", (box.top + 64, box.left + 64), tmp_path / "flag")
    result, said = segment_and_hear(slide, tmp_path / "o.zarr", model, EVERYWHERE, processes)
    assert result.status == "partial"
    assert result.counts.crashed == 1
    source = result.store.read_source()
    assert source[bad] == Source.CRASHED
    assert f"stage 2: 1 tiles end any worker, the first at row {bad.row}, col {bad.col} of the tiles" in said
    elsewhere = np.array(whole.read_source())
    elsewhere[bad] = Source.CRASHED
    np.testing.assert_array_equal(source, elsewhere)
    assert verify(tmp_path / "o.zarr").problems == ()
    first = segment(
        slide, tmp_path / "first.zarr", bundle=model, rule=TileCount(0), settings=EVERYWHERE
    ).store.read(box)
    np.testing.assert_array_equal(result.store.read(box), first)
    again = segment(slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=EVERYWHERE)
    assert again.counts.crashed == 1  # it is not tried on this process
    assert refine(tmp_path / "o.zarr").counts.crashed == 1  # nor by what the report advises
    (tmp_path / "flag").unlink()
    assert refine(tmp_path / "o.zarr", settings=Settings(processes=1)).status == "ok"
    assert_same(again.store, whole)


def test_an_overview_that_ends_its_workers_is_black_and_the_stages_look_for_themselves(
    tmp_path: Path,
    model: Path,
    slide: Path,
    whole: MaskPyramid,
    processes: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(monkeypatch, "crash", (3, 3), tmp_path / "flag", view="overview")
    result, said = segment_and_hear(
        slide, tmp_path / "o.zarr", model, replace(EVERYWHERE, tissue="otsu"), processes
    )
    assert result.status == "ok"
    assert "100.00% of the slide cannot be read; it is black in the overview" in said
    assert not result.store.read_overview().any()
    assert result.store.read_tissue().all()
    assert_same(result.store, whole)


def test_a_worker_that_hangs_ends_itself(
    tmp_path: Path,
    model: Path,
    slide: Path,
    whole: MaskPyramid,
    processes: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    box = whole.spec.tiles.box(a_refined_tile(whole))
    spoil(monkeypatch, "hang", (box.top + 64, box.left + 64), tmp_path / "flag")
    settings = replace(EVERYWHERE, patience=15)
    result = segment(slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=settings, client=processes)
    assert not (tmp_path / "flag").exists()
    assert result.status == "ok"
    assert_same(result.store, whole)


def test_a_worker_that_lacks_the_slide_says_so_at_once(
    tmp_path: Path, model: Path, slide: Path, processes: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "missing", (0, 0), tmp_path / "flag")
    with pytest.raises(ConfigError, match=rf"worker tcp://\S+: {slide}.gone: no such file"):
        segment(slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=EVERYWHERE, client=processes)


def test_what_is_to_be_overwritten_stays_where_a_worker_lacks_the_slide(
    tmp_path: Path, model: Path, slide: Path, processes: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = segment(slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=EVERYWHERE).store
    before = old.manifest
    spoil(monkeypatch, "missing", (0, 0), tmp_path / "flag")
    settings = replace(EVERYWHERE, overwrite=True)
    with pytest.raises(ConfigError, match=rf"worker tcp://\S+: {slide}.gone: no such file"):
        segment(slide, old.path, bundle=model, rule=RULE, settings=settings, client=processes)
    assert old.manifest == before
    assert verify(old.path).problems == ()


def test_a_worker_that_does_not_answer_is_not_the_scheduler() -> None:
    fitness._ensure_nothing_lacks({"tcp://away:1": OSError("timed out"), "tcp://here:1": ""})
    with pytest.raises(ConfigError, match=r"worker tcp://here:1 is of no use: RuntimeError: no driver"):
        fitness._ensure_nothing_lacks({"tcp://here:1": RuntimeError("no driver")})


def test_a_worker_that_hangs_does_not_keep_a_run_from_ending() -> None:
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as workers,
        Client(workers, set_as_default=False) as client,
    ):
        asking = threading.Timer(0.3, stopping.ASKED.set)
        asking.start()
        try:
            began = time.monotonic()
            with pytest.raises(ClusterError, match="stopped before all workers had answered"):
                fitness._ask(client, hang)
            assert time.monotonic() - began < 4  # s; it hangs for 5
        finally:
            stopping.ASKED.clear()


async def hang() -> str:
    await asyncio.sleep(5)
    return ""


def test_the_door_of_a_run_that_was_killed_lets_everybody_in(
    tmp_path: Path, model: Path, slide: Path
) -> None:
    settings = replace(EVERYWHERE, overwrite=True)
    store = segment(slide, tmp_path / "o.zarr", bundle=model, rule=NONE, settings=settings).store
    work = replace(
        preparing.prepare(slide, model, settings).work(store, settings), run="another-machine:1 1 nobody"
    )
    worker = Mock()
    for held_by, leaves in ((None, False), ("somebody else", False), (work.run, True)):
        store.note(held_by=held_by)
        worker.reset_mock()
        gone = replace(work, fine=replace(work.fine, path=str(tmp_path / "gone.tiff")))  # type: ignore[type-var]
        fitness.Door(gone, gpus=False).setup(worker)
        assert worker.loop.call_later.called is leaves


def test_a_worker_that_comes_late_and_lacks_the_slide_is_sent_away(
    tmp_path: Path,
    model: Path,
    slide: Path,
    whole: MaskPyramid,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flag, said = tmp_path / "flag", list[str]()
    spoil(monkeypatch, "missing", (0, 0), flag)
    flag.unlink()
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as workers:

        def hear(event: Event) -> None:
            if isinstance(event, TilesDone) and event.stage == "stage 1" and not flag.exists():
                flag.write_text("bad")
                workers.scale(2)
            elif isinstance(event, Finished) and event.stage == "stage 1":
                patience = time.monotonic() + 60
                while not said and time.monotonic() < patience:
                    time.sleep(0.1)
            elif isinstance(event, Note):
                said.append(event.text)

        far = replace(EVERYWHERE, workers=None, scheduler=workers.scheduler_address)
        result = segment(slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=far, listener=hear)
    assert len(said) == 1
    assert re.fullmatch(rf"worker tcp://\S+ came and was sent away: {slide}.gone: no such file, .*", said[0])
    assert result.status == "ok"
    assert_same(result.store, whole)


@pytest.mark.parametrize(
    "moment", [TilesDone("stage 1", 0, 0), Finished("overview", 0), Finished("stage 1", 0)]
)
def test_a_scheduler_that_goes_away_loses_nothing(
    tmp_path: Path, model: Path, slide: Path, whole: MaskPyramid, moment: TilesDone | Finished
) -> None:
    settings = replace(EVERYWHERE, workers=None)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as workers:

        def close(event: Event) -> None:
            if isinstance(event, type(moment)) and event.stage == moment.stage:
                workers.close()

        far = replace(settings, scheduler=workers.scheduler_address)
        with pytest.raises(ClusterError, match="scheduler went away"):
            segment(slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=far, listener=close)
    assert verify(tmp_path / "o.zarr").problems == ()
    result = segment(slide, tmp_path / "o.zarr", bundle=model, rule=RULE, settings=EVERYWHERE)
    assert_same(result.store, whole)


def test_a_task_that_outlived_its_run_writes_nothing(
    tmp_path: Path, model: Path, slide: Path, whole: MaskPyramid
) -> None:
    path = tmp_path / "o.zarr"
    shutil.copytree(whole.path, path)
    mask = MaskPyramid.open(path)
    mask.note(held_by="process 1 on elsewhere, run 1")
    work = prepare(slide, model, EVERYWHERE).work(mask, EVERYWHERE)
    mask.note(held_by="process 2 on elsewhere, run 2")
    with pytest.raises(StoreError, match="now held by process 2"):
        coarse_shard(work, Shard(0, 0, 0), (Tile(0, 0),))
    np.testing.assert_array_equal(
        mask.read_probability(mask.spec.coarse.box(Tile(0, 0))),
        whole.read_probability(mask.spec.coarse.box(Tile(0, 0))),
    )


def test_what_a_task_wrote_before_its_worker_died_goes_if_the_next_try_is_told_to_stop(
    tmp_path: Path, model: Path, slide: Path
) -> None:
    out, shard = tmp_path / "o.zarr", Shard(0, 0, 0)
    mask = segment(slide, out, bundle=model, rule=TileCount(0), settings=EVERYWHERE).store
    mask.note(held_by="process 1 on elsewhere, run 1")
    work = prepare(slide, model, EVERYWHERE).work(mask, EVERYWHERE)
    first = mask.read(mask.box(shard))
    tiles = tuple(Tile(0, col) for col in range(4))
    answered = refine_shard(work, shard, tiles)  # and nobody hears of it
    assert answered.tiles == tiles
    assert (mask.read(mask.box(shard)) != first).any()
    stopped = refine_shard(replace(work, until=0.0), shard, tiles[1:])
    assert stopped.tiles == ()
    left, kept = mask.read(mask.box(shard)), mask.spec.tiles.box(tiles[0]).slices
    assert (left[kept] != first[kept]).any()  # it was entered
    left[kept] = first[kept]
    np.testing.assert_array_equal(left, first)
    refine_shard(work, shard, tiles)
    assert give_up_shard(work, shard, tiles).crashed == tiles
    np.testing.assert_array_equal(mask.read(mask.box(shard)), first)


def test_a_stop_while_a_task_is_suspected_leaves_the_levels_to_the_next_run(
    tmp_path: Path,
    model: Path,
    slide: Path,
    whole: MaskPyramid,
    processes: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, box = tmp_path / "o.zarr", whole.spec.tiles.box(a_refined_tile(whole))
    spoil(monkeypatch, "crash", (box.top + 64, box.left + 64), tmp_path / "flag")
    monkeypatch.setattr(dispatch._Desk, "claim", lambda desk: stopping.ASKED.set())  # a suspect, and a stop
    try:
        stopped = segment(slide, out, bundle=model, rule=RULE, settings=EVERYWHERE, client=processes)
    finally:
        stopping.ASKED.clear()
    assert stopped.status == "stopped"
    assert not stopped.store.manifest["levels"]
    assert Ledger.read(stopped.store).open.any()
    monkeypatch.undo()
    assert segment(slide, out, bundle=model, rule=RULE, settings=EVERYWHERE).store.manifest["levels"]
    assert_same(MaskPyramid.open(out), whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of little room; skipped where none can be made."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    made = (
        mount
        and not subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=200k", "tmpfs", place], capture_output=True, check=False
        ).returncode
    )
    if not made:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_one_clear_line_and_the_same_call_goes_on(
    small_disk: Path, model: Path, slide: Path, whole: MaskPyramid
) -> None:
    path, said = small_disk / "o.zarr", list[str]()
    for size in range(100, 4000, 60):  # full at several moments
        subprocess.run(["mount", "-o", f"remount,size={size}k", small_disk], check=True)
        try:
            result = segment(slide, path, bundle=model, rule=RULE, settings=EVERYWHERE)
        except WriteError as error:
            said.append(str(error))
        else:
            break
    assert len(said) > 3
    assert all("o.zarr" in line and "No space left on device" in line for line in said)
    assert_same(result.store, whole)
    assert verify(path).problems == ()
    assert {entry.name for entry in small_disk.iterdir()} == {"o.zarr"}
    assert not [file for file in path.rglob("*") if "partial" in file.name]
