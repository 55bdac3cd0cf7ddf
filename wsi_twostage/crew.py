"""The workers of one run: jobs on shards become tasks worth seconds, and levels follow."""

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from threading import Thread
from typing import Any

from distributed import Client

from wsi_twostage import dispatch, stopping
from wsi_twostage.batches import Turns, full_weight, parcels
from wsi_twostage.dispatch import Call
from wsi_twostage.errors import WriteError
from wsi_twostage.mask import Shard
from wsi_twostage.shards import reduce_shard
from wsi_twostage.work import Clock, Done, Job, Work, perform
from wsi_twostage.workers import reached, threads

Results = list[tuple[Shard, Any]]

QUICK = 32
"""Jobs in a task that only read and write: about a second."""


class Crew:
    """Workers that have what the jobs of a run need (`fitness`)."""

    def __init__(self, work: Work, client: Client, *, priority: int = 0) -> None:
        self._work, self._spec, self._client, self._priority = work, work.mask.spec, client, priority
        self._told = False
        self.forsaken = set[Shard]()
        """Shards of jobs that a stop left once their workers had died: they may be written, or not."""
        with reached(client):
            self.threads = max(threads(client), 1)

    def calls(self, jobs: Iterable[Job], *, tiles: int | None = None, work: Work | None = None) -> list[Call]:
        """Tasks of several jobs where there are more than enough for all workers.

        Up to ``tiles`` tiles for a network; None: jobs that only read and write.
        """
        jobs = list(jobs)
        weights = [1] * len(jobs) if tiles is None else [len(job.tiles) for job in jobs]
        return [
            Call(perform, (work or self._work, parcel), network=tiles is not None)
            for parcel in parcels(jobs, weights, limit=tiles or QUICK, threads=self.threads)
        ]

    def run(
        self,
        calls: Iterable[Call],
        *,
        then: Callable[[Results], Iterable[Call]] = lambda results: (),
        stop: Callable[[], bool] = lambda: False,
        parted: Callable[[Shard], None] = lambda shard: None,
    ) -> Generator[tuple[Shard, Any], None, None]:
        """What each job gives, as they are done; ``parted`` hears of shards whose job became two."""

        def over() -> bool:
            if not stop():
                return False
            if stopping.ASKED.is_set() and not self._told:  # what time it is they know themselves
                self._told = True
                Thread(target=self._tell, daemon=True).start()  # a worker that hangs never answers
            return True

        def halves(call: Call) -> list[Call]:
            work, jobs = call.arguments
            first, middle = jobs[0], len(jobs) // 2
            if middle:
                parts = [jobs[:middle], jobs[middle:]]
            elif first.instead is None:
                raise WriteError(f"{first.task.__name__} of {first.shard} ended its worker again and again")
            elif len(first.tiles) > 1:
                parted(first.shard)
                parts = [[half] for half in first.halves()]
            else:
                parts = [[replace(first, task=first.instead, instead=None)]]
            return [replace(call, arguments=(work, part)) for part in parts]

        def forsaken(call: Call) -> None:
            self.forsaken |= {job.shard for job in call.arguments[1]}

        with closing(
            dispatch.run(
                self._client,
                calls,
                then=then,
                stop=over,
                instead=halves,
                forsaken=forsaken,
                priority=self._priority,
            )
        ) as several:
            for results in several:
                yield from results

    def _tell(self) -> None:
        """Ask the workers in other processes to end; who does not hear it finishes its task."""
        with suppress(Exception):  # the run ends anyway
            self._client.run(stopping.ask, self._work.run, on_error="ignore")

    def run_with_levels(
        self, turns: Turns, stop: Callable[[], bool]
    ) -> Generator[tuple[Shard | None, Done | Clock], None, None]:
        """Run calls on shards of level 0, and reduce each shard over them once what lies under it is final.

        Two calls are never at work on one shard. Where the run is stopped, the levels are brought to what was
        done. Gives what each job gave, and its shard; of levels that come last without one.
        """
        written, reduced, ready = set[Shard](), set[Shard](), list[Job]()
        to_come = turns.counts()
        together = full_weight(len(to_come), limit=QUICK, threads=self.threads)
        to_come |= self._children_to_come(set(to_come))

        def parents(results: Results) -> Iterable[Call]:
            for shard, _ in results:
                turns.finished(shard)
                (reduced if shard.level else written).add(shard)
                to_come[shard] -= shard.level == 0
                parent = self._spec.parent(shard)
                if parent is not None and not to_come[shard]:
                    to_come[parent] -= 1
                    if not to_come[parent]:
                        ready.append(Job(parent, reduce_shard))
            if ready and len(ready) >= together:
                yield Call(perform, (self._work, [*ready]))
                ready.clear()

        def parted(shard: Shard) -> None:
            to_come[shard] += 1

        with closing(self.run(turns, then=parents, stop=stop, parted=parted)) as results:
            yield from results
        for clock in self.reduce_above(written, but=reduced):
            yield None, clock

    def reduce_above(self, written: set[Shard], *, but: Collection[Shard] = ()) -> Iterator[Clock]:
        """Reduce what lies over these shards, level by level."""
        for _ in range(self._spec.levels - 1):
            written = {parent for shard in written if (parent := self._spec.parent(shard))}
            if left := sorted(written.difference(but)):
                for _, clock in self.run(self.calls(Job(shard, reduce_shard) for shard in left)):
                    yield clock

    def _children_to_come(self, written: set[Shard]) -> Counter[Shard]:
        """How many children of each parent will be written; empty shards never are."""
        missing = Counter[Shard]()
        for _ in range(self._spec.levels - 1):
            parents = {parent for shard in written if (parent := self._spec.parent(shard))}
            missing |= {parent: len(written.intersection(self._spec.children(parent))) for parent in parents}
            written = parents
        return missing


def heaviest_first(calls: Sequence[Call]) -> list[Call]:
    """Those with most tiles first: no straggler at the end."""
    return sorted(calls, key=lambda call: -sum(len(job.tiles) for job in call.arguments[1]))
