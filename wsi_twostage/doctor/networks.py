"""Both networks of a model, loaded and timed on noise, as many windows at a time as a run has threads."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsi_twostage.doctor.finding import Finding, note, ok, problem
from wsi_twostage.errors import WsiError, one_line

if TYPE_CHECKING:
    from torch import Tensor

_SECONDS = 1.0  # for each network, after a first window that does not count
_WORTH = 1.3
"""Times as fast as in 32 bits, from which 16 are worth a word."""


@dataclass(frozen=True, slots=True)
class _Speed:
    """What was timed, and windows of one tile a second, by Model 1 and by Model 2."""

    name: str
    device: str
    workers: int
    sides: tuple[int, int]  # px of a window
    rates: tuple[float, float]


def examine_networks(model: Path | None, device: str) -> Iterator[Finding]:
    """Whether both stages load and give finite answers, how fast they are, and whether 16 bits are faster."""
    what = "networks"
    try:
        speed = _time(model, device, "fp32")
    except WsiError as error:
        yield problem(what, one_line(error), "give a sound --model and a --device that is there")
    except (ImportError, OSError, RuntimeError) as error:
        yield problem(what, one_line(error), "install torch again, or try --device cpu")
    except ArithmeticError as error:
        yield problem(what, one_line(error), "its answers cannot be trusted here; try --device cpu")
    else:
        (coarse, fine), (first, second) = speed.sides, speed.rates
        yield ok(
            what,
            f"{speed.name} on {speed.device}, {speed.workers} at a time: "
            f"Model 1 {first:.3g} windows of {coarse} px a second, Model 2 {second:.3g} of {fine} px",
        )
        yield from _compare(speed, model, device)


def _compare(speed: _Speed, model: Path | None, device: str) -> Iterator[Finding]:
    """A word about 16 bits, where the model and the device can have them and are faster for it."""
    with suppress(WsiError, RuntimeError, ArithmeticError):
        times = _time(model, device, "bf16").rates[1] / speed.rates[1]
        if times > _WORTH:
            yield note(
                "precision",
                f"Model 2 is {times:.1f} times as fast in bf16 as in fp32, which is the default",
                "--precision bf16, where masks need not be those of other machines to the pixel",
            )


def _time(model: Path | None, device: str, precision: str) -> _Speed:
    from dask.system import CPU_COUNT

    from wsi_twostage.cluster import a_thread_for_a_window
    from wsi_twostage.models.runner import refer, runner
    from wsi_twostage.models.spec import CONTEXT_STRIDE

    ref, spec = refer(model, device=device, precision=precision)
    net, noise = runner(ref), np.random.default_rng(0)
    coarse, fine = spec.tile // spec.ratio + 2 * spec.coarse_halo, spec.tile + 2 * spec.halo
    context = spec.tile // CONTEXT_STRIDE + 2 * spec.context_halo
    around, first, second = (
        noise.integers(0, 256, (side, side, 3), np.uint8) for side in (context, coarse, fine)
    )
    workers = CPU_COUNT if ref.device == "cpu" else 1
    with a_thread_for_a_window():
        rates = (
            _rate("Model 1", lambda: net.f1(first), workers),
            _rate("Model 2", lambda: net.f2(second, around), workers),
        )
    return _Speed(spec.name, ref.device, workers, (coarse, fine), rates)


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
