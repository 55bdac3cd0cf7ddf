"""One worker process against two, and against two threads in one process.

    python tests/benchmarks/processes.py SLIDE [--mpp 0.25] [--budget 10%] [--repeat 1]

What counts are the stages that compute. The rival is the machine itself: how much more of Model 2's windows
two processes get through than one, with nothing to read, to write or to schedule.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import run

from wsi_twostage.models.runner import refer, runner
from wsi_twostage.models.spec import CONTEXT_STRIDE

SECONDS = 10.0
KINDS = {
    "one process": ("--workers", "1", "--processes", "1"),
    "two processes": ("--workers", "2", "--processes", "2"),
    "two threads": ("--workers", "2"),
}


def windows(start: "multiprocessing.synchronize.Barrier", counts: "multiprocessing.Queue[int]") -> None:
    """How many windows of one tile and its halo Model 2 gets through on one thread."""
    torch.set_num_threads(1)
    ref, spec = refer(None, device="cpu", precision="fp32")
    net, edge = runner(ref), spec.tile + 2 * spec.halo
    fine = np.full((edge, edge, 3), 200, np.uint8)
    around = np.full((spec.tile // CONTEXT_STRIDE + 2 * spec.context_halo,) * 2 + (3,), 200, np.uint8)
    net.f2(fine, around)
    start.wait()
    end, count = time.perf_counter() + SECONDS, 0
    while time.perf_counter() < end:
        net.f2(fine, around)
        count += 1
    counts.put(count)


def throughput(processes: int) -> int:
    """Windows that so many processes get through in the same time."""
    context = multiprocessing.get_context("spawn")
    start, counts = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=windows, args=(start, counts)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    total = sum(counts.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--mpp")
    parser.add_argument("--budget", default="10%")
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    options = ["--budget", arguments.budget] + (["--mpp", arguments.mpp] if arguments.mpp else [])
    one, two = throughput(1), throughput(2)
    print(f"{arguments.slide.name}, {arguments.budget}, {arguments.repeat} runs of each\n")
    print("| | stage 1, s | stage 2, s | both, times one process | whole process, s |")
    print("|---|---|---|---|---|")
    first: float | None = None
    with tempfile.TemporaryDirectory() as folder:
        for name, workers in KINDS.items():
            runs = [
                run(arguments.slide, Path(folder) / "o.zarr", *options, *workers)
                for _ in range(arguments.repeat)
            ]
            stages = [statistics.median(r.result["seconds"][s] for r in runs) for s in ("stage_1", "stage_2")]
            first = first or sum(stages)
            wall = statistics.median(r.wall for r in runs)
            print(
                f"| {name} | {stages[0]:.1f} | {stages[1]:.1f} | {first / sum(stages):.2f} | {wall:.1f} |",
                flush=True,
            )
    print(f"\nthe networks alone, two processes over one: {two / one:.2f}")


if __name__ == "__main__":
    main()
