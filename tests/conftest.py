"""Small networks with a known field of view, and where the shared data is."""

import multiprocessing
import os
import signal
from pathlib import Path

import dask
import pytest
import torch
from distributed.utils import get_mp_context
from slides import pyramid, texture, write_slide
from torch import Tensor
from torch.nn import functional

from wsi_twostage.models.bundle import ModelBundle, build, save_bundle
from wsi_twostage.models.spec import BundleSpec, NetSpec

ROOT = Path(__file__).parent.parent
SVS = ROOT / "examples" / "data" / "CMU-1-Small-Region.svs"

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
torch.set_num_threads(1)  # the networks here are tiny; threads that wait for each other cost more

if "forkserver" in multiprocessing.get_all_start_methods():  # workers that import nothing start in no time
    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    get_mp_context().set_forkserver_preload(["wsi_twostage.schedule"])


@pytest.fixture(scope="session")
def data() -> Path:
    """The shared data sets; tests that want them skip where they are absent."""
    path = Path(os.environ.get("WSI_TWOSTAGE_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip("no shared data; set WSI_TWOSTAGE_DATA")
    return path


def small_spec(**changes: object) -> BundleSpec:
    """Tiles of 128 px, so that a slide of 600 px has some."""
    values: dict[str, object] = {
        "name": "small",
        "mpp": 0.5,
        "classes": ("nucleus",),
        "colours": ((255, 200, 0),),
        "tile": 128,
        "halo": 32,
        "coarse_halo": 16,
        "context_halo": 16,
        "decisions": (0.45, 0.55),
        "temperature": 1.3,
    }
    return BundleSpec(**(values | changes))  # type: ignore[arg-type]


def small_bundle(*, seed: int = 0, scale: int = 1, classes: int = 1, **changes: object) -> ModelBundle:
    """Random convolutions that see 3 px around each pixel; Model 2 looks at its context, too.

    With zeros beyond a crop they know where it ends, so a halo that is too small shows.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = 1 if classes == 1 else classes + 1
    first = torch.randn(logits * scale**2, 3, 7, 7, generator=generator)
    second = torch.randn(logits, 3, 7, 7, generator=generator)
    third = torch.randn(logits, 3, 3, 3, generator=generator)

    def f1(coarse: Tensor) -> Tensor:
        return functional.pixel_shuffle(functional.conv2d(coarse - 0.6, first, padding=3), scale)

    def f2(fine: Tensor, coarse: Tensor) -> Tensor:
        height, width = fine.shape[-2] // 4, fine.shape[-1] // 4
        top, left = (coarse.shape[-2] - height) // 2, (coarse.shape[-1] - width) // 2
        context = functional.conv2d(coarse - 0.6, third, padding=1)[
            ..., top : top + height, left : left + width
        ]
        return functional.conv2d(fine - 0.6, second, padding=3) + functional.interpolate(
            context, scale_factor=4.0
        )

    names = tuple(f"class {i + 1}" for i in range(classes))
    colours = tuple((40 * i, 255 - 40 * i, 0) for i in range(classes))
    spec = small_spec(scale=scale, classes=names, colours=colours, **changes)
    return ModelBundle(spec, f1, f2)


def constant_bundle(first: float, second: float) -> ModelBundle:
    """Logits that are the same everywhere."""

    def f1(coarse: Tensor) -> Tensor:
        return torch.full_like(coarse[:, :1], first)

    def f2(fine: Tensor, coarse: Tensor) -> Tensor:
        return torch.full_like(fine[:, :1], second)

    return ModelBundle(small_spec(decisions=(0.5, 0.5), temperature=1.0), f1, f2)


def tiny_model(path: Path) -> Path:
    """A bundle in a file: one in memory is never the same as another."""
    tiny = NetSpec((8, 8, 8, 8, 8), (1, 1, 1, 1, 1))
    tiles = {"tile": 128, "halo": 32, "coarse_halo": 32, "context_halo": 16}
    spec = BundleSpec("tiny", 0.5, ("nucleus",), ((1, 2, 3),), **tiles, coarse=tiny, fine=tiny)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        save_bundle(path, build(tiny, tiny, context=True), spec)
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in a file: one in memory is never the same as another."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny.safetensors")


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three levels; its mask has 2 x 2 shards, 324 tiles of that model."""
    return write_slide(tmp_path_factory.mktemp("slides") / "slide.tiff", pyramid(texture(2200, 2300), 3))
