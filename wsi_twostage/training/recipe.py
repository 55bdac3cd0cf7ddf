"""From a configuration to a bundle: data, training, calibration, figures, file."""

import copy
import datetime
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wsi_twostage.drafts import ensure_new
from wsi_twostage.errors import ConfigError
from wsi_twostage.models.bundle import build, build_coarse, load_net, save_bundle
from wsi_twostage.models.header import locate, read_spec
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.quality import calibrate_cases
from wsi_twostage.training.config import DataConfig, Recipe
from wsi_twostage.training.data import Folder, Sample, Split, ensure_both, read_folder, split, stack
from wsi_twostage.training.evaluate import (
    CUTS,
    Answer,
    answers,
    case_of_answer,
    curve,
    fit_temperature,
    overlap,
)
from wsi_twostage.training.train import Step, joint_loss, student_loss, train

GAP = 0.001  # Dice that the default threshold may cost on the validation images; on new ones it costs more


@dataclass(frozen=True, slots=True)
class Figures:
    """Dice in percent on one part of one folder."""

    images: int
    model_1: tuple[float, float]  # pooled, per image
    model_2: tuple[float, float]


def read_data(root: Path, config: DataConfig) -> dict[str, Split]:
    """Each folder of the configuration, split; raises ConfigError for what is missing."""
    parts = {}
    for name in config.folders:
        samples = read_folder(Folder(root / name, colour_only=name in config.colour_only))
        parts[name] = split(samples, seed=config.seed, test=config.test, validation=config.validation)
    return parts


def train_bundle(
    recipe: Recipe,
    root: Path,
    output: Path,
    *,
    device: torch.device,
    start: Path | None = None,
    encoder: Path | None = None,
    progress: Callable[[Step], None] = lambda step: None,
) -> BundleSpec:
    """Train, calibrate on the validation part, measure on the test part, and write the bundle.

    Parameters
    ----------
    start
        A bundle whose weights both networks start from.
    encoder
        ImageNet weights of MobileNetV2 under torchvision's names (.safetensors or .pth).

    An interrupted training goes on from the folders beside ``output`` that end in ``.checkpoint``.

    Raises
    ------
    ConfigError
        Data, a card or networks that do not fit.
    StoreError
        Something is at ``output``.
    """
    ensure_new(output)
    config = recipe.first
    parts = read_data(root, config.data)
    try:
        json.dumps(config.card)
    except TypeError as error:
        raise ConfigError(f"[card]: only text, numbers and lists can go into a bundle ({error})") from error
    for name, part in parts.items():
        samples = [*part.train, *part.validation, *part.test]
        if not (part.train and part.validation and part.test):
            count = len(samples)
            raise ConfigError(
                f"{root / name}: {count} images are too few for a training, a validation and a test part"
            )
        ensure_both(str(root / name), samples)
    spec, final = _specs(recipe)  # before any training: what cannot be a bundle is refused
    torch.manual_seed(config.seed)  # of the weights that nothing else starts
    net = build(config.coarse, config.fine, context=config.context)
    if start is not None:
        _start_from(net, start)
    elif encoder is not None:
        net.load_encoder(read_encoder(encoder))
    training = [s for part in parts.values() for s in part.train]
    images, masks = stack(training, side=config.image_side)
    total, before = sum(run.steps for runs in recipe.runs for run in runs), 0
    total += recipe.student.steps if recipe.student else 0
    places: list[Path] = []
    for i, runs in enumerate(recipe.runs):
        branches = [copy.deepcopy(net) for _ in runs]
        for j, (branch, run) in enumerate(zip(branches, runs, strict=True)):
            place = output.with_name(f"{output.name}.{i}-{j}.checkpoint")
            places.append(place)
            loss = partial(joint_loss, branch, run)
            for step in train(branch, images, masks, run, loss_of=loss, device=device, checkpoint=place):
                progress(Step(before + step.step, total, step.loss))
            before += run.steps
        after, share = mean_weights([branch.state_dict() for branch in branches]), runs[0].blend
        net.load_state_dict(mean_weights([net.state_dict(), after], (1 - share, share)))
    if (lesson := recipe.student) is not None:
        place = output.with_name(f"{output.name}.student.checkpoint")
        places.append(place)
        torch.manual_seed(lesson.seed)
        student = build_coarse(lesson.coarse)
        student.encoder.load_state_dict(net.coarse.encoder.state_dict())
        known = torch.cat([masks, stack_answers(net, training, spec, config.image_side, device)], 1)
        loss = partial(student_loss, student, lesson)
        for step in train(student, images, known, lesson, loss_of=loss, device=device, checkpoint=place):
            progress(Step(before + step.step, total, step.loss))
        net = TwoStageNet(student, net.fine, context=net.coarse if config.context else None)
        spec = final
    draft = output.with_name(f"{output.name}.uncalibrated")
    save_bundle(draft, net, spec)  # measured below as it is read: from 16 bits
    spec = finish_bundle(draft, root, recipe, device=device)
    ensure_new(output)  # again: it takes long
    draft.replace(output)
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
    return spec


