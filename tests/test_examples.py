"""The examples for clusters and workflow managers, run as real processes where their programs are there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, SVS, tiny_model
from slides import texture, write_slide

from wsi_twostage import Fraction, Settings, segment
from wsi_twostage.mask import MaskPyramid

EXAMPLES = ROOT / "examples"
SCRIPTS = Path(sys.executable).parent


def environment(**more: str) -> dict[str, str]:
    """As in an environment that was activated."""
    return {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", **more}


def labels(store: Path) -> dict[str, bytes]:
    """The files of the mask; an all-background shard has none."""
    inside = store / "labels" / "segmentation"
    return {str(p.relative_to(inside)): p.read_bytes() for p in sorted(inside.rglob("c/**/*")) if p.is_file()}


def left_over(mark: Path) -> list[psutil.Process]:
    """Processes that have a path in their command line."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(mark) in " ".join(p.info["cmdline"] or [])]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny.safetensors")


@pytest.mark.timeout(240)
def test_two_workers_started_by_hand_give_the_bytes_of_a_local_run(tmp_path: Path, model: Path) -> None:
    options = ("-o", tmp_path / "far.zarr", "--model", model, "--budget", "20%", "-q")
    done = subprocess.run(
        [EXAMPLES / "two_workers.sh", SVS, *options],
        env=environment(TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    settings = Settings(workers=1)
    segment(SVS, tmp_path / "near.zarr", bundle=model, rule=Fraction(0.2), settings=settings)
    near = labels(tmp_path / "near.zarr")
    assert len(near) > 4
    assert labels(tmp_path / "far.zarr") == near
    assert left_over(tmp_path) == []
    assert not list(tmp_path.glob("tmp.*"))


@pytest.mark.timeout(240)
def test_two_workers_that_are_told_to_end_leave_a_valid_store_and_no_process(tmp_path: Path) -> None:
    store = tmp_path / "far.zarr"
    running = subprocess.Popen(
        [EXAMPLES / "two_workers.sh", SVS, "-o", store, "--refine", "all"],  # the shipped model: seconds
        env=environment(TMPDIR=str(tmp_path)),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (store / "wsi_twostage" / "tiles").is_dir() and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate()
    assert running.returncode == 75, said
    assert "the same command goes on" in said
    assert not MaskPyramid.left(store).manifest["complete"]
    assert left_over(tmp_path) == []
