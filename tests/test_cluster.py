"""Tasks on this machine, and on workers in processes of their own."""

import asyncio
import gc
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from importlib.metadata import version
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
from wsi_twostage.workers import reached, register


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "what://ever", "tcp://nonsense"])
def test_a_scheduler_that_does_not_answer_is_one_clear_line(address: str) -> None:
    with pytest.raises(ConfigError, match="no answer"), cluster.connect(scheduler=address):
        pass


def test_a_client_without_an_answer_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once it is collected, by whatever thread."""
    monkeypatch.setattr(cluster, "_greet", Mock(side_effect=lambda address: asyncio.sleep(0)))
    with (
        pytest.raises(ConfigError, match="no answer") as kept,
        cluster.connect(scheduler="tcp://127.0.0.1:1"),
    ):
        pass
    clients = [found for found in gc.get_objects() if issubclass(type(found), Client)]
    assert clients, kept  # in the error's traceback
    assert {client.status for client in clients} <= {"closed", "newly-created"}


def test_a_port_that_says_nothing_is_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped port, a tunnel without an end; also where an event loop is running, as in a notebook."""
    monkeypatch.setattr(cluster, "ANSWER_S", 0.5)

    async def inside() -> None:
        with cluster.connect(scheduler=address):
            pass

    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(ConfigError, match="no answer"):
            asyncio.run(inside())


@pytest.mark.parametrize("content", ["", "{}", "[]", "no JSON", None])
def test_what_is_no_scheduler_file_is_one_clear_line(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "scheduler.json"
    if content is not None:
        path.write_text(content)
    message = "no such file, nor an address" if content is None else "no scheduler file, or not written yet"
    with (
        pytest.raises(ConfigError, match=rf"scheduler\.json: {message}"),
        cluster.connect(scheduler=str(path)),
    ):
        pass


def test_a_certificate_that_is_not_there_is_one_clear_line() -> None:
    told = {"distributed.comm.require-encryption": True, "distributed.comm.tls.client.cert": "/nosuch.pem"}
    with (
        dask.config.set(told),
        pytest.raises(ConfigError, match="no answer"),
        cluster.connect(scheduler="tls://127.0.0.1:1"),
    ):
        pass


@pytest.mark.parametrize("who", ["scheduler", "worker"])
@pytest.mark.parametrize("has", [{}, {"wsi_twostage": "0.0.1"}])
def test_all_of_a_cluster_have_this_package(who: str, has: dict[str, str]) -> None:
    good = {"packages": {"wsi_twostage": version("wsi-twostage")}}
    found = {"scheduler": good, "workers": {"tcp://1:1": good}}
    found |= (
        {"scheduler": {"packages": has}}
        if who == "scheduler"
        else {"workers": {"tcp://1:1": {"packages": has}}}
    )
    with pytest.raises(ConfigError, match=f"{who}.* has .*wsi_twostage.*; install the same there"):
        cluster._ensure_same_version(Mock(get_versions=lambda packages: found))


def test_a_cluster_keeps_nothing_of_a_run_that_is_over() -> None:
    with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as workers:
        with cluster.connect(scheduler=workers.scheduler_address):
            assert any("wsi-twostage" in name for name in workers.scheduler.worker_plugins)
        assert not any("wsi-twostage" in name for name in workers.scheduler.worker_plugins)


def test_without_a_place_for_temporary_files_there_are_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**how: object) -> None:
        try:
            raise OSError(30, "Read-only file system")
        except OSError as error:
            raise RuntimeError("Nanny failed to start.") from error

    monkeypatch.setattr(cluster, "LocalCluster", fail)
    with pytest.raises(ConfigError, match=r"Read-only file system.*TMPDIR"), cluster.connect(processes=1):
        pass


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
            client.register_plugin(cluster.Prepare(client))
            assert client.submit(torch.get_num_threads).result() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("error", [OSError, RuntimeError, AttributeError, ClosedClientError])
def test_a_client_that_has_given_up_tells_of_no_scheduler(error: type[Exception]) -> None:
    """Some of its methods then ask None."""
    with pytest.raises(ClusterError, match="scheduler went away"), reached(Mock(scheduler=None)):
        raise error


def test_a_plugin_is_registered_though_a_worker_does_not_answer() -> None:
    client = Mock(register_plugin=Mock(side_effect=OSError("timed out")))
    register(client, cluster.Prepare(client))
    client.nthreads.side_effect = OSError
    with pytest.raises(ClusterError, match="scheduler went away"):
        register(client, cluster.Prepare(client))


def test_a_slip_of_ours_is_no_scheduler_that_went_away() -> None:
    with pytest.raises(AttributeError), reached(Mock()):
        raise AttributeError
