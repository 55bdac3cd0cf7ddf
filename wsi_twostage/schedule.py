"""One run on a cluster: which shards each stage works on, in which order, and what they add up to."""

import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from wsi_twostage import stopping
from wsi_twostage.agenda import forget_audit, let_go
from wsi_twostage.audit import choose_sample, estimate
from wsi_twostage.batches import Turns, batches, tiles_of_shards
from wsi_twostage.coarse import coarse_shard
from wsi_twostage.crew import Crew, heaviest_first
from wsi_twostage.dispatch import Call
from wsi_twostage.events import Finished, Listener, Note, Started, TilesDone
from wsi_twostage.fine import give_up_shard, refine_shard
from wsi_twostage.fitness import fit_workers
from wsi_twostage.ledger import Ledger
from wsi_twostage.mask import Shard, Source
from wsi_twostage.overview import look
from wsi_twostage.result import Counts, Result, Seconds
from wsi_twostage.shards import first_shard, restore_shard
from wsi_twostage.tiles import Tile
from wsi_twostage.work import Clock, Done, Job, Work, give_up

MODEL_1_TILES, MODEL_2_TILES = 64, 16
"""In a task, where there are enough for all workers: some seconds."""

LEVELS_S = 0.1
"""Of a thread, to reduce what lies over one shard of level 0; until a run has measured it."""


@contextmanager
def begin(work: Work, client: Client, listener: Listener, *, priority: int = 0) -> Iterator["Run"]:
    """A run on workers that have what it needs.

    Raises
    ------
    ConfigError
        A worker cannot see the slide, the model or the output.
    """
    with fit_workers(client, work, lambda text: listener(Note(text))):
        yield Run(work, client, listener, priority=priority)


