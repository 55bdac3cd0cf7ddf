"""What is asked of a client's workers, by way of a scheduler that may have gone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, LocalCluster, WorkerPlugin
from distributed.client import ClosedClientError

from wsi_twostage.errors import ClusterError

log = logging.getLogger(__name__)


@contextmanager
def reached(client: Client) -> Iterator[None]:
    """Around what asks the scheduler by this client.

    Raises
    ------
    ClusterError
        It went away.
    """
    try:
        yield
    except (OSError, RuntimeError, AttributeError, ClosedClientError) as error:
        if isinstance(error, AttributeError) and client.scheduler is not None:
            raise  # one that has given up has no scheduler, and asks it all the same
        raise ClusterError("the scheduler went away") from error


def register(client: Client, plugin: WorkerPlugin) -> None:
    """A plugin of all workers; one that does not answer gets it with its registration, once it is back.

    Raises
    ------
    ClusterError
        The scheduler does not answer.
    """
    with reached(client):
        try:
            client.register_plugin(plugin)
        except OSError as error:  # of a worker as of the scheduler
            log.warning("a worker does not answer: %s", error)
            client.nthreads()


def is_elsewhere(client: Client | None) -> bool:
    """Whether a client's workers may be on other machines."""
    return client is not None and not isinstance(client.cluster, LocalCluster)


def threads(client: Client) -> int:
    """Tasks that run at the same time; 0 while there is no worker."""
    return sum(at_work(client).values())


def at_work(client: Client) -> dict[str, int]:
    """Threads of each worker that takes tasks; one without memory is paused, and may be so for ever."""
    found: dict[str, int] = client.run_on_scheduler(_at_work)
    return found


def _at_work(dask_scheduler: Any) -> dict[str, int]:
    return {worker.address: worker.nthreads for worker in dask_scheduler.running}


def has_gpus(client: Client) -> bool:
    """Whether some worker was started with the resource ``GPU``."""
    workers = client.scheduler_info(n_workers=-1).get("workers", {}).values()
    return any("GPU" in worker.get("resources", {}) for worker in workers)
