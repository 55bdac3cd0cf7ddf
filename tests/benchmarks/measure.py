"""What the benchmarks share: a run of the command as its own process, and Dice between two masks."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from canvas import make
from numpy.typing import NDArray

from wsi_twostage.dice import dice, overlap
from wsi_twostage.mask import MaskPyramid


@dataclass(frozen=True)
class Run:
    """One finished command."""

    wall: float  # s, of the whole process: start, imports, work, end
    peak_gib: float  # resident
    result: dict[str, Any]  # what --json printed
    store: MaskPyramid


SCRIPT = Path(sys.executable).with_name("wsi-seg")


def planned(slide: Path, *options: str) -> dict[str, Any]:
    """What `wsi-seg plan SLIDE OPTIONS` says."""
    command = [SCRIPT, "plan", slide, "--json", *options]
    told: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return told


def run(slide: Path, output: Path, *options: str) -> Run:
    """`wsi-seg SLIDE -o OUTPUT OPTIONS`, overwriting an older result."""
    command = [SCRIPT, slide, "-o", output, "--overwrite", "--json", "-q", *options]
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return Run(wall, usage.ru_maxrss / 2**20, json.loads(printed), MaskPyramid.open(output))


@contextmanager
def none_and_all(data: Path, model: Path) -> Iterator[tuple[Run, Run, NDArray[np.uint8]]]:
    """The slide of `canvas.py` refined nowhere and everywhere, and its truth (H, W); gone after the block."""
    with tempfile.TemporaryDirectory() as folder:
        made, truth = make(Path(folder), data, model)
        options = ("--tissue", str(made.tissue), "--model", str(model))
        none, every = (
            run(made.slide, Path(folder) / f"{rule}.zarr", *options, "--refine", rule)
            for rule in ("none", "all")
        )
        yield none, every, truth


def dice_between(one: MaskPyramid, two: MaskPyramid) -> float:
    """Dice of two masks of one slide, shard by shard, in percent."""
    boxes = map(one.box, one.shards())
    return 100 * dice(sum((overlap(one.read(box) > 0, two.read(box) > 0) for box in boxes), np.zeros(3)))


def dice_to_truth(mask: MaskPyramid, truth: Path) -> float:
    """Dice of a mask and an image of the slide's size, foreground where it is not 0, in percent."""
    true = tifffile.imread(truth) > 0
    found = np.zeros_like(true)
    for box in (mask.box(shard).clip(*true.shape) for shard in mask.shards()):
        found[box.slices] = mask.read(box)[: box.height, : box.width] > 0
    return 100 * dice(overlap(found, true))
