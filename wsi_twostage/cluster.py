"""Where tasks run: this machine by default, any Dask scheduler by address; one code path for both."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Worker, WorkerPlugin, as_completed
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from wsi_twostage.errors import ClusterError, ConfigError
from wsi_twostage.memory import keep_freed_memory

AHEAD = 2  # tasks in flight per thread: one runs, one waits
PATIENCE_S = 60  # for the first worker of a scheduler

_QUIET = ("distributed", "distributed.worker", "distributed.worker.state_machine", "distributed.scheduler")


@dataclass(frozen=True)
class Call:
    """A task: a function and its arguments, all of them small."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Prepare(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Each worker's tasks share the cores that it may use; torch alone would take all of them for each."""

    name = "wsi-twostage-prepare"

    def setup(self, worker: Worker) -> None:
        keep_freed_memory()
        torch.set_num_threads(max(CPU_COUNT // worker.state.nthreads, 1))


@contextmanager
def connect(*, workers: int | None = None, scheduler: str | None = None) -> Iterator[Client]:
    """A client; by default of a cluster of threads inside of this process.

    Parameters
    ----------
    workers
        Threads of the local cluster; as many as the process may use cores, if None.
    scheduler
        Address (``tcp://host:8786``) of a running scheduler, or the path of its scheduler file.

    Raises
    ------
    ConfigError
        The scheduler does not answer, or no worker comes.
    """
    if scheduler is not None:
        with _remote(scheduler) as client:
            yield client
        return
    threads = workers or CPU_COUNT  # affinity and cgroup limits are respected
    intra = torch.get_num_threads()
    torch.set_num_threads(max(CPU_COUNT // threads, 1))  # one window a thread beats all threads on one
    for name in _QUIET:  # what goes wrong reaches the user as one line of ours
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with (
            LocalCluster(
                n_workers=1,
                threads_per_worker=threads,
                processes=False,
                # No dashboard, and its server within this machine, on any free port.
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster, set_as_default=False) as client,  # the caller keeps its own scheduler
        ):
            yield client
    finally:
        torch.set_num_threads(intra)


@contextmanager
def _remote(scheduler: str) -> Iterator[Client]:
    place = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    try:
        client = Client(**place, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"scheduler {scheduler!r}: no answer ({error})") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE_S)
        except TimeoutError as error:
            raise ConfigError(f"scheduler {scheduler!r}: no worker came within {PATIENCE_S} s") from error
        client.register_plugin(Prepare())
        yield client


def threads(client: Client) -> int:
    """Tasks that run at the same time."""
    return max(int(sum(client.nthreads().values())), 1)


def run(
    client: Client,
    calls: Iterable[Call],
    *,
    then: Callable[[Any], Iterable[Call]] = lambda result: (),
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Any, None, None]:
    """Run calls with few in flight, and yield results as they come.

    ``then`` may name more calls that a result makes possible. Once ``stop`` says so no more are begun, but
    for these; what is at work is waited for. Closing the iterator cancels what is left.

    Raises
    ------
    ClusterError
        The scheduler went away, or a task ended its worker again and again.
    """
    ready, queue = iter(calls), as_completed(loop=client.loop)
    in_flight = 0

    def submit(some: Iterable[Call]) -> None:
        nonlocal in_flight
        for call in some:
            queue.add(client.submit(call.function, *call.arguments, pure=False))
            in_flight += 1

    def top_up() -> None:
        """Also when workers came since the last time."""
        if stop():
            return
        room = AHEAD * threads(client) - in_flight
        submit(call for _, call in zip(range(room), ready, strict=False))

    try:
        top_up()
        while in_flight:
            future = next(queue)
            in_flight -= 1
            result = future.result()
            future.release()
            submit(then(result))
            top_up()
            yield result
    except (FutureCancelledError, KilledWorker, CommClosedError) as error:
        raise ClusterError(f"the cluster lost a task ({type(error).__name__}: {error})") from error
    finally:
        client.cancel(list(queue.futures))
