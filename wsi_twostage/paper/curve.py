"""Dice over time: what each way of spending it reaches, relative to the full-resolution reference.

The lines: a two-stage experiment at rising shares of refined cells, the same with the cells that an oracle
would choose, and with cells drawn at random; its first point is Model 1 alone, which is the same network run
uniformly at a lower resolution.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_twostage.errors import ConfigError
from wsi_twostage.paper import method
from wsi_twostage.paper.datasets import Parts
from wsi_twostage.paper.evaluate import commit, machine, write_json
from wsi_twostage.paper.experiment import Experiment
from wsi_twostage.paper.images import stretch
from wsi_twostage.paper.runs import Runs

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Point:
    """One way to segment the test images."""

    refined: float
    """Share of the cells, 0..1."""
    cost: float
    """Time, 1 is the reference's."""
    dice: float
    """Pooled, against the truth, 0..1."""
    agreement: float
    """Pooled Dice against the reference, 0..1."""


@dataclass(frozen=True, slots=True)
class Line:
    """Points of one kind, with rising cost."""

    name: str
    points: list[Point]


@dataclass(frozen=True, slots=True)
class Curve:
    """A picture's lines, and how they were measured."""

    data: str
    images: int
    reference_dice: float
    lines: list[Line]
    settings: list[dict[str, Any]]
    machine: dict[str, Any]
    commit: str


@dataclass(frozen=True, eq=False)
class _Seen:
    """One image under one experiment: what the cells' answers share with truth and reference."""

    scores: NDArray[np.float32]  # (cells,)
    counts: Counts  # (cells, 2 models, 2 targets, 3): pixels in both, predicted, in the target


@torch.inference_mode()
def measure_curve(
    experiments: Sequence[Experiment],
    parts: Parts,
    folder: Path,
    *,
    device: torch.device,
    repeats: int = 3,
    progress: Callable[[str, int], None] = lambda name, images: None,
) -> Curve:
    """Run every experiment on every test image; the first one's reference is everyone's measure.

    Parameters
    ----------
    folder
        Where the trained weights are.
    progress
        Called with the experiment's name and the number of images done.

    Raises
    ------
    ConfigError
        Experiments on different images, or a stage that has not been trained.
    """
    first, items = experiments[0], parts.test
    if len({(e.data, e.side, e.split_seed) for e in experiments}) > 1:
        raise ConfigError("the lines of one picture must be on the same images: data, side, split_seed")
    reference = Runs.of(folder, first, parts.train).load("reference", device)
    read = [stretch(*item.read(), first.side) for item in items]
    truths, masks, spent = [truth[0] > 0 for _, truth in read], [], 0.0
    for pixels, _ in read:
        image = _input(pixels, device)
        with _autocast(first, device):
            seconds, logits = _timed(lambda: reference(image).logits, repeats, device)  # noqa: B023
        spent += seconds
        masks.append((logits[0, 0] >= 0).cpu())
    reference_dice = _dice(sum((_overlap(m, t) for m, t in zip(masks, truths, strict=True)), np.zeros(3)))
    lines = []
    for experiment in experiments:
        trained = Runs.of(folder, experiment, parts.train)
        stages = [trained.load(stage, device) for stage in ("model1", "model2")]
        seen, costs = [], np.zeros(len(FRACTIONS))
        with _autocast(experiment, device):
            for i, (pixels, _) in enumerate(read):
                seen.append(_look(stages, _input(pixels, device), (truths[i], masks[i]), experiment))
                progress(experiment.name, i + 1)
            chosen = _chosen(np.concatenate([s.scores for s in seen]), FRACTIONS)
            for i, (pixels, _) in enumerate(read):
                image = _input(pixels, device)
                for j, cut in enumerate(chosen):
                    mine = cut.reshape(len(read), 1, experiment.ratio, experiment.ratio)[i]
                    work = partial(_two_stage, stages, image, mine, experiment)
                    costs[j] += _timed(work, repeats, device)[0]
        lines += _lines(experiment.name, seen, costs / spent, reference_dice)
    return Curve(
        first.data,
        len(items),
        reference_dice,
        lines,
        [e.described for e in experiments],
        machine(device),
        commit(),
    )


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
) -> _Seen:
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
            counts[:, m, t] = [_overlap(a, b) for a, b in zip(parts, wanted, strict=True)]
    return _Seen(method.scores(first.logits, experiment).ravel(), counts)


def _lines(name: str, seen: Sequence[_Seen], costs: Counts, dice: float) -> list[Line]:
    scores = np.concatenate([s.scores for s in seen])
    counts = np.concatenate([s.counts for s in seen])
    change = counts[:, 1] - counts[:, 0]  # (cells, targets, 3)
    level = np.array([dice, 1.0])  # of the reference, against the truth and against itself
    gains = 2 * change[..., 0] - level * change[..., 1]  # derivative of 2 I / (P + T), times P + T
    chance = np.random.RandomState(0).rand(len(scores))
    ways = {  # the order for each target
        name: (scores, scores),
        f"{name}, oracle": (gains[:, 0], gains[:, 1]),
        f"{name}, random": (chance, chance),
    }
    lines = []
    for way, orders in ways.items():
        reached = [_reached(counts[:, :, t], order) for t, order in enumerate(orders)]
        lines.append(
            Line(
                way,
                [Point(*values) for values in zip(FRACTIONS, costs.round(4).tolist(), *reached, strict=True)],
            )
        )
    return lines


def _reached(counts: Counts, order: NDArray[Any]) -> list[float]:
    """Dice at each fraction, from (cells, models, 3)."""
    return [
        round(_dice(np.where(chosen[:, None], counts[:, 1], counts[:, 0]).sum(0)), 5)
        for chosen in _chosen(order, FRACTIONS)
    ]


def _chosen(order: NDArray[Any], fractions: Sequence[float]) -> list[NDArray[np.bool_]]:
    """The highest share of the cells, over all images, for each fraction."""
    rank = np.empty(len(order), np.int64)
    rank[np.argsort(-order, kind="stable")] = np.arange(len(order))
    return [rank < round(fraction * len(order)) for fraction in fractions]


def _overlap(mask: Tensor, target: Tensor) -> Counts:
    return np.array([int((mask & target).sum()), int(mask.sum()), int(target.sum())], np.float64)


def _dice(counts: Counts) -> float:
    both, predicted, truth = counts
    return float(2 * both / (predicted + truth)) if predicted + truth else 1.0


def write_curve(curve: Curve, path: Path) -> None:
    """As JSON; it appears whole or not at all."""
    write_json(path, asdict(curve))


def read_curve(path: Path) -> Curve:
    """What `write_curve` wrote.

    Raises
    ------
    ConfigError
        Not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["lines"] = [
            Line(line["name"], [Point(**point) for point in line["points"]]) for line in content["lines"]
        ]
        return Curve(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a curve ({error!r})") from error
