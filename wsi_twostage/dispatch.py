"""Calls on a cluster, few in flight; one that ends its worker each time is found out, and parted."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Client, Future
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from wsi_twostage.errors import ClusterError
from wsi_twostage.workers import at_work, has_gpus, reached

AHEAD = 2
"""Tasks in flight per thread: one runs, one waits."""

TICK_S = 0.5
"""Between two looks at the clock and at the workers, while no result comes."""

NO_WORKER_S = 300.0
"""How long a run waits for workers, once it had some and all are gone, or paused."""

STAYS_S = 20.0
"""After which a worker counts as one that stays; what a limit of its memory ends is back within seconds."""


@dataclass(frozen=True)
class Call:
    """A task: a function and its arguments, all of them small."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    network: bool = False
    """Runs where a GPU is, if workers say that they have some (the Dask resource ``GPU``)."""


def hopeless(call: Call) -> Iterable[Call]:
    """What there is instead of a call that cannot be parted."""
    raise ClusterError(f"a task ended its worker again and again ({call.function.__name__})")


def run(
    client: Client,
    calls: Iterable[Call],
    *,
    then: Callable[[Any], Iterable[Call]] = lambda result: (),
    stop: Callable[[], bool] = lambda: False,
    instead: Callable[[Call], Iterable[Call]] = hopeless,
    forsaken: Callable[[Call], None] = lambda call: None,
    priority: int = 0,
) -> Generator[Any, None, None]:
    """Run calls with few in flight, and yield results as they come.

    A call whose workers died is tried again when nothing else of this client is at work, so that no other
    call is blamed; if it ends its worker again and again, then it is to blame.

    Parameters
    ----------
    then
        More calls that a result makes possible.
    stop
        Once it says so no more are begun, but for those of ``then``; what is at work is waited for.
    instead
        Calls in the place of one that is to blame: its halves, until the cause stands alone.
    forsaken
        Hears of each call that was begun, and has no answer when a stop ends the run: its workers died.
    priority
        Of several runs on one cluster, the higher goes first.

    Raises
    ------
    ClusterError
        The scheduler went away, no worker is left, or ``instead`` has no way out.
    """
    ready, suspects, desk = iter(calls), deque[Call](), _Desk(client, priority)
    alone: Call | None = None
    try:
        while True:
            if alone is None and not stop():
                for call in islice(ready, desk.room()):
                    desk.submit(call)
            if not desk.busy:
                if stop() or not (suspects or desk.held):
                    break
                if suspects and desk.claim():
                    alone = suspects.popleft()
                    desk.submit(alone)
            if (finished := desk.next()) is None:
                if desk.deserted and stop():  # nobody will ever do it
                    break
                continue
            call, outcome = finished
            if isinstance(outcome, KilledWorker):
                if call is alone:
                    suspects.extendleft(reversed(list(instead(call))))
                else:
                    suspects.append(call)
            elif isinstance(outcome, (FutureCancelledError, CommClosedError)):
                raise ClusterError("the scheduler went away") from outcome
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                for more in then(outcome):
                    desk.submit(more)
                yield outcome
            if call is alone:
                alone = None
                desk.unclaim()
        for call in (*suspects, *desk.unanswered):
            forsaken(call)
    finally:
        desk.clear()


@dataclass(eq=False)
class _Gate:
    """The runs on one client, and which of them wants to be alone."""

    lock: Lock = field(default_factory=Lock)
    desks: "set[_Desk]" = field(default_factory=set)
    alone: "_Desk | None" = None


_GATES: WeakKeyDictionary[Client, _Gate] = WeakKeyDictionary()


class _Desk:
    """What is in flight."""

    def __init__(self, client: Client, priority: int) -> None:
        self._client, self._priority = client, priority
        self._calls: dict[Future, Call] = {}
        self._done: SimpleQueue[tuple[Future, Any]] = SimpleQueue()
        self._threads, self._counted, self._last_stayed = 0, 0.0, time.monotonic()
        self._since = dict[str, float]()
        """When each worker was seen first."""
        self.held = False
        """There was no room, because another run wants to be alone for a while."""
        self._gate = _GATES.setdefault(client, _Gate())
        with self._gate.lock:
            self._gate.desks.add(self)
        with reached(self._client):
            self._gpus = has_gpus(client)

    @property
    def busy(self) -> bool:
        return bool(self._calls)

    @property
    def unanswered(self) -> list[Call]:
        """What is in flight."""
        return list(self._calls.values())

    def room(self) -> int:
        """How many more may be submitted; follows workers that come and go."""
        now = time.monotonic()
        if now - self._counted > TICK_S:
            with reached(self._client):
                found, self._counted = at_work(self._client), now
                of_use = found and (not self._gpus or has_gpus(self._client))
            self._threads = sum(found.values())
            self._since = {address: self._since.get(address, now) for address in found}
            if of_use and now - min(self._since.values()) >= STAYS_S:
                self._last_stayed = now
            elif now - self._last_stayed > NO_WORKER_S:
                raise ClusterError(
                    f"no worker is left, and none came for {NO_WORKER_S:.0f} s; those near their "
                    f"--memory-limit pause, or end and begin anew"
                )
        self.held = self._gate.alone not in (None, self)
        if self.held:
            return 0
        return max(AHEAD * max(self._threads, 1) - len(self._calls), 0)

    @property
    def deserted(self) -> bool:
        """No worker is there."""
        return not self._threads

    def claim(self) -> bool:
        """Whether no other run on this client has anything in flight; from now on none begins more."""
        with self._gate.lock:
            self._gate.alone = self._gate.alone or self
            return self._gate.alone is self and not any(desk.busy for desk in self._gate.desks)

    def unclaim(self) -> None:
        """The others go on."""
        with self._gate.lock:
            if self._gate.alone is self:
                self._gate.alone = None

    def submit(self, call: Call) -> None:
        resources = {"GPU": 1} if call.network and self._gpus else None
        with reached(self._client):
            future = self._client.submit(
                call.function, *call.arguments, pure=False, priority=self._priority, resources=resources
            )
        self._calls[future] = call
        self._client.loop.add_callback(self._fetch, future)

    async def _fetch(self, future: Future) -> None:
        """Wait in the client's own loop: a result needs no second trip between threads."""
        try:
            outcome = await self._client.gather(future, asynchronous=True)
        except BaseException as error:  # of the task, or of the cluster
            outcome = error
        self._done.put((future, outcome))

    def next(self) -> tuple[Call, Any] | None:
        """A call that ended, and its result or error; None if none did for a while."""
        try:
            future, outcome = self._done.get(timeout=TICK_S)
        except Empty:
            self.room()  # is anybody there?
            return None
        return self._calls.pop(future), outcome

    def clear(self) -> None:
        """Cancel what is left, and leave."""
        self.unclaim()
        with self._gate.lock:
            self._gate.desks.discard(self)
        with suppress(ClusterError), reached(self._client):
            self._client.cancel(list(self._calls))
