"""Tasks on this machine, and on workers in processes of their own."""

from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster
from slides import texture, write_slide

from wsi_twostage import cluster
from wsi_twostage.cluster import Call
from wsi_twostage.errors import ConfigError
from wsi_twostage.models.bundle import BundleSpec, NetSpec, build, save_bundle
from wsi_twostage.pipeline import Settings, segment
from wsi_twostage.selection import Fraction


def double(x: int) -> int:
    return 2 * x


def fail(x: int) -> int:
    raise ValueError(x)


def test_every_call_gives_its_result_once() -> None:
    with cluster.connect(workers=2) as client:
        results = cluster.run(client, (Call(double, (i,)) for i in range(50)))
        assert sorted(results) == [2 * i for i in range(50)]


def test_a_result_may_name_more_calls() -> None:
    with cluster.connect(workers=2) as client:
        calls = [Call(double, (1,)), Call(double, (100,))]
        results = cluster.run(client, calls, then=lambda x: [Call(double, (x,))] if x < 100 else [])
        assert sorted(results) == [2, 4, 8, 16, 32, 64, 128, 200]


def test_a_bug_in_a_task_keeps_its_error() -> None:
    with cluster.connect(workers=1) as client, pytest.raises(ValueError, match="7"):
        list(cluster.run(client, [Call(fail, (7,))]))


def test_few_calls_are_in_flight() -> None:
    taken: list[int] = []

    def calls() -> object:
        for i in range(100):
            taken.append(i)
            yield Call(double, (i,))

    with cluster.connect(workers=1) as client:
        results = cluster.run(client, calls())  # type: ignore[arg-type]
        next(results)
        assert len(taken) <= 2 * cluster.AHEAD
        results.close()


def test_a_scheduler_that_does_not_answer_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="no answer"), cluster.connect(scheduler="nonsense"):
        pass


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
