"""What scheduling costs, and how many workers a slide can feed.

    python tests/benchmarks/scheduling.py [--slide SLIDE] [--tiles 1000000] [--budget 10%] [--workers 16 ...]

First the cost of a task on a real Dask cluster of two processes: calls with the arguments of a real run that
do nothing, beside plain `client.submit` of a function without arguments. Then a simulation: the run's own
code (batches, turns, table, levels) leads a slide of so many tiles, on a cluster that only keeps time.
Networks, reading and writing take what they took on SLIDE; what the client computes takes what it takes; each
task costs the scheduler what was measured before.
"""

import argparse
import heapq
import math
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
from distributed import as_completed

from wsi_twostage import cluster, dispatch
from wsi_twostage.coarse import coarse_shard
from wsi_twostage.dispatch import Call
from wsi_twostage.fine import refine_shard
from wsi_twostage.ledger import Ledger
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.pipeline import segment
from wsi_twostage.preparing import prepare
from wsi_twostage.schedule import Run
from wsi_twostage.selection import Fraction, Rule, parse_budget
from wsi_twostage.settings import Settings
from wsi_twostage.tiles import Tile
from wsi_twostage.work import Clock, Done, Job, Work, perform

SAMPLE = Path(__file__).parents[2] / "examples" / "data" / "CMU-1-Small-Region.svs"
EFFICIENT = 0.9


def idle(work: Work, shard: object, *more: object) -> Clock:
    """A task of a run that does nothing."""
    return Clock()


def plain() -> Clock:
    """Like it, without arguments."""
    return Clock()


def cost_of_tasks(work: Work, count: int) -> tuple[float, float]:
    """Seconds of a task through `dispatch.run`, and through client.submit and as_completed."""
    shard, tiles = work.mask.shards()[0], tuple(Tile(row, col) for row in range(4) for col in range(4))
    calls = [Call(perform, (work, [Job(shard, idle, (tiles,))])) for _ in range(count)]
    with cluster.connect(workers=32, processes=2) as client:  # many in flight: it is not the way that counts
        list(dispatch.run(client, calls[:100]))  # imports
        start = time.perf_counter()
        list(dispatch.run(client, calls))
        ours = (time.perf_counter() - start) / count
        start = time.perf_counter()
        for future in as_completed(
            [client.submit(plain, pure=False) for _ in range(count)], loop=client.loop
        ):
            future.result()
        bare = (time.perf_counter() - start) / count
    return ours, bare


class Costs:
    """Seconds of each kind of task, as a real run took them."""

    def __init__(self, slide: Path, folder: Path) -> None:
        result = segment(
            slide, folder / "recorded.zarr", rule=Fraction(0.5), settings=Settings(overwrite=True)
        )
        counts, seconds = result.counts, result.seconds
        table = result.tiles
        self.tile_ms = table["milliseconds"][~np.isnan(table["milliseconds"])]
        share = seconds.model_1 / (seconds.model_1 + seconds.model_2)
        self.coarse = (seconds.model_1 + share * seconds.read) / counts.tissue
        self.write = seconds.write / len(result.store.shards()) / 3  # first, then refined, then levels

    def of(self, job: Job) -> float:
        if job.task is coarse_shard:
            return self.coarse * len(job.tiles) + self.write
        if job.task is refine_shard:
            places = [(tile.row * 7919 + tile.col) % len(self.tile_ms) for tile in job.tiles]
            return float(self.tile_ms[places].sum()) / 1000 + self.write
        return self.write


