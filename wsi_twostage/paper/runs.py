"""Where the trained stages of an experiment lie: one file for everything that decides a stage's weights.

Experiments that agree on a stage share its file; another setting, other training images or another file of
starting weights make another name.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from wsi_twostage.errors import ConfigError
from wsi_twostage.paper.datasets import Item
from wsi_twostage.paper.experiment import Experiment
from wsi_twostage.paper.networks import build_network
from wsi_twostage.paper.origin import commit, machine
from wsi_twostage.paper.weights import NAMED
from wsi_twostage.training.state import read_metadata, read_tensors, write_tensors


@dataclass(frozen=True, slots=True)
class Runs:
    """The trained stages of one experiment on certain images."""

    folder: Path
    experiment: Experiment
    images: str
    """Fingerprint of the training images."""
    start: str
    """Of the file that the networks start from; empty for none."""

    @classmethod
    def of(cls, folder: Path, experiment: Experiment, items: Sequence[Item]) -> Self:
        """For training on ``items``; ConfigError for a file of starting weights that is not there."""
        named = [[i.name, *map(_content, (i.image, *i.masks))] for i in items]
        start, path = "", Path(experiment.weights)
        if experiment.weights not in NAMED:
            if not path.is_file():
                raise ConfigError(
                    f"{experiment.name}: weights={experiment.weights}: no such file, nor {', '.join(NAMED)}"
                )
            start = _content(path)
        return cls(folder, experiment, _sha256(named), start)

    def path(self, stage: str) -> Path:
        """Of a stage's weights, whether they are there or not."""
        key = _sha256([self.experiment.decides(stage), self.images, self.start])
        name = f"{self.experiment.architecture}-{self.experiment.data}-{stage}-{key}.safetensors"
        return self.folder / "weights" / name

    def seconds(self, stage: str) -> float:
        """Wall time that the training of a stage took."""
        return float(read_metadata(self.path(stage))["seconds"])

    def origin(self, stage: str) -> dict[str, Any]:
        """The machine and the commit that trained a stage; empty for weights that do not say."""
        what = read_metadata(self.path(stage))
        return json.loads(what["origin"]) if "origin" in what else {}

    def save(self, stage: str, net: nn.Module, *, seconds: float, device: torch.device) -> None:
        """Write a stage that was trained on ``device``."""
        what = {
            "seconds": f"{seconds:.1f}",
            "experiment": json.dumps(self.experiment.decides(stage)),
            "origin": json.dumps({"machine": machine(device), "commit": commit()}),
        }
        tensors = {name: value.cpu().contiguous() for name, value in net.state_dict().items()}
        write_tensors(self.path(stage), tensors, what)

    def load(self, stage: str, device: torch.device) -> nn.Module:
        """A trained stage, in evaluation mode.

        Raises
        ------
        ConfigError
            It has not been trained.
        """
        experiment = self.experiment
        if stage == "model2" and experiment.model2 == "reference":
            stage = "reference"
        path = self.path(stage)
        if not path.exists():
            raise ConfigError(
                f"{path}: missing; train {experiment.name} first, with the same settings on the same images"
            )
        net = build_network(experiment.architecture, backbone=experiment.backbone, preset=experiment.network)
        net.load_state_dict(read_tensors(path))
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net.eval().requires_grad_(False)


def _content(path: Path) -> str:
    stat = path.stat()
    return _hashed(path, stat.st_mtime_ns, stat.st_size)


@cache  # of data sets that several experiments learn from
def _hashed(path: Path, changed: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
