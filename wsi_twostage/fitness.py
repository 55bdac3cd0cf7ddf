"""Whether workers have what a run needs: those that are there, and those that come later."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distributed import Client, Worker, WorkerPlugin

from wsi_twostage import stopping
from wsi_twostage.errors import ClusterError, ConfigError, WsiError
from wsi_twostage.lock import is_here, this_process
from wsi_twostage.models.runner import ModelRef, runner
from wsi_twostage.pixels import Pixels
from wsi_twostage.work import Work
from wsi_twostage.workers import has_gpus, is_elsewhere, reached, register

TICK_S = 0.2
"""Between two looks at whether to stop, while workers answer."""

log = logging.getLogger(__name__)


@contextmanager
def fit_workers(client: Client, work: Work, say: Callable[[str], None]) -> Iterator[None]:
    """Every worker that gets tasks of the work has what they need; ``say`` hears of those sent away.

    Raises
    ------
    ConfigError
        A worker that is there cannot see the slide, the model or the output.
    """
    with reached(client):
        gpus = has_gpus(client)
    _ask(client, missing, work, gpus)
    if not is_elsewhere(client):
        yield
        return
    door = Door(work, gpus)
    register(client, door)
    with reached(client):
        client.subscribe_topic(door.name, lambda event: say(event[1]))
    try:
        yield
    finally:
        with suppress(ClusterError), reached(client):
            client.unsubscribe_topic(door.name)
            client.unregister_worker_plugin(door.name)


def ensure_fit(client: Client, fine: Pixels, model: ModelRef, output: Path) -> None:
    """The same before there is a store; what lies at ``output`` now must be there for all workers.

    Raises
    ------
    ConfigError
        As `fit_workers`.
    """
    with reached(client):
        gpus = has_gpus(client)
    _ask(client, lacking, fine, model, output.absolute(), gpus, this_process())


def _ask(client: Client, question: Callable[..., str], *arguments: object) -> None:
    """Each worker says what it lacks."""
    with reached(client):
        asked = client.run(question, *arguments, on_error="return", asynchronous=True)
        answer = asyncio.run_coroutine_threadsafe(asked, client.loop.asyncio_loop)
        while not wait([answer], TICK_S).done:  # one that hangs is given up by the scheduler, in minutes
            if stopping.ASKED.is_set():
                raise ClusterError("stopped before all workers had answered")
        said = answer.result()
    _ensure_nothing_lacks(said)


def _ensure_nothing_lacks(said: Mapping[str, object]) -> None:
    """What each worker said; who did not answer is asked when it comes back, by the `Door`."""
    for address, what in said.items():
        if isinstance(what, OSError):
            log.warning("worker %s does not answer: %s", address, what)
        elif isinstance(what, BaseException):
            raise ConfigError(f"worker {address} is of no use: {type(what).__name__}: {what}") from what
        elif what:
            raise ConfigError(f"worker {address}: {what}; slide, model and output must be there, too")


class Door(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Through which workers come that join during a run; its tasks wait until they are in."""

    def __init__(self, work: Work, gpus: bool) -> None:
        self.name = f"wsi-twostage {work.run}"
        self._work, self._gpus, self._version = work, gpus, version("wsi-twostage")

    def setup(self, worker: Worker) -> None:
        if self._work.ended():  # and whoever led it had no time to take the door away
            return
        here = version("wsi-twostage")
        what = (
            f"wsi_twostage {here}, the run has {self._version}"
            if here != self._version
            else missing(self._work, self._gpus, worker)
        )
        if what:
            log.error("%s; this worker leaves", what)
            worker.log_event(self.name, f"worker {worker.address} came and was sent away: {what}")
            worker.loop.call_later(0.1, worker.close, reason=what)  # once the event is on its way


def missing(work: Work, gpus: bool, dask_worker: Any = None) -> str:
    """What this worker lacks for the work, in one line; empty: nothing. Loads the model where it will run.

    Pixels are not read: what hangs or crashes there is found by tasks, which can be lost.
    """
    if is_here(work.run):
        return ""
    if what := lacking(work.fine, work.model, work.mask.path, gpus, dask_worker=dask_worker):
        return what
    try:
        work.ensure_sound()
    except (WsiError, OSError) as error:
        return str(error)
    return ""


def lacking(
    fine: Pixels, model: ModelRef, output: Path, gpus: bool, leader: str = "", dask_worker: Any = None
) -> str:
    """What does not depend on the run; nothing is lacking where its ``leader`` is."""
    if leader == this_process():
        return ""
    slide = getattr(fine, "path", "")
    if "://" not in slide and not os.access(slide, os.R_OK):
        return f"{slide}: no such file, or it may not be read"
    try:
        if not gpus or "GPU" in dask_worker.state.total_resources:
            runner(model)
    except (WsiError, OSError) as error:
        return str(error)
    if not output.exists():
        return f"{output} cannot be seen; it must lie where all workers can write"
    return "" if os.access(output, os.W_OK) else f"{output} cannot be written"