class Pretended:
    """A future of the pretended cluster; its task has been given its time and its answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer


class Pretence:
    """A Dask client of workers that only keep time, and the queue on which their results come.

    Time is the client's own, as it passes, and jumps to the next result when the client waits. One scheduler
    hands tasks on and results back, one after the other.
    """

    def __init__(self, workers: int, costs: Costs, task_s: float) -> None:
        self._costs, self._task_s, self._workers = costs, task_s, workers
        self._free = [0.0] * workers  # when each worker will be
        self._results: list[tuple[float, int, Pretended]] = []
        self._count, self._scheduler = 0, 0.0
        self.now, self.busy, self.client_s = 0.0, 0.0, 0.0
        self._left = time.perf_counter()

    def _enter(self) -> None:
        spent = time.perf_counter() - self._left
        self.now += spent
        self.client_s += spent

    def _leave(self) -> None:
        self._left = time.perf_counter()

    def _through_scheduler(self, when: float) -> float:
        self._scheduler = max(self._scheduler, when) + self._task_s / 2
        return self._scheduler

    def run_on_scheduler(self, function: object) -> dict[str, int]:
        return {"all": self._workers}

    def scheduler_info(self, n_workers: int = -1) -> dict[str, Any]:
        return {"workers": {}}

    def run(self, function: object, *arguments: object, **options: object) -> dict[str, str]:
        return {}

    def cancel(self, futures: object) -> None: ...

    @property
    def loop(self) -> "Pretence":
        return self

    def add_callback(self, *arguments: object) -> None: ...

    def submit(self, function: object, *arguments: Any, **options: object) -> Pretended:
        self._enter()
        _, jobs = arguments
        seconds = sum(self._costs.of(job) for job in jobs)
        begin = max(heapq.heappop(self._free), self._through_scheduler(self.now))
        heapq.heappush(self._free, begin + seconds)
        self.busy += seconds
        self._count += 1
        future = Pretended([(job.shard, _answer(job)) for job in jobs])
        heapq.heappush(self._results, (begin + seconds, self._count, future))
        self._leave()
        return future

    def get(self, timeout: float) -> tuple[Pretended, Any]:
        if not self._results:
            raise Empty
        self._enter()
        end, _, future = heapq.heappop(self._results)
        self.now = max(self.now, self._through_scheduler(end))
        self._leave()
        return future, future.answer

    @property
    def scheduler_s(self) -> float:
        return self._count * self._task_s


def _answer(job: Job) -> Done | Clock:
    if job.task not in (coarse_shard, refine_shard):
        return Clock()
    values = np.array([((tile.row * 31 + tile.col * 17) % 997) / 997 for tile in job.tiles], np.float32)
    return Done(job.tiles, values, (), Clock(), tuple(1.0 for _ in job.tiles))


def simulate(
    work: Work, folder: Path, tiles: int, workers: int, rule: Rule, costs: Costs, task_s: float
) -> str:
    """A line of the table."""
    edge = math.isqrt(tiles) * work.spec.tile
    spec = replace(
        work.mask.spec, height=edge, width=edge, overview_height=1 + edge // 32, overview_width=1 + edge // 32
    )
    mask = MaskPyramid.create(folder / f"{workers}.zarr", spec, manifest={"held_by": "nobody"})
    ledger = Ledger.begin(mask, np.ones((spec.tiles.rows, spec.tiles.cols), np.bool_))
    pretence = Pretence(workers, costs, task_s)
    dispatch.SimpleQueue = lambda: pretence  # type: ignore[assignment, misc]
    run = Run(replace(work, mask=mask), pretence, lambda event: None)
    counts = [ledger.tissue.sum(), 0]
    marks = [(0.0, 0.0, 0.0, 0.0)]
    for stage in (lambda: run.coarse(ledger), lambda: run.refine(ledger)):
        stage()
        marks.append((pretence.now, pretence.busy, pretence.client_s, pretence.scheduler_s))
        ledger.choose(rule)
    counts[1] = len(next(ledger.rounds()).order)
    cells = [f"{workers}"]
    for (before, after), count in zip(pairwise(marks), counts, strict=True):
        wall, busy, client, scheduler = (b - a for a, b in zip(before, after, strict=True))
        cells += [
            f"{wall:.0f}",
            f"{busy / wall / workers:.0%}",
            f"{client / wall:.0%}",
            f"{scheduler / wall:.0%}",
            f"{1000 * scheduler / count:.2f}",
        ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slide", type=Path, default=SAMPLE)
    parser.add_argument("--tiles", type=int, default=1_000_000)
    parser.add_argument("--budget", default="10%")
    parser.add_argument("--workers", type=int, nargs="*", default=[16, 64, 256, 500, 1000])
    parser.add_argument("--tasks", type=int, default=2000)
    arguments = parser.parse_args()
    rule = parse_budget(arguments.budget)
    with tempfile.TemporaryDirectory() as name:
        folder, settings = Path(name), Settings()
        costs = Costs(arguments.slide, folder)
        job = prepare(arguments.slide, None, settings)
        mask = MaskPyramid.open(folder / "recorded.zarr")
        mask.note(held_by="nobody")
        work = job.work(mask, settings)
        ours, bare = cost_of_tasks(work, arguments.tasks)
        print(
            f"a task costs {1000 * ours:.2f} ms, {ours / bare:.2f} times a plain one ({1000 * bare:.2f} ms)"
        )
        print(
            f"recorded: {1000 * costs.coarse:.0f} ms a tile in stage 1, {np.median(costs.tile_ms):.0f} ms "
            f"in stage 2, {1000 * costs.write:.0f} ms a shard to write\n"
        )
        print(f"{arguments.tiles} tiles, {rule}:\n")
        parts = ("s", "efficiency", "client", "scheduler", "ms a tile")
        columns = ["workers", *(f"stage {stage}: {part}" for stage in (1, 2) for part in parts)]
        print(f"| {' | '.join(columns)} |")
        print("|" + "---|" * len(columns))
        for workers in arguments.workers:
            print(simulate(work, folder, arguments.tiles, workers, rule, costs, ours), flush=True)


if __name__ == "__main__":
    main()
