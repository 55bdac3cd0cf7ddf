"""The command, as a user types it."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from unittest.mock import Mock

import click
import numpy as np
import pytest
from command import wsi_seg
from conftest import SVS
from rich.console import Console
from slides import texture, write_slide

from wsi_seg.main import main
from wsi_seg.progress import Bars, Counts, Json, Screen, clock
from wsi_twostage.errors import (
    Busy,
    ClusterError,
    DeviceFull,
    LostSlide,
    SlideError,
    StoreError,
    UnreadableRegion,
    WriteError,
    WsiError,
)
from wsi_twostage.events import Finished, Note, Started, TilesDone
from wsi_twostage.mask import MaskPyramid, Source


def installed(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which takes seconds to begin; `wsi_seg` is it in this one."""
    script = Path(sys.executable).with_name("wsi-seg")
    return subprocess.run(
        [script, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "slide.tiff", [texture(300, 400)])


def test_the_shipped_model_segments_a_real_slide(tmp_path: Path) -> None:
    done = installed(SVS, "--budget", "3%", "--preview", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("wsi-seg: 1 ok, 0 partial, 0 failed in 00:00:")
    store = MaskPyramid.open(tmp_path / "CMU-1-Small-Region.seg.ome.zarr")
    assert store.shape() == (5934, 4440)  # the slide's 2967 x 2220 px, each 2 x 2
    assert store.spec.mpp == pytest.approx(0.499 / 2)
    tiles = store.tiles()
    assert (tiles["source"] == Source.MODEL_2).sum() == round(0.03 * len(tiles["row"]))
    labels = store.lazy(2).compute()
    assert 0.01 < labels.mean() < 0.2  # nuclei, not tissue and not noise
    assert (tmp_path / "CMU-1-Small-Region.preview.png").read_bytes().startswith(b"\x89PNG")


def test_lines_of_slides_that_are_at_work_at_the_same_time_are_not_mixed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(number: int) -> None:
        listen = Json(f"{number}.svs")
        for _ in range(2000):
            listen(TilesDone("stage 1", 1, 0.1))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 8000


def test_a_run_does_not_end_with_who_reads_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click, "echo", Mock(side_effect=BrokenPipeError))
    Json("a.svs")(TilesDone("stage 1", 1, 0.1))


def test_a_day_has_more_hours_than_a_clock() -> None:
    assert [clock(seconds) for seconds in (0.4, 61, 90_000)] == ["00:00:00", "00:01:01", "25:00:00"]


def test_progress_goes_to_stderr_and_can_be_silenced(tmp_path: Path, slide: Path, model: Path) -> None:
    done = installed(slide, "--model", model, "-o", "a.zarr", cwd=tmp_path)
    assert "stage 1: done" in done.stderr
    assert "stage 2: done" in done.stderr
    quiet = installed("run", slide, "--model", model, "-o", "b.zarr", "-q", cwd=tmp_path)
    assert quiet.stderr == ""


def test_counts_are_lines_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 100.0, 105.0, 120.0, 130.0])
    monkeypatch.setattr("wsi_seg.progress.time.perf_counter", lambda: next(clock))
    with Counts() as counts:
        for done in (1, 2, 3, 4):
            counts.show("train", done, 4, f"loss 0.{done}")
        counts.say("a note")
    assert capsys.readouterr().err.splitlines() == [
        "wsi-seg: train, loss 0.1: 1 of 4",  # how fast it goes is not known yet
        "wsi-seg: train, loss 0.3: 3 of 4, 10 s left",
        "wsi-seg: train, loss 0.4: 4 of 4",
        "wsi-seg: a note",
    ]


