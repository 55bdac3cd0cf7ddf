"""What one experiment is: its data, networks, method and training."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsi_twostage.errors import ConfigError, did_you_mean
from wsi_twostage.paper.backbones import BACKBONES
from wsi_twostage.paper.datasets import DATASETS
from wsi_twostage.paper.networks import ARCHITECTURES, PRESETS
from wsi_twostage.training.config import SEEDS
from wsi_twostage.uncertainty import UNCERTAINTIES

STAGES = ("reference", "model1", "model2")
_OF_STAGE_2 = frozenset({"uncertainty", "selection", "model2", "context", "halo", "upsampling", "distil"})
_NEVER_TRAINED = frozenset({"name", "thresholds"})
_LATER = {"model1_epochs": 0, "average": 0.0, "colour": 0.0, "zoom": 1.0}
"""Fields that came later, and what training did before: that value is not in the key of a stage."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """The defaults are the paper's (Section 4.2), where it is silent those of its published code."""

    name: str
    data: str
    architecture: str = "deeplab"
    backbone: str = "resnet50"
    network: str = "paper"
    """Which build of the architecture: that of the paper or ours (`networks`)."""
    weights: str = "imagenet"
    """What the networks start from: random, imagenet, coco, or a file."""
    side: int = 768
    """Images are stretched to this many px a side."""
    patches: int = 16
    """Cells of the image; Model 1 sees it smaller by the square root of this."""
    uncertainty: str = "margin"
    selection: str = "weighted"
    """How Model 2's training draws its cell: random, weighted, highest (Section 3.1)."""
    thresholds: tuple[float, ...] = (0.25,)
    """Uncertainties from which a cell is refined, each a result of its own."""
    model2: str = "fine_tuned"
    """What Model 2 starts from: fine_tuned (Model 1), scratch (as Model 1 did), or reference: it is it."""
    context: bool = True
    halo: int = 0
    """Real pixels around a cell that Model 2 sees."""
    upsampling: str = "nearest"
    """Of Model 1's answer and features: nearest or bilinear, on logits."""
    loss: str = "focal"
    """focal (alpha 0.25, gamma 2), or bce_dice."""
    labels: str = "coarse"
    """Model 1 learns from labels at its own resolution (coarse) or, its logits enlarged, at full (fine)."""
    distil: float = 0.0
    """Share of the reference's answer in Model 1's target; needs fine labels."""
    epochs: int = 20
    model1_epochs: int = 0
    """Of Model 1, whose images are smaller and so cost less; 0: as many as of the others."""
    batch: int = 8
    learning_rate: float = 1e-4
    schedule: str = "constant"
    """Of the learning rate: constant, or cosine: falling to 1 % over the epochs."""
    average: float = 0.0
    """Decay per step of the averaged weights that are kept; 0: the last ones are."""
    colour: float = 0.0
    """Spread of saturation, hue and white balance in training, beside the paper's augmentations."""
    zoom: float = 1.0
    """Images are enlarged or reduced in training by up to this factor."""
    precision: str = "fp32"
    """Of the networks while training and testing: fp32 or bf16."""
    seed: int = 0
    split_seed: int = 123

    def __post_init__(self) -> None:
        choices: dict[str, Sequence[str]] = {
            "data": tuple(DATASETS),
            "architecture": tuple(ARCHITECTURES),
            "backbone": tuple(BACKBONES),
            "network": PRESETS,
            "uncertainty": tuple(UNCERTAINTIES),
            "selection": ("random", "weighted", "highest"),
            "model2": ("fine_tuned", "scratch", "reference"),
            "upsampling": ("nearest", "bilinear"),
            "loss": ("focal", "bce_dice"),
            "labels": ("coarse", "fine"),
            "schedule": ("constant", "cosine"),
            "precision": ("fp32", "bf16"),
        }
        for key, known in choices.items():
            if (value := getattr(self, key)) not in known:
                near = did_you_mean(value, known)
                raise ConfigError(
                    f"{self.name}: {key}={value!r} is not known; known: {', '.join(known)}{near}"
                )
        ratio = math.isqrt(max(self.patches, 0))
        if ratio**2 != self.patches or ratio < 2 or self.side % ratio**2 or self.side < 1:
            raise ConfigError(
                f"{self.name}: patches={self.patches} of side={self.side} px; patches must be a square, and "
                f"the side a multiple of it, such as 16 of 768 px"
            )
        if self.halo % ratio or self.halo < 0:
            raise ConfigError(f"{self.name}: halo={self.halo} px is not a multiple of the ratio {ratio}")
        if self.model2 == "reference" and self.context:
            raise ConfigError(f"{self.name}: a reference as Model 2 takes no context; set context=false")
        if not self.name or "/" in self.name or not 0 < self.learning_rate < math.inf:
            raise ConfigError(
                f"{self.name!r}: a name must be given, without a /, and learning_rate={self.learning_rate} "
                f"must be above 0, and no infinity"
            )
        if not (0 <= self.seed < SEEDS and 0 <= self.split_seed < SEEDS):
            raise ConfigError(
                f"{self.name}: seed={self.seed} and split_seed={self.split_seed} must be at least 0, and "
                f"below {SEEDS}"
            )
        if not self.thresholds or not all(0 <= t <= 1 for t in self.thresholds):
            raise ConfigError(f"{self.name}: thresholds={self.thresholds}: one or more, all within 0..1")
        if not 0 <= self.distil <= 1 or (self.distil and self.labels != "fine"):
            raise ConfigError(f"{self.name}: distil={self.distil} must be within 0..1, and needs fine labels")
        if not (0 <= self.average < 1 and 0 <= self.colour < 1 and 1 <= self.zoom < math.inf):
            raise ConfigError(
                f"{self.name}: average={self.average} and colour={self.colour} must be at least 0 and "
                f"below 1, and zoom={self.zoom} at least 1, and no infinity"
            )
        if min(self.epochs, self.batch) < 1 or self.batch == 1 or self.model1_epochs < 0:
            raise ConfigError(
                f"{self.name}: epochs={self.epochs}, model1_epochs={self.model1_epochs} and "
                f"batch={self.batch}; at least 1, 0 and 2"
            )

    @property
    def ratio(self) -> int:
        """Cells along a side, and fine pixels per pixel of Model 1."""
        return math.isqrt(self.patches)

    @property
    def cell(self) -> int:
        """Edge of a cell, in px of the image."""
        return self.side // self.ratio

    @property
    def described(self) -> dict[str, Any]:
        """All fields; a file of weights by its name, wherever it lies."""
        return {**asdict(self), "weights": Path(self.weights).name}

    def epochs_of(self, stage: str) -> int:
        """How long a stage is trained."""
        return self.model1_epochs or self.epochs if stage == "model1" else self.epochs

    def decides(self, stage: str) -> dict[str, Any]:
        """The fields that the weights of a stage depend on; runs that share them share the training."""
        known = {key: value for key, value in self.described.items() if key not in _NEVER_TRAINED}
        ours = {key: value for key, value in known.items() if key not in _LATER or value != _LATER[key]}
        if stage == "reference":
            ours.pop("model1_epochs", None)
        if stage == "model2":
            return ours
        for key in _OF_STAGE_2 - ({"distil", "upsampling"} if stage == "model1" else set()):
            del ours[key]
        if stage == "reference":
            del ours["patches"], ours["labels"]
        return ours
