"""Tasks on this machine, and on workers in processes of their own."""

import gc
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import dask
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster
from distributed.client import ClosedClientError
from slides import texture, write_slide

from wsi_twostage import cluster, stopping
from wsi_twostage.errors import ClusterError, ConfigError
from wsi_twostage.models import runner
from wsi_twostage.models.bundle import build, save_bundle
from wsi_twostage.models.spec import BundleSpec, NetSpec
from wsi_twostage.pipeline import segment
from wsi_twostage.selection import Fraction
from wsi_twostage.settings import Settings


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:1", "what://ever"])
def test_a_scheduler_that_does_not_answer_is_one_clear_line(address: str) -> None:
    with pytest.raises(ConfigError, match="no answer") as kept, cluster.connect(scheduler=address):
        pass
    clients = [found for found in gc.get_objects() if issubclass(type(found), Client)]
    assert clients, kept  # in the error's traceback
    assert {client.status for client in clients} <= {"closed", "newly-created"}


def test_whoever_waits_for_the_first_worker_hears_a_stop() -> None:
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as nobody:
        asking = threading.Timer(0.5, stopping.ASKED.set)
        asking.start()
        try:
            with (
                pytest.raises(ClusterError, match="stopped before a worker came"),
                cluster.connect(scheduler=nobody.scheduler_address),
            ):
                pass
        finally:
            stopping.ASKED.clear()


def test_a_worker_of_ours_that_is_long_in_coming_back_is_waited_for() -> None:
    """Dask gives up one that is not back within a time; torch alone can take longer to import."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1ms"}),
        cluster.connect(workers=1, processes=1) as client,
    ):
        (first,) = client.run(os.getpid).values()
        os.kill(first, signal.SIGKILL)
        patience, second = time.monotonic() + 120, first
        while second == first and time.monotonic() < patience:
            time.sleep(0.1)
            second = next(iter(client.run(os.getpid, on_error="ignore").values()), first)
        assert second != first


def test_networks_run_where_the_gpus_are(tmp_path: Path, model: Path, slide: Path) -> None:
    """Of two workers one says that it has a GPU; here it computes on its CPU like the other."""
    far = {"GPU": {"GPU": 1}, "none": {}}
    spec = {
        name: {"cls": Nanny, "options": {"nthreads": 1, "resources": resources}}
        for name, resources in far.items()
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "port": 0}}
    chosen = {"bundle": model, "rule": Fraction(0.1)}
    everywhere = Settings(tissue="none")
    with (
        SpecCluster(spec, scheduler, silence_logs=50) as workers,
        Client(workers, set_as_default=False) as us,
    ):
        result = segment(slide, tmp_path / "far.zarr", settings=everywhere, client=us, **chosen)
        loaded = us.run(networks_loaded)
        names = {address: its["name"] for address, its in us.scheduler_info(n_workers=-1)["workers"].items()}
    assert {names[address]: count for address, count in loaded.items()} == {"GPU": 1, "none": 0}
    here = segment(slide, tmp_path / "here.zarr", settings=replace(everywhere, workers=1), **chosen)
    np.testing.assert_array_equal(result.store.lazy().compute(), here.store.lazy().compute())


def networks_loaded() -> int:
    return runner._runner.cache_info().currsize


def test_workers_in_other_processes_give_the_same_result(tmp_path: Path) -> None:
    tiny = NetSpec((8, 8, 8, 8, 8), (1, 1, 1, 1, 1))
    model = tmp_path / "tiny.safetensors"
    spec = BundleSpec("tiny", 0.5, ("nucleus",), ((1, 2, 3),), tile=128, coarse=tiny, fine=tiny)
    save_bundle(model, build(tiny, tiny, context=True), spec)
    slide = write_slide(tmp_path / "slide.tiff", [texture(2100, 2200)])
    stores = [
        segment(
            slide,
            tmp_path / "local.zarr",
            bundle=model,
            rule=Fraction(0.1),
            settings=Settings(tissue="none", workers=1),
        ).store
    ]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as workers:
        settings = Settings(tissue="none", scheduler=workers.scheduler_address)
        stores.append(
            segment(slide, tmp_path / "far.zarr", bundle=model, rule=Fraction(0.1), settings=settings).store
        )
    for level in range(stores[0].levels):
        one, two = (store.lazy(level).compute() for store in stores)
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("count", [1, 2])
def test_a_window_has_one_thread_whatever_the_number_of_workers(count: int) -> None:
    """With more, sums would be rounded in another order, and bytes depend on the number of workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with cluster.connect(workers=count) as client:
            assert client.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 2
        with (
            LocalCluster(
                n_workers=1, threads_per_worker=count, processes=False, dashboard_address="127.0.0.1:0"
            ) as workers,
            Client(workers, set_as_default=False) as client,
        ):
            client.register_plugin(cluster.Prepare())
            assert client.submit(torch.get_num_threads).result() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("error", [OSError, RuntimeError, AttributeError, ClosedClientError])
def test_a_client_that_has_given_up_tells_of_no_scheduler(error: type[Exception]) -> None:
    """Some of its methods then ask None."""
    with pytest.raises(ClusterError, match="scheduler went away"), cluster.reached(Mock(scheduler=None)):
        raise error


def test_a_plugin_is_registered_though_a_worker_does_not_answer() -> None:
    client = Mock(register_plugin=Mock(side_effect=OSError("timed out")))
    cluster.register(client, cluster.Prepare())
    client.nthreads.side_effect = OSError
    with pytest.raises(ClusterError, match="scheduler went away"):
        cluster.register(client, cluster.Prepare())


def test_a_slip_of_ours_is_no_scheduler_that_went_away() -> None:
    with pytest.raises(AttributeError), cluster.reached(Mock()):
        raise AttributeError
