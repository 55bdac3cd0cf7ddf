"""From a configuration to a bundle: data, training, calibration, figures, file."""

import copy
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wsi_twostage.drafts import ensure_new, ensure_writable
from wsi_twostage.errors import Busy, ConfigError
from wsi_twostage.lock import in_turn
from wsi_twostage.models.bundle import build, build_coarse, load_net, save_bundle
from wsi_twostage.models.header import locate
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.training.config import Recipe
from wsi_twostage.training.data import Sample, Split, ensure_both, read_data, stack
from wsi_twostage.training.evaluate import answers
from wsi_twostage.training.finish import finish_bundle
from wsi_twostage.training.train import Step, joint_loss, student_loss, train


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
    WriteError
        Nothing can be written there.
    Busy
        Another training is at work on it.
    """
    ensure_new(output)
    parts = read_data(root, recipe.first.data)
    _ensure_trainable(recipe, root, parts)
    specs = _specs(recipe)  # before any training: what cannot be a bundle is refused
    ensure_writable(output)
    samples = [s for part in parts.values() for s in part.train]
    with in_turn(output, partial(_refuse, output)):
        ensure_new(output)
        net, places = _trained(recipe, specs[0], samples, output, device, start, encoder, progress)
        draft = output.with_name(f"{output.name}.uncalibrated")
        save_bundle(draft, net, specs[1])  # measured below as it is read: from 16 bits
        spec = finish_bundle(draft, root, recipe, device=device)
        ensure_new(output)  # again: it takes long
        draft.replace(output)
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
    return spec


def _refuse(output: Path) -> None:
    raise Busy(f"{output} is being trained by another command; wait for it")


def _ensure_trainable(recipe: Recipe, root: Path, parts: Mapping[str, Split]) -> None:
    """Raise ConfigError for data, or a card, that a training would end with for nothing."""
    try:
        json.dumps(recipe.first.card)
    except TypeError as error:
        raise ConfigError(f"[card]: only text, numbers and lists can go into a bundle ({error})") from error
    for name, part in parts.items():
        samples = [*part.train, *part.validation, *part.test]
        if not (part.train and part.validation and part.test):
            raise ConfigError(
                f"{root / name}: {len(samples)} images are too few for a training, a validation and a test "
                f"part"
            )
        ensure_both(str(root / name), samples)
    for name, held_out in (
        ("validation", [s for part in parts.values() for s in part.validation]),
        ("test", [s for part in parts.values() for s in part.test]),
    ):
        ensure_both(f"{root}, its {name} part", held_out, hint=f"try another seed or {name} in [data]")


def _trained(
    recipe: Recipe,
    spec: BundleSpec,
    samples: list[Sample],
    output: Path,
    device: torch.device,
    start: Path | None,
    encoder: Path | None,
    progress: Callable[[Step], None],
) -> tuple[TwoStageNet, list[Path]]:
    """The networks, and the folders beside ``output`` that hold what an interrupted training goes on from.

    ``spec`` is of the networks before the student.
    """
    config, places, before = recipe.first, list[Path](), 0
    total = sum(run.steps for runs in recipe.runs for run in runs)
    total += recipe.student.steps if recipe.student else 0

    def checkpoint(name: str) -> Path:
        places.append(output.with_name(f"{output.name}.{name}.checkpoint"))
        return places[-1]

    torch.manual_seed(config.seed)  # of the weights that nothing else starts
    net = build(config.coarse, config.fine, context=config.context)
    if start is not None:
        _start_from(net, start)
    elif encoder is not None:
        net.load_encoder(read_encoder(encoder))
    images, masks = stack(samples, side=config.image_side)
    for i, runs in enumerate(recipe.runs):
        branches = [copy.deepcopy(net) for _ in runs]
        for j, (branch, run) in enumerate(zip(branches, runs, strict=True)):
            loss, place = partial(joint_loss, branch, run), checkpoint(f"{i}-{j}")
            for step in train(branch, images, masks, run, loss_of=loss, device=device, checkpoint=place):
                progress(Step(before + step.step, total, step.loss))
            before += run.steps
        after, share = mean_weights([branch.state_dict() for branch in branches]), runs[0].blend
        net.load_state_dict(mean_weights([net.state_dict(), after], (1 - share, share)))
    if (lesson := recipe.student) is not None:
        torch.manual_seed(lesson.seed)
        student = build_coarse(lesson.coarse)
        student.encoder.load_state_dict(net.coarse.encoder.state_dict())
        known = torch.cat([masks, stack_answers(net, samples, spec, config.image_side, device)], 1)
        loss, place = partial(student_loss, student, lesson), checkpoint("student")
        for step in train(student, images, known, lesson, loss_of=loss, device=device, checkpoint=place):
            progress(Step(before + step.step, total, step.loss))
        net = TwoStageNet(student, net.fine, context=net.coarse if config.context else None)
    return net, places


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
        coarse_halo=2 * first.halo // lesson.ratio,  # its windows are large, so that it costs little
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
