"""A trained bundle measured: its temperature, decisions, threshold, promise, figures and card."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_twostage.dice import dices
from wsi_twostage.errors import ConfigError
from wsi_twostage.models.bundle import load_net, save_bundle
from wsi_twostage.models.header import locate, read_spec
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.quality import Way, calibrate_cases
from wsi_twostage.training.config import Recipe
from wsi_twostage.training.data import Folder, Sample, Split, read_data, read_folder
from wsi_twostage.training.evaluate import (
    CUTS,
    Answer,
    answers,
    case_of_answer,
    curve,
    fit_temperature,
    overlaps,
)

GAP = 0.001  # Dice that the default threshold may cost on the validation images; on new ones it costs more


@dataclass(frozen=True, slots=True)
class Figures:
    """Dice in percent on one part of one folder."""

    images: int
    model_1: tuple[float, float]  # pooled, per image
    model_2: tuple[float, float]


def finish_bundle(path: Path, root: Path, recipe: Recipe, *, device: torch.device) -> BundleSpec:
    """Calibrate a bundle's weights and write its card: temperature, decisions, threshold, figures."""
    config = recipe.first
    parts = read_data(root, config.data)
    net = load_net(path).to(device)
    spec = calibrate(net, [s for part in parts.values() for s in part.validation], read_spec(path), device)
    held_out = {name: list(answers(net, part.test, spec, device)) for name, part in parts.items()}
    figures = {name: measure(found, spec) for name, found in held_out.items()}
    # a promise rests on images that nothing above was chosen by
    cases = [case_of_answer(answer, spec) for found in held_out.values() for answer in found]
    promise = calibrate_cases(cases, unit="images", way=Way(precision="fp32"))
    spec = replace(spec, calibration=promise, card={**spec.card, **card(recipe, parts, figures)})
    save_bundle(path, net, spec)
    return read_spec(path)


def evaluate_bundle(path: Path | None, root: Path, *, device: torch.device) -> dict[str, Figures]:
    """Figures on the images that a bundle's card names as held out, by folder.

    Raises
    ------
    ConfigError
        The card names no held-out images, or they are not below ``root``.
    """
    path = locate(path)
    spec = read_spec(path)
    if not spec.card.get("held_out"):
        raise ConfigError(f"{path}: its card names no held-out images")
    net, figures = load_net(path).to(device), {}
    for name, stems in spec.card["held_out"].items():
        found = read_folder(Folder(root / name, only=frozenset(stems)))
        if len(found) < len(stems):
            raise ConfigError(
                f"{root / name}: only {len(found)} of the {len(stems)} held-out images are here"
            )
        figures[name] = measure(list(answers(net, found, spec, device)), spec)
    return figures


def calibrate(net: TwoStageNet, samples: list[Sample], spec: BundleSpec, device: torch.device) -> BundleSpec:
    """Temperature, decisions and default threshold from labelled images that were not trained on."""
    found = list(answers(net, samples, spec, device))
    spec = replace(spec, temperature=round(fit_temperature(found), 4))
    truths = [a.truth for a in found]
    first = dices(overlaps([a.first(spec) for a in found], truths).sum(0))
    second = dices(overlaps([a.fine for a in found], truths).sum(0))
    spec = replace(spec, decisions=(float(CUTS[first.argmax()]), float(CUTS[second.argmax()])))
    measured = curve(found, spec)
    threshold = round(measured.threshold_for(GAP), 4)
    return replace(spec, threshold=threshold, card={**spec.card, "curve": measured.as_json()})


def measure(found: Sequence[Answer], spec: BundleSpec) -> Figures:
    """Dice of both stages at the spec's decisions."""
    truths = [a.truth for a in found]
    pairs = []
    for logits, cut in zip(
        ([a.first(spec) for a in found], [a.fine for a in found]), spec.decisions, strict=True
    ):
        counted = overlaps(logits, truths, np.array([cut]))
        pairs.append((_percent(dices(counted.sum(0))), _percent(dices(counted).mean(0))))
    return Figures(len(found), *pairs)


def _percent(share: NDArray[np.float64]) -> float:
    return round(100 * float(share.item()), 2)


def card(recipe: Recipe, parts: dict[str, Split], figures: dict[str, Figures]) -> dict[str, Any]:
    """The data card: for people, and for whoever measures again."""
    config = recipe.first
    return {
        **config.card,
        "split": (
            f"numpy RandomState({config.data.seed}) permutes the sorted images of each folder: first "
            f"{config.data.test:.0%} test, then {config.data.validation:.0%} validation, the rest training"
        ),
        "seed": config.data.seed,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "recipe": asdict(recipe),
        "held_out": {name: [s.name.split("/")[1] for s in part.test] for name, part in parts.items()},
        "images": {n: [len(p.train), len(p.validation), len(p.test)] for n, p in parts.items()},
        "figures": {name: asdict(value) for name, value in figures.items()},
    }