def test_json_is_one_object_a_slide(tmp_path: Path, slide: Path, model: Path) -> None:
    done = wsi_seg(slide, "--model", model, "--json", "-q", "--refine", "all", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert (result["slide"], result["output"]) == (slide.name, "slide.seg.ome.zarr")
    assert result["refined"] == result["tissue"]
    assert result["manifest"]["rule"] == "refine all"


def test_several_slides_go_on_after_a_bad_one(tmp_path: Path, slide: Path, model: Path) -> None:
    done = installed(slide, tmp_path / "none.svs", "--model", model, "-o", "out", "-q", cwd=tmp_path)
    assert done.returncode == 3
    assert "none.svs" in done.stderr
    assert "1 ok, 0 partial, 1 failed" in done.stdout
    assert (tmp_path / "out" / "slide.seg.ome.zarr").is_dir()
    none = wsi_seg("a.svs", "b.svs", "--model", model, "-q", cwd=tmp_path)
    assert none.returncode == 1


def test_info_says_what_is_in_a_slide(tmp_path: Path) -> None:
    done = installed("info", SVS, cwd=tmp_path)
    assert done.returncode == 0
    assert "2220 x 2967 px, 0.499 um/px (from the file)" in done.stdout
    as_json = json.loads(wsi_seg("info", SVS, "--json", cwd=tmp_path).stdout)
    assert as_json["mpp"] == 0.499


def test_info_on_a_slide_without_a_scale_says_what_it_is_and_what_is_missing(tmp_path: Path) -> None:
    write_slide(tmp_path / "slide.tiff", [texture(300, 400)], mpp=None)
    done = wsi_seg("info", "slide.tiff", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "400 x 300 px, unknown um/px\n  level 0: 400 x 300 px, 1/1, tiles" in done.stdout
    assert "note: no micrometres per pixel in the file; give them, e.g. --mpp 0.25" in done.stdout
    as_json = json.loads(wsi_seg("info", "slide.tiff", "--json", cwd=tmp_path).stdout)
    assert (as_json["mpp"], as_json["mpp_source"]) == (None, "none")
    assert wsi_seg("info", "slide.tiff", "--mpp", "0.5", cwd=tmp_path).stdout.count("0.5 um/px") == 2


def bad_inputs(folder: Path, model: Path) -> dict[str, tuple[list[str | Path], str]]:
    """Name -> arguments, and what the one line must say."""
    good = write_slide(folder / "good.tiff", [texture(300, 300)])
    (folder / "text.svs").write_text("not a slide")
    (folder / "empty.svs").touch()
    (folder / "cut.svs").write_bytes(SVS.read_bytes()[:1_000_000])
    no_mpp = write_slide(folder / "no_mpp.tiff", [texture(300, 300)], mpp=None)
    (folder / "foreign.safetensors").write_bytes(b"GGUF" + bytes(100))
    (folder / "nothing").mkdir()
    (folder / "exists.zarr").mkdir()
    (folder / "exists.zarr" / "precious.txt").write_text("mine")
    with_model: list[str | Path] = ["--model", model]
    return {
        "no file": (["none.svs"], "none.svs"),
        "not a slide": (["text.svs"], "text.svs"),
        "a directory": ([folder / "nothing"], "directory without slides"),
        "an empty file": (["empty.svs"], "empty"),
        "a truncated file": (["cut.svs"], "cut.svs"),
        "no mpp": ([no_mpp], "--mpp"),
        "an unknown bundle": ([good, "--model", "none.safetensors"], "no such model"),
        "a foreign bundle": ([good, "--model", "foreign.safetensors"], "not a safetensors file"),
        "an existing output": ([good, *with_model, "-o", "exists.zarr"], "exists"),
        "a foreign output": (
            [good, *with_model, "-o", "exists.zarr", "--overwrite"],
            "not a wsi_twostage result",
        ),
        "two rules": ([good, "--refine", "all", "--budget", "5%"], "give one of them"),
        "a bad budget": ([good, "--budget", "lots"], "10%, 500tiles, 120s"),
        "a bad threshold": ([good, "--threshold", "7"], "within 0..1"),
        "a bad mpp": ([good, "--mpp", "900"], "900"),
        "a bad device": ([good, *with_model, "--device", "warp"], "use auto or cpu"),
        "a bad precision": ([good, *with_model, "--precision", "fp8"], "fp32"),
        "no scheduler": ([good, *with_model, "--scheduler", "nonsense"], "nonsense"),
        "an unknown option": ([good, "--fast"], "--fast"),
        "no slide": (["run"], "SLIDES"),
    }


NAMES = [
    "no file", "not a slide", "a directory", "an empty file", "a truncated file", "no mpp",
    "an unknown bundle", "a foreign bundle", "an existing output", "a foreign output", "two rules",
    "a bad budget", "a bad threshold", "a bad mpp", "a bad device", "a bad precision", "no scheduler",
    "an unknown option", "no slide",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_one_clear_line_and_touches_nothing(
    name: str,
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments, said = bad_inputs(tmp_path, model)[name]
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wsi-seg", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capfd.readouterr()
    assert stop.value.code == 2
    assert said in err
    if name not in ("an unknown option", "no slide"):  # click adds how to use it
        assert len(err.strip().splitlines()) == 1, err
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "exists.zarr" / "precious.txt").read_text() == "mine"


def test_a_plan_says_what_a_run_would_cost(tmp_path: Path, slide: Path, model: Path) -> None:
    done = wsi_seg("plan", slide, "--model", model, "--budget", "25%", "--tissue", "none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 of 12 tiles" in done.stdout
    assert "25% of them: budget 25%" in done.stdout
    as_json = wsi_seg("plan", slide, "--model", model, "--refine", "all", "--json", cwd=tmp_path)
    assert json.loads(as_json.stdout)["stage_2"]["tiles"] == json.loads(as_json.stdout)["tissue"]


def test_a_slide_is_converted_and_the_pyramid_is_a_slide(tmp_path: Path, slide: Path, model: Path) -> None:
    done = wsi_seg("convert", slide, "a.ome.zarr", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a.ome.zarr: 400 x 300 px, 0.5 um/px\n"
    done = wsi_seg("a.ome.zarr", "--model", model, "-q", "--tissue", "none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert MaskPyramid.open(tmp_path / "a.seg.ome.zarr").shape() == (300, 400)


def test_the_slides_own_folder_is_not_written_to(tmp_path: Path, model: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    slide = write_slide(there / "slide.tiff", [texture(300, 400)])
    assert wsi_seg(slide, "--model", model, "-q", cwd=here).returncode == 0
    assert os.listdir(there) == ["slide.tiff"]
    assert os.listdir(here) == ["slide.seg.ome.zarr"]


def test_help_does_not_import_torch(tmp_path: Path) -> None:
    code = "import sys, wsi_seg.main, wsi_twostage; sys.exit('torch' in sys.modules or 'dask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
    assert "Segment whole-slide images" in installed("--help", cwd=tmp_path).stdout


def test_what_runs_no_network_does_not_import_torch() -> None:
    """It takes seconds."""
    code = "from wsi_twostage import card, conversion, export, slide, verification; import sys; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_preview_shows_slide_uncertainty_and_a_close_up(tmp_path: Path, model: Path) -> None:
    import imagecodecs

    slide = write_slide(tmp_path / "slide.tiff", [texture(700, 900)])
    wsi_seg(slide, "--model", model, "--preview", "--tissue", "none", "-q", cwd=tmp_path)
    picture = np.asarray(imagecodecs.imread(tmp_path / "slide.preview.png"))
    assert picture.shape == (700, 900 + 12 + 900 + 12 + 600, 3)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SlideError, 2),
        (StoreError, 2),
        (LostSlide, 1),
        (UnreadableRegion, 1),
        (WriteError, 1),
        (DeviceFull, 1),
        (Busy, 75),
        (ClusterError, 75),
    ],
)
def test_how_an_error_ends_the_command(
    error: type[WsiError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error("slide.svs: what was found; what would work")

    monkeypatch.setattr("wsi_seg.main.commands", fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert capsys.readouterr().err.startswith("wsi-seg: slide.svs: what was found; what would work\n")


def test_slides_at_work_at_the_same_time_share_one_display() -> None:
    drawn, screen = io.StringIO(), Screen()
    console = Console(file=drawn, force_terminal=True, width=100)
    with Bars("a", console, screen) as one:
        one(Started("stage 1", 10))
        with Bars("b", console, screen) as two:
            two(Started("stage 1", 20))
            two(TilesDone("stage 1", 5, 1.0))
            one(TilesDone("stage 1", 3, 1.0))
            assert [task.completed for task in one._progress.tasks] == [3, 5]
            two(Note("by the way"))
            two(Finished("stage 1", 1.0))
        assert one._progress is two._progress
        assert [task.description for task in one._progress.tasks] == ["a: stage 1"]
        one(Finished("stage 1", 1.0))
        for _ in range(2):  # slides with an audit have a second stage 2
            with Bars("c", console, screen) as three:
                three(Started("stage 2", 1))
                three(Started("stage 2", 1))
        assert len(one._progress.tasks) == 1
    assert one._progress.finished
    assert not one._progress.live.is_started
    assert "by the way" in drawn.getvalue()


@pytest.fixture
def sigterm() -> Iterator[None]:
    """The command takes it for its own; here it is put back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def kill_yourself(**how: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def look_at_what_is_locked(**how: object) -> None:
    raise PermissionError(13, "Permission denied", "locked/x.tiff")


@pytest.mark.usefixtures("sigterm")
@pytest.mark.parametrize(
    ("commands", "code", "said"),
    [
        (kill_yourself, 75, "interrupted; what is on disk is kept; give the same command again"),
        (look_at_what_is_locked, 1, "locked/x.tiff: Permission denied"),
    ],
)
def test_what_happens_before_a_run_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    commands: object,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr("wsi_seg.main.commands", commands)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (code, f"wsi-seg: {said}\n")
