"""Both networks of a model, loaded and timed on noise, as many windows at a time as a run has threads."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsi_twostage.doctor.finding import Finding, ok, one_line, problem
from wsi_twostage.errors import WsiError

if TYPE_CHECKING:
    from torch import Tensor

_SECONDS = 1.0  # for each network, after a first window that does not count


def examine_networks(model: Path | None, device: str) -> Finding:
    """Whether both stages load and give finite answers, and how many windows of one tile they do a second."""
    what = "networks"
    try:
        return ok(what, _timed(model, device))
    except WsiError as error:
        return problem(what, one_line(error), "give a sound --model and a --device that is there")
    except (ImportError, OSError, RuntimeError) as error:
        return problem(what, one_line(error), "install torch again, or try --device cpu")
    except ArithmeticError as error:
        return problem(what, one_line(error), "its answers cannot be trusted here; try --device cpu")


def _timed(model: Path | None, device: str) -> str:
    import torch
    from dask.system import CPU_COUNT

    from wsi_twostage.models.runner import refer, runner
    from wsi_twostage.models.unet import CONTEXT_STRIDE

    ref, spec = refer(model, device=device, precision="fp32")
    net, noise = runner(ref), np.random.default_rng(0)
    coarse, fine = spec.tile // spec.ratio + 2 * spec.coarse_halo, spec.tile + 2 * spec.halo
    context = spec.tile // CONTEXT_STRIDE + 2 * spec.context_halo
    around, first, second = (
        noise.integers(0, 256, (side, side, 3), np.uint8) for side in (context, coarse, fine)
    )
    workers = CPU_COUNT if ref.device == "cpu" else 1
    intra = torch.get_num_threads()
    torch.set_num_threads(max(CPU_COUNT // workers, 1))
    try:
        rates = [
            _rate(f"Model {number}", work, workers)
            for number, work in ((1, lambda: net.f1(first)), (2, lambda: net.f2(second, around)))
        ]
    finally:
        torch.set_num_threads(intra)
    return (
        f"{spec.name} on {ref.device}, {workers} at a time: "
        f"Model 1 {rates[0]:.3g} windows of {coarse} px a second, Model 2 {rates[1]:.3g} of {fine} px"
    )


def _rate(name: str, work: "Callable[[], Tensor]", workers: int) -> float:
    """Windows a second of all workers together.

    Raises
    ------
    ArithmeticError
        An answer is not finite.
    """
    if not work().isfinite().all():
        raise ArithmeticError(f"{name} gives numbers that are not finite")
    done, start = 0, time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        while (took := time.perf_counter() - start) < _SECONDS or not done:
            for answer in [pool.submit(work) for _ in range(workers)]:
                float(answer.result().ravel()[0])  # a GPU has done its work once a number is here
                done += 1
    return done / took
