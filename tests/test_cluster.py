"""Tasks on this machine, and on workers in processes of their own."""

from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster
from slides import texture, write_slide

from wsi_twostage import cluster
from wsi_twostage.errors import ConfigError
from wsi_twostage.models.bundle import BundleSpec, NetSpec, build, save_bundle
from wsi_twostage.pipeline import Settings, segment
from wsi_twostage.selection import Fraction


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
