"""Whether workers have what a run needs: those that are there, and those that come later."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any

from distributed import Client, Worker, WorkerPlugin

from wsi_twostage import cluster
from wsi_twostage.errors import ClusterError, ConfigError, WsiError
from wsi_twostage.lock import is_here
from wsi_twostage.models.runner import runner
from wsi_twostage.work import Work

log = logging.getLogger(__name__)


@contextmanager
def fit_workers(client: Client, work: Work, say: Callable[[str], None]) -> Iterator[None]:
    """Every worker that gets tasks of the work has what they need; ``say`` hears of those sent away.

    Raises
    ------
    ConfigError
        A worker that is there cannot see the slide, the model or the output.
    """
    with cluster.reached(client):
        gpus = cluster.has_gpus(client)
        said: dict[str, str] = client.run(missing, work, gpus)
    for address, what in said.items():
        if what:
            raise ConfigError(f"worker {address}: {what}; slide, model and output must be there, too")
    if not cluster.is_elsewhere(client):
        yield
        return
    door = Door(work, gpus)
    with cluster.reached(client):
        client.register_plugin(door)
        client.subscribe_topic(door.name, lambda event: say(event[1]))
    try:
        yield
    finally:
        with suppress(ClusterError), cluster.reached(client):
            client.unsubscribe_topic(door.name)
            client.unregister_worker_plugin(door.name)


class Door(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Through which workers come that join during a run; its tasks wait until they are in."""

    def __init__(self, work: Work, gpus: bool) -> None:
        self.name = f"wsi-twostage {work.run}"
        self._work, self._gpus, self._version = work, gpus, version("wsi-twostage")

    def setup(self, worker: Worker) -> None:
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
    slide = getattr(work.fine, "path", "")
    if "://" not in slide and not os.access(slide, os.R_OK):
        return f"{slide}: no such file, or it may not be read"
    try:
        if not gpus or "GPU" in dask_worker.state.total_resources:
            runner(work.model)
        work.ensure_sound()
    except WsiError as error:
        return str(error)
    return "" if os.access(work.mask.path, os.W_OK) else f"{work.mask.path} cannot be written"
