"""Where tasks run: this machine by default, any Dask scheduler by address; one code path for both."""

import asyncio
import json
import logging
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import torch
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Worker, WorkerPlugin
from distributed.comm import connect as connect_to
from distributed.security import Security

from wsi_twostage import stopping
from wsi_twostage.errors import ClusterError, ConfigError, one_line
from wsi_twostage.memory import keep_freed_memory
from wsi_twostage.workers import reached, register, threads

ANSWER_S = 10
"""How long to wait for a scheduler."""

FIRST_WORKER_S = 300
"""How long to wait for the first worker of a scheduler; a queue or a new machine takes minutes."""

TORCH_THREADS = 1
"""For a window: each thread of a worker has one of its own.

With more, sums would be rounded in another order, and the bytes of a result depend on the number of workers.
"""

_QUIET = ("distributed", "distributed.worker", "distributed.worker.state_machine", "distributed.scheduler")


_LEAN: dict[str, Any] = {
    "distributed.worker.profile.enabled": False,  # samples all threads a hundred times a second
    "distributed.admin.tick.interval": "1s",  # wakes each server fifty times a second
}
"""What Dask does for its dashboard; ours have none, and every core would pay."""


class Prepare(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Each task has a core; torch alone would take all of them for each."""

    def __init__(self, client: Client, *, ours: bool = False) -> None:
        self.name = f"wsi-twostage prepares for {client.id}"
        """Nobody else takes it away."""
        self._ours = ours
        """A process that we started: a Ctrl-C reaches it, too, and it must finish its window first."""

    def setup(self, worker: Worker) -> None:
        keep_freed_memory()
        torch.set_num_threads(TORCH_THREADS)
        if self._ours and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def connect(
    *,
    workers: int | None = None,
    processes: int | None = None,
    scheduler: str | None = None,
    client: Client | None = None,
) -> Iterator[Client]:
    """A client; by default of a cluster of threads inside of this process.

    Parameters
    ----------
    workers
        Threads of the local cluster; as many as the process may use cores, if None.
    processes
        Spread them over so many processes: one that a damaged slide or a lack of memory ends is replaced.
    scheduler
        Address (``tcp://host:8786``) of a running scheduler, or the path of its scheduler file.
    client
        One that is there already, to be used as it is.

    Raises
    ------
    ConfigError
        The scheduler does not answer, no worker comes, or one of them has another version of this package.
    """
    if client is not None:
        yield client
    elif scheduler is not None:
        with _remote(scheduler) as client:
            yield client
    else:
        with _local(workers or CPU_COUNT, processes) as client:  # affinity and cgroup limits are respected
            yield client


@contextmanager
def a_thread_for_a_window() -> Iterator[None]:
    """`TORCH_THREADS` in this process while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(TORCH_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _local(threads: int, processes: int | None) -> Iterator[Client]:
    for name in _QUIET:  # what goes wrong reaches the user as one line of ours
        logging.getLogger(name).setLevel(logging.CRITICAL)
    told = dict(_LEAN)
    if processes:
        # One of ours that dies twice over one task will die a third time.
        told["distributed.scheduler.allowed-failures"] = 1
        # One that is not back within this time is given up for good; torch alone can take longer to import.
        told["distributed.deploy.lost-worker-timeout"] = f"{FIRST_WORKER_S}s"
    with (
        a_thread_for_a_window(),
        dask.config.set(told),
        _cluster(threads, processes) as cluster,
        Client(cluster, set_as_default=False) as client,  # the caller keeps its own scheduler
    ):
        if processes:
            register(client, Prepare(client, ours=True))
        yield client


def _cluster(threads: int, processes: int | None) -> LocalCluster:
    try:
        return LocalCluster(
            n_workers=processes or 1,
            threads_per_worker=max(threads // (processes or 1), 1),
            processes=bool(processes),
            host="127.0.0.1" if processes else None,
            # No dashboard, and its server within this machine, on any free port.
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
    except (RuntimeError, OSError) as error:
        if stopping.ASKED.is_set():  # as its processes were, by the same signal
            raise ClusterError("stopped before a worker came") from error
        if cause := _of_the_system(error):
            raise ConfigError(
                f"no worker processes can be started ({cause}); they need a folder for temporary files: "
                f"TMPDIR names another one"
            ) from error
        raise


def _of_the_system(error: BaseException | None) -> OSError | None:
    """What the system said, under errors that came of it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


class _Reached(Client):  # type: ignore[misc]  # distributed has no types
    """A client that is closed at once where there is no answer.

    Else it would be closed when it is collected, by whatever thread: one that starts an event loop then waits
    for a lock that is held until it has started.
    """

    def __init__(self, **how: object) -> None:
        try:
            super().__init__(**how)
        except BaseException:
            with suppress(Exception):  # of a half of it there is not much to close
                self.close()
            raise


@contextmanager
def _remote(scheduler: str) -> Iterator[Client]:
    address = _address(scheduler)
    try:
        with ThreadPoolExecutor(1) as aside:  # here a loop may be running, a notebook's
            aside.submit(asyncio.run, _greet(address)).result()
        client = _Reached(address=address, timeout=f"{ANSWER_S}s", set_as_default=False)
    except (OSError, TypeError, ValueError) as error:  # TypeError: one that wants TLS
        raise ConfigError(f"scheduler {scheduler!r}: no answer ({one_line(error)})") from error
    with client:
        _ensure_same_version(client)
        _wait_for_worker(client, scheduler)
        _ensure_same_version(client)
        prepare = Prepare(client)
        register(client, prepare)
        try:
            yield client
        finally:  # a worker of others need not have our package
            with suppress(ClusterError), reached(client):
                client.unregister_worker_plugin(prepare.name)


def _address(scheduler: str) -> str:
    """Of a scheduler, or in its file."""
    path = Path(scheduler)
    if path.is_file():
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{scheduler}: no scheduler file, or not written yet") from error
    if ":" not in scheduler:
        raise ConfigError(f"{scheduler}: no such file, nor an address (tcp://host:8786)")
    return scheduler


async def _greet(address: str) -> None:
    """Raise OSError where nobody answers as Dask does: a client alone would wait for ever."""
    arguments = Security().get_connection_args("client")
    comm = await asyncio.wait_for(connect_to(address, timeout=ANSWER_S, **arguments), ANSWER_S)
    try:
        await asyncio.wait_for(comm.write({"op": "identity", "n_workers": 0, "reply": True}), ANSWER_S)
        await asyncio.wait_for(comm.read(), ANSWER_S)
    finally:
        comm.abort()


def _wait_for_worker(client: Client, scheduler: str) -> None:
    end = time.monotonic() + FIRST_WORKER_S
    with reached(client):
        while not threads(client):
            if stopping.ASKED.is_set():
                raise ClusterError(f"scheduler {scheduler!r}: stopped before a worker came")
            if time.monotonic() > end:
                raise ConfigError(f"scheduler {scheduler!r}: no worker came within {FIRST_WORKER_S} s")
            time.sleep(0.1)


def _ensure_same_version(client: Client) -> None:
    """Workers run the same tasks with the same meaning, and the scheduler knows what they are."""
    with reached(client):
        found: dict[str, Any] = client.get_versions(packages=["wsi_twostage"])
    here = version("wsi-twostage")
    all_of_them = {f"worker {address}": its for address, its in found["workers"].items()}
    for who, its in {"the scheduler": found["scheduler"], **all_of_them}.items():
        there = (its or {}).get("packages", {}).get("wsi_twostage")
        if there != here:
            said = f"wsi_twostage {there}" if there else "no wsi_twostage"
            raise ConfigError(f"{who} has {said}, here it is {here}; install the same there")