class Run:
    """The stages of a run, and what they have cost so far."""

    def __init__(self, work: Work, client: Client, listener: Listener, *, priority: int = 0) -> None:
        self.work, self.mask, self.listen = work, work.mask, listener
        self.crew = Crew(work, client, priority=priority)
        self.grid = work.mask.spec.tiles
        self.clocks = {"stage 1": Clock(), "stage 2": Clock()}
        self.walls: dict[str, float] = {}
        self.complete = True
        self._levels_s = LEVELS_S / self.crew.threads  # of a shard

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note the wall time of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.walls[stage] = time.perf_counter() - start
        self.listen(Finished(stage, self.walls[stage]))

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """What a stop leaves out."""
        try:
            yield
        except stopping.Stopped:
            self.complete = False

    def look(self, how: str, drawn: NDArray[np.bool_] | None = None) -> Ledger:
        """The tiles that have tissue, as `overview.look` finds it; what an earlier run found stays."""
        known = self.mask.manifest.get("looked")
        ledger = Ledger.read(self.mask) if known else look(self.work, self.crew, self.listen, how, drawn)
        if not ledger.tissue.any():
            self.listen(Note("no tissue found; the mask is empty"))
        return ledger

    def coarse(self, ledger: Ledger) -> None:
        """Line 1: Model 1's probability and the uncertainty of each tile that is still pending."""
        pending = ledger.having(Source.PENDING)
        self.listen(Started("stage 1", int(pending.sum())))
        jobs = [Job(shard, coarse_shard, (tiles,), give_up) for shard, tiles in self._by_shard(pending)]
        calls = heaviest_first(self.crew.calls(jobs, tiles=MODEL_1_TILES))
        with ledger.kept(), closing(self.crew.run(calls, stop=self.work.over)) as results:
            for _, done in results:
                ledger.enter(done.tiles, uncertainty=done.values, source=Source.MODEL_1)
                self._conclude(ledger, "stage 1", done)
        if ledger.having(Source.PENDING).any():
            raise stopping.Stopped
        if not self.mask.manifest["whole"]:
            self._write_first(ledger)

    def _write_first(self, ledger: Ledger) -> None:
        """Model 1's answer as the mask, on all levels: from here on the store is whole at any time."""
        start = time.perf_counter()
        jobs = [Job(shard, first_shard, (tiles,)) for shard, tiles in self._by_shard(ledger.tissue)]
        turns = Turns(self.crew.calls(jobs))
        missing = set(turns.counts())
        with closing(self.crew.run_with_levels(turns, self.work.over)) as results:
            for shard, clock in results:
                self._count("stage 1", clock)
                missing.discard(shard)
        if missing:
            raise stopping.Stopped
        self.mask.note(whole=True, levels=True)
        self._levels_s = (time.perf_counter() - start) / max(len(jobs), 1)

    def restore(self, ledger: Ledger) -> None:
        """After a run that was killed: what it may have written without entering it is Model 1's again.

        Before anything new is chosen; which tiles these are is known from what was chosen then.
        """
        if not self.mask.manifest.get("whole") or self.mask.manifest.get("levels"):
            return
        self._restore(self._by_shard(ledger.unsure), {shard for shard, _ in self._by_shard(ledger.tissue)})

    def _restore(self, unsure: list[tuple[Shard, tuple[Tile, ...]]], below: set[Shard]) -> None:
        """Model 1's answer on these tiles, and the levels above shards that may be in need of it."""
        restored = self.crew.calls(Job(shard, restore_shard, (tiles,)) for shard, tiles in unsure)
        with closing(self.crew.run(restored)) as results:
            for _, clock in results:
                self._count("stage 2", clock)
        for clock in self.crew.reduce_above(below):
            self._count("stage 2", clock)
        self.crew.forsaken.clear()
        self.mask.note(levels=True)

    def refine(
        self,
        ledger: Ledger,
        *,
        within: NDArray[np.bool_] | None = None,
        until: float | None = None,
        audit: int | None = None,
    ) -> None:
        """Line 3: Model 2's labels of the chosen tiles, the most uncertain first, and all levels above.

        Only tiles ``within``, (rows, cols); the others wait on. ``until`` is when to be ready, in seconds of
        `time.time`, an audit of so many tiles included.
        """
        done = ledger.settled
        inside = ledger.tissue if within is None else within
        rounds = list(ledger.rounds())
        chosen = np.any([patches.chosen for patches in rounds], axis=0) & inside
        todo = chosen & ~done
        forget_audit(self.mask, ledger, todo)
        ends = [end for end in (until, self.work.until) if end is not None]
        spare = -(-(audit or 0) // self.crew.threads) if until is not None else 0
        levels_s = self._levels_s * len(self._by_shard(todo))
        levels_s *= 2 if spare else 1  # the audit writes them again
        work = replace(self.work, until=min(ends) - levels_s if ends else None, spare=spare)
        worth = ledger.grid("uncertainty") if ends else None
        # Where all are chosen and there is time for all, no order is to be kept: each shard is written once.
        in_order = until is not None or bool((ledger.seen & ~chosen).any())
        self.listen(Started("stage 2", int(todo.sum())))
        turns = Turns(
            call
            for patches in rounds
            for batch in (batches(patches) if in_order else [patches.chosen])
            for call in self._refining(batch & inside & ~done, work, worth)
        )
        self.mask.note(levels=False)

        def stop() -> bool:
            return work.over(spare * self._window_s())

        with ledger.kept(), closing(self.crew.run_with_levels(turns, stop)) as results:
            for _, result in results:
                if isinstance(result, Clock):
                    self._count("stage 2", result)
                    continue
                ledger.enter(
                    result.tiles,
                    disagreement=result.values,
                    milliseconds=result.milliseconds,
                    source=Source.MODEL_2,
                )
                self._conclude(ledger, "stage 2", result)
        left = chosen & ~ledger.settled
        asked = stopping.ASKED.is_set() or (
            self.work.until is not None and self.work.until <= (until or math.inf)
        )
        stopped = bool(left.any()) and (until is None or asked)
        if not self.crew.forsaken:
            self.mask.note(levels=True)
        elif not stopped:  # else the next run does it
            unsure = [one for one in self._by_shard(left) if one[0] in self.crew.forsaken]
            self._restore(unsure, {shard for shard, _ in unsure})
        if stopped:
            raise stopping.Stopped
        if until is not None:
            let_go(self.mask, ledger)

    def _window_s(self) -> float:
        """What a window of one tile has cost a thread in stage 2 so far."""
        clock, spec = self.clocks["stage 2"], self.work.spec
        own = (spec.tile + 2 * spec.halo) ** 2 / 1e6
        return own * (clock.read + clock.network) / clock.megapixels if clock.megapixels else 0.0

    def audit(self, ledger: Ledger, count: int | None) -> None:
        """Refine a random sample of what was left, and say in the store what it tells of the rest."""
        if count is not None:
            with self.timed("audit"):
                self._audit(ledger, count)

    def _audit(self, ledger: Ledger, count: int) -> None:
        told = self.mask.manifest.get("audit")
        if told is None or told["tiles"] != count:
            told = {"tiles": count, "round": ledger.last_round + 1}
        before = self.mask.manifest.get("audits", [])
        if told["round"] not in before:
            self.mask.note(audit=told, audits=[*before, told["round"]])
        if "left" in told:
            return
        if not (ledger.columns["round"] == told["round"]).any():
            choose_sample(ledger, count, told["round"])
        self.refine(ledger, within=ledger.grid("round", -1) == told["round"])
        left = [part.as_json() for part in estimate(ledger, self.work.spec, told["round"])]
        self.mask.note(audit={**told, "left": left})

    def _by_shard(self, chosen: NDArray[np.bool_]) -> list[tuple[Shard, tuple[Tile, ...]]]:
        return list(tiles_of_shards(self.mask.spec, chosen).items())

    def _refining(
        self, batch: NDArray[np.bool_], work: Work, worth: NDArray[np.float32] | None
    ) -> list[Call]:
        """Calls for the tiles of a batch; the most tiles first: no straggler at the end.

        With what each tile is ``worth``, (rows, cols): the shards whose tiles are worth most first.
        """
        jobs = [Job(shard, refine_shard, (tiles,), give_up_shard) for shard, tiles in self._by_shard(batch)]
        if worth is not None:
            jobs.sort(key=lambda job: -worth[tuple(np.array(job.tiles).T)].mean())
        calls = self.crew.calls(jobs, tiles=MODEL_2_TILES, work=work)
        return calls if worth is not None else heaviest_first(calls)

    def finish(self, started: float, ledger: Ledger) -> Result:
        """Add up, and say so in the store."""
        counts = Counts(
            tiles=len(self.grid),
            tissue=int(ledger.tissue.sum()),
            refined=int(ledger.having(Source.MODEL_2).sum()),
            unreadable=int(ledger.having(Source.UNREADABLE).sum()),
            crashed=int(ledger.having(Source.CRASHED).sum()),
            changed=ledger.changed,
        )
        seconds = Seconds.of(time.perf_counter() - started, self.walls, self.clocks, self.crew.threads)
        complete = self.complete and not ledger.open.any()  # outside of a region tiles may wait
        worked = any(clock.network or clock.write for clock in self.clocks.values())
        spent = seconds.as_json() if worked else self.mask.manifest.get("seconds") or seconds.as_json()
        self.mask.note(seconds=spent, counts=counts.as_json(), complete=complete)
        audit = (self.mask.manifest.get("audit") or {}).get("left", ())
        return Result(self.mask, counts, seconds, self.complete, before=not worked, audit=tuple(audit))

    def _count(self, stage: str, clock: Done | Clock) -> None:
        self.clocks[stage].add(clock.clock if isinstance(clock, Done) else clock)

    def _conclude(self, ledger: Ledger, stage: str, done: Done) -> None:
        """What follows every job of a network: its failures, its time, and who listens."""
        ledger.enter(done.unreadable, source=Source.UNREADABLE)
        ledger.enter(done.crashed, source=Source.CRASHED)
        ledger.commit(now=False)
        self._count(stage, done)
        self.listen(TilesDone(stage, len(done.tiles), done.clock.megapixels))
        for tiles, what in ((done.unreadable, "cannot be read"), (done.crashed, "end any worker")):
            if tiles:
                place = f"row {tiles[0].row}, col {tiles[0].col} of the tiles"
                self.listen(Note(f"{stage}: {len(tiles)} tiles {what}, the first at {place}"))
