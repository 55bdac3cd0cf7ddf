"""Test an experiment: Dice and time of the reference and of both stages, as one JSON file."""

import datetime
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from wsi_twostage.dice import dice, overlap
from wsi_twostage.drafts import whole_file
from wsi_twostage.errors import ConfigError
from wsi_twostage.paper import method
from wsi_twostage.paper.datasets import Parts
from wsi_twostage.paper.experiment import Experiment
from wsi_twostage.paper.images import stretch
from wsi_twostage.paper.origin import commit, machine
from wsi_twostage.paper.runs import Runs
from wsi_twostage.paper.train import stages
from wsi_twostage.selection import Threshold, select

_SMOOTH = 1.0  # px, of the published Dice: an image without foreground scores 1 if nothing is predicted

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one way of segmenting the test images did."""

    threshold: float | None
    """Uncertainty from which cells were refined; None: the reference."""
    pooled: float
    """Dice of all pixels of all images, 0..1."""
    per_image: list[float]
    """Dice of each image, smoothed by a pixel as published."""
    refined: float
    """Share of the cells that Model 2 got."""
    seconds: dict[str, float]
    """By stage, over all images: the median of the repeats of each; read is not part of the paper's time."""

    @property
    def mean(self) -> float:
        """Mean of the images' Dice, what the paper reports."""
        return float(np.mean(self.per_image))

    @property
    def time(self) -> float:
        """Seconds without reading."""
        return sum(value for key, value in self.seconds.items() if key != "read")


@dataclass(frozen=True, slots=True)
class Report:
    """Everything about one experiment that a table or a reader needs."""

    experiment: dict[str, Any]
    images: dict[str, int]
    """Trained and tested on."""
    names: list[str]
    """Of the test images, in the order of the outcomes' Dice."""
    reference: Outcome
    two_stage: list[Outcome]
    """One for each threshold."""
    training: dict[str, float]
    """Seconds by stage."""
    repeats: int
    machine: dict[str, Any] = field(default_factory=dict)
    """Of the test, as is the commit."""
    commit: str = ""
    date: str = ""
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each trained stage: the machine and the commit."""

    @property
    def name(self) -> str:
        return str(self.experiment["name"])


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


def report_path(described: dict[str, Any], folder: Path) -> Path:
    """Where the report of an experiment goes, which is named after it.

    Raises
    ------
    ConfigError
        The file is there and holds the report of other settings.
    """
    path = folder / f"{described['name']}.json"
    if path.exists() and read_report(path).experiment != json.loads(json.dumps(described)):
        raise ConfigError(f"{path} is the report of other settings; give the experiment another name=")
    return path


def write_report(report: Report, folder: Path) -> Path:
    """One JSON file at its `report_path`; it appears whole or not at all."""
    path = report_path(report.experiment, folder)
    write_json(path, asdict(report))
    return path


def write_json(path: Path, content: dict[str, Any]) -> None:
    """The file appears whole or not at all."""
    with whole_file(path) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path, make: Callable[[dict[str, Any]], Made], what: str) -> Made:
    """What `write_json` wrote, as ``make`` has it; ConfigError where it is not ``what``."""
    try:
        return make(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not {what} ({error!r})") from error


_NEEDED = {
    "experiment": {"name", "data", "architecture", "seed"},
    "images": {"trained", "tested"},
    "training": {"reference", "model1"},
    "machine": {"device", "threads", "torch"},
}
"""What a table wants of a report."""


def read_report(path: Path) -> Report:
    """What `write_report` wrote.

    Raises
    ------
    ConfigError
        Not such a file.
    """

    def make(content: dict[str, Any]) -> Report:
        outcomes = [Outcome(**outcome) for outcome in content["two_stage"]]
        report = Report(**{**content, "reference": Outcome(**content["reference"]), "two_stage": outcomes})
        for part, names in _NEEDED.items():
            if lacking := sorted(names - getattr(report, part).keys()):
                raise ValueError(f"{part} lacks {' and '.join(lacking)}")
        if not all(outcome.per_image for outcome in (report.reference, *outcomes)):
            raise ValueError("no image was tested")
        return report

    return read_json(path, make, "the report of an experiment")
