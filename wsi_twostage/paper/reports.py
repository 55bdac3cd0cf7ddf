"""What an experiment came to, as one JSON file."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from wsi_twostage.drafts import whole_file
from wsi_twostage.errors import ConfigError

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