def _start_from(net: TwoStageNet, start: Path) -> None:
    try:
        net.load_state_dict(load_net(locate(start)).state_dict())
    except RuntimeError as error:
        raise ConfigError(f"{start}: its networks are not those of [coarse], [fine] and context") from error


def _specs(recipe: Recipe) -> tuple[BundleSpec, BundleSpec]:
    """Of the networks before the student, and of those after it."""
    config, lesson = recipe.first, recipe.student
    first = BundleSpec(
        name=config.name,
        mpp=config.mpp,
        classes=(config.label,),
        colours=((255, 210, 0),),
        ratio=config.ratio,
        scale=config.coarse.scale,
        coarse=config.coarse,
        fine=config.fine,
        context=config.context,
    )
    if lesson is None:
        return first, first
    return first, replace(
        first,
        ratio=lesson.ratio,
        scale=lesson.coarse.scale,
        coarse=lesson.coarse,
        coarse_halo=first.halo // lesson.ratio,  # it sees as far around a window as Model 2
        context_net=config.coarse if config.context else None,
    )


def stack_answers(
    net: TwoStageNet, samples: list[Sample], spec: BundleSpec, side: int, device: torch.device
) -> Tensor:
    """Model 2's probability on each image, uint8 (N, 1, side, side), stacked as `stack` does masks."""
    found = answers(net.to(device).eval(), samples, spec, device)
    taught = [replace(a.sample, mask=(a.fine.sigmoid() * 255).round().to(torch.uint8)) for a in found]
    return stack(taught, side=side)[1]


def mean_weights(
    states: Sequence[dict[str, Tensor]], shares: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """The mean of networks of one kind, on the CPU; counters are those of the last."""
    shares = shares or [1 / len(states)] * len(states)
    mean = {name: value.cpu() for name, value in states[-1].items()}
    for name, value in mean.items():
        if value.is_floating_point():
            parts = (share * state[name].cpu() for share, state in zip(shares, states, strict=True))
            mean[name] = torch.stack(list(parts)).sum(0)
    return mean


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
    promise = calibrate_cases(cases, unit="images")
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
    first = overlap([a.first(spec) for a in found], truths).pooled()
    second = overlap([a.fine for a in found], truths).pooled()
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
        counted = overlap(logits, truths, np.array([cut]))
        pairs.append((_percent(counted.pooled()), _percent(counted.per_image())))
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


def read_encoder(path: Path) -> dict[str, Tensor]:
    """ImageNet weights from a file; nothing is ever unpickled but tensors."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: not weights of an encoder ({error})") from error
    except Exception as error:  # of a damaged file torch raises anything, with advice to load it unsafely
        raise ConfigError(f"{path}: not weights of an encoder; expected a file of tensors by name") from error
    if not isinstance(weights, dict):
        raise ConfigError(f"{path}: not weights of an encoder; it holds a {type(weights).__name__}")
    return {name: value for name, value in weights.items() if isinstance(value, Tensor)}
