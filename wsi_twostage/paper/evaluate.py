"""Test an experiment: Dice and time of the reference and of both stages."""

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsi_twostage.dice import dice, overlap
from wsi_twostage.paper import method
from wsi_twostage.paper.datasets import Parts
from wsi_twostage.paper.experiment import Experiment
from wsi_twostage.paper.images import stretch
from wsi_twostage.paper.origin import commit, machine
from wsi_twostage.paper.reports import Outcome, Report
from wsi_twostage.paper.runs import Runs
from wsi_twostage.paper.train import stages
from wsi_twostage.selection import Threshold, select

_SMOOTH = 1.0  # px, of the published Dice: an image without foreground scores 1 if nothing is predicted


class _Clock:
    """Seconds by stage, of one image."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, dict[str, float]()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@torch.inference_mode()
def evaluate_experiment(
    experiment: Experiment,
    parts: Parts,
    folder: Path,
    *,
    device: torch.device,
    repeats: int = 3,
    progress: Callable[[int], None] = lambda images: None,
) -> Report:
    """Run every way on every test image, one at a time after a warm-up, as the paper times it.

    Parameters
    ----------
    folder
        Where the trained weights are.
    progress
        Called with the number of images done.

    Raises
    ------
    ConfigError
        A stage that has not been trained.
    """
    items, trained = parts.test, Runs.of(folder, experiment, parts.train)
    reference = trained.load("reference", device)
    nets = (trained.load("model1", device), trained.load("model2", device))
    ways: list[float | None] = [None, *experiment.thresholds]
    counts = np.zeros((len(ways), len(items), 3))
    seconds: list[list[dict[str, float]]] = [[] for _ in ways]
    refined = np.zeros(len(ways))

    def run(image: Tensor, threshold: float | None) -> tuple[Tensor, float, dict[str, float]]:
        clock = _Clock(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=experiment.precision == "bf16"):
            if threshold is None:
                mask, share = _reference(reference, image, clock), 1.0
            else:
                mask, share = _two_stage(nets, image, threshold, experiment, clock)
        return mask, share, clock.seconds

    for i, item in enumerate(items):
        read = _Clock(device)
        with read("read"):
            image, truth = stretch(*item.read(), experiment.side)
            image = (image[None].float() / 255).to(device, memory_format=torch.channels_last)
        if i == 0:
            for threshold in (None, 0.0):  # warms up: refining all, so that Model 2 is met
                run(image, threshold)
        for j, threshold in enumerate(ways):
            runs = [run(image, threshold) for _ in range(repeats)]
            mask, share, _ = runs[-1]
            seconds[j].append(read.seconds | _median([spent for _, _, spent in runs]))
            wanted = truth[0] > 0
            counts[j, i] = overlap(mask, wanted)
            refined[j] += share / len(items)
        progress(i + 1)
    outcomes = [
        Outcome(threshold, *_dice(counts[j]), round(float(refined[j]), 4), _sum(seconds[j]))
        for j, threshold in enumerate(ways)
    ]
    return Report(
        experiment.described,
        {"trained": len(parts.train), "tested": len(items)},
        [item.name for item in items],
        outcomes[0],
        outcomes[1:],
        {stage: trained.seconds(stage) for stage in stages(experiment)},
        repeats,
        machine(device),
        commit(),
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        {stage: trained.origin(stage) for stage in stages(experiment)},
    )


def _reference(net: nn.Module, image: Tensor, clock: _Clock) -> Tensor:
    with clock("model 2"):
        logits = net(image).logits
    with clock("merge"):
        return _mask(logits)


def _two_stage(
    nets: tuple[nn.Module, nn.Module], image: Tensor, threshold: float, experiment: Experiment, clock: _Clock
) -> tuple[Tensor, float]:
    """Algorithm 1 on one image (1, 3, S, S): the mask (S, S), and the share of cells refined."""
    with clock("model 1"):  # line 1
        first = method.first_stage(nets[0], image, experiment)
    with clock("selection"):  # line 2
        h = method.scores(first.logits, experiment)
        chosen = select(h[0], np.ones(h[0].shape, np.bool_), Threshold(threshold)).chosen[None]
    with clock("model 2"):  # line 3
        refined = method.second_stage(nets[1], image, first, chosen, experiment) if chosen.any() else None
    with clock("merge"):
        base = method.enlarged(first.logits, experiment)
        whole = base if refined is None else method.merge(base, refined, chosen, experiment)
        return _mask(whole), float(chosen.mean())


def _mask(logits: Tensor) -> Tensor:
    return (logits[0, 0] >= 0).cpu()


def _dice(counts: Any) -> tuple[float, list[float]]:
    """Pooled and of each image, from pixels in both, predicted and true, (N, 3)."""
    each = (2 * counts[:, 0] + _SMOOTH) / (counts[:, 1] + counts[:, 2] + _SMOOTH)
    return round(dice(counts.sum(0)), 5), [round(float(value), 5) for value in each]


def _median(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {stage: float(np.median([run[stage] for run in runs])) for stage in runs[0]}


def _sum(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {stage: round(sum(run[stage] for run in runs), 4) for stage in runs[0]}
