"""The curve of trained experiments on their test images, the networks alone: reading is not counted."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_twostage.curves.curve import FRACTIONS, Cells, Curve, gathered, highest, lines_of
from wsi_twostage.dice import dice, overlap
from wsi_twostage.errors import ConfigError
from wsi_twostage.paper import method
from wsi_twostage.paper.datasets import Item, Parts
from wsi_twostage.paper.experiment import Experiment
from wsi_twostage.paper.images import stretch
from wsi_twostage.paper.origin import commit, machine
from wsi_twostage.paper.runs import Runs


class _Tested(NamedTuple):
    """A test image."""

    split_seed: int
    """Of the split whose networks have not seen it."""
    pixels: Tensor  # (3, S, S), uint8
    truth: Tensor  # (S, S), bool


@torch.inference_mode()
def measure_experiments(
    experiments: Sequence[Experiment],
    splits: Mapping[int, Parts],
    folder: Path,
    *,
    device: torch.device,
    repeats: int = 3,
    progress: Callable[[str, int], None] = lambda name, images: None,
) -> Curve:
    """Run every experiment on every test image; the first one's reference is everyone's measure.

    Parameters
    ----------
    splits
        The images by their ``split_seed``, which replaces that of the experiments: each is tested with the
        networks of its split, and all are counted together.
    folder
        Where the trained weights are.
    progress
        Called with the experiment's name and the number of images done.

    Raises
    ------
    ConfigError
        Experiments on different images or of one name, splits with the same test images (a data set's own),
        or a stage that has not been trained.
    """
    first = experiments[0]
    if len({(e.data, e.side, e.split_seed) for e in experiments}) > 1:
        raise ConfigError("the lines of one picture must be on the same images: data, side, split_seed")
    if len({e.name for e in experiments}) < len(experiments):
        raise ConfigError("two experiments of one name; their lines could not be told apart")
    if len({parts.test for parts in splits.values()}) < len(splits):
        raise ConfigError(f"{first.data}: several splits test the same images; give one seed")

    def trained(experiment: Experiment, *stages: str) -> dict[int, list[nn.Module]]:
        """The networks of each split."""
        runs = {
            seed: Runs.of(folder, replace(experiment, split_seed=seed), parts.train)
            for seed, parts in splits.items()
        }
        return {seed: [run.load(stage, device) for stage in stages] for seed, run in runs.items()}

    cases = [_read(seed, item, first.side) for seed, parts in splits.items() for item in parts.test]
    references, masks, spent = trained(first, "reference"), [], 0.0
    for case in cases:
        (reference,), image = references[case.split_seed], _input(case.pixels, device)
        with _autocast(first, device):
            seconds, logits = _timed(lambda: reference(image).logits, repeats, device)  # noqa: B023
        spent += seconds
        masks.append((logits[0, 0] >= 0).cpu())
    found = sum((overlap(m, case.truth) for m, case in zip(masks, cases, strict=True)), np.zeros(3))
    reference_dice = dice(found)
    lines = []
    for experiment in experiments:
        networks = trained(experiment, "model1", "model2")
        seen, costs = [], np.zeros(len(FRACTIONS))
        with _autocast(experiment, device):
            for i, case in enumerate(cases):
                image, stages = _input(case.pixels, device), networks[case.split_seed]
                seen.append(_look(stages, image, (case.truth, masks[i]), experiment))
                progress(experiment.name, i + 1)
            cells = gathered(seen)
            chosen = [highest(cells.scores, fraction) for fraction in FRACTIONS]
            for i, case in enumerate(cases):
                image, stages = _input(case.pixels, device), networks[case.split_seed]
                for j, cut in enumerate(chosen):
                    mine = cut.reshape(len(cases), 1, experiment.ratio, experiment.ratio)[i]
                    work = partial(_two_stage, stages, image, mine, experiment)
                    costs[j] += _timed(work, repeats, device)[0]
        costs_of = (costs / spent).tolist()
        lines += lines_of(experiment.name, cells, costs_of, reference_dice=reference_dice)
    return Curve(
        first.data,
        len(cases),
        reference_dice,
        lines,
        [replace(e, split_seed=seed).described for e in experiments for seed in splits],
        machine(device),
        commit(),
    )


def _read(split_seed: int, item: Item, side: int) -> _Tested:
    pixels, truth = stretch(*item.read(), side)
    return _Tested(split_seed, pixels, truth[0] > 0)


def _input(pixels: Tensor, device: torch.device) -> Tensor:
    return (pixels[None].float() / 255).to(device, memory_format=torch.channels_last)


def _autocast(experiment: Experiment, device: torch.device) -> Any:
    return torch.autocast(device.type, torch.bfloat16, enabled=experiment.precision == "bf16")


def _timed(work: Callable[[], Tensor], repeats: int, device: torch.device) -> tuple[float, Tensor]:
    """Median seconds of some repeats, after one that does not count, and what came out."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:])), result


def _two_stage(
    stages: Sequence[nn.Module], image: Tensor, chosen: NDArray[np.bool_], experiment: Experiment
) -> Tensor:
    """Algorithm 1 with the choice made, for its time: (1, 1, S, S) logits."""
    first = method.first_stage(stages[0], image, experiment)
    base = method.enlarged(first.logits, experiment)
    if not chosen.any():
        return base
    method.scores(first.logits, experiment)
    refined = method.second_stage(stages[1], image, first, chosen, experiment)
    return method.merge(base, refined, chosen, experiment)


def _look(
    stages: Sequence[nn.Module], image: Tensor, targets: tuple[Tensor, Tensor], experiment: Experiment
) -> Cells:
    first = method.first_stage(stages[0], image, experiment)
    every = np.ones((1, experiment.ratio, experiment.ratio), np.bool_)
    base = method.enlarged(first.logits, experiment)
    refined = method.second_stage(stages[1], image, first, every, experiment)
    answers = (base, method.merge(base, refined, every, experiment))
    counts = np.zeros((experiment.patches, 2, 2, 3))
    for m, logits in enumerate(answers):
        parts = method.cells((logits >= 0).cpu(), cell=experiment.cell, halo=0)[0].flatten(0, 1)
        for t, target in enumerate(targets):
            wanted = method.cells(target[None, None], cell=experiment.cell, halo=0)[0].flatten(0, 1)
            counts[:, m, t] = [overlap(a, b) for a, b in zip(parts, wanted, strict=True)]
    return Cells(method.scores(first.logits, experiment).ravel(), counts)
