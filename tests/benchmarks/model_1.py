"""A Model 1 with another decoder, for docs/curves.md.

    python tests/benchmarks/model_1.py DATA BUNDLE --widths 192 128 96 64 32 --depths 2 2 2 2 2

Writes BUNDLE: the shipped one (or that of ``--start``) with another Model 1. It begins with the encoder of
the old Model 1 and what fits of the decoder of the context network, or with ``--grow`` as the old Model 1
itself, whose decoder it enlarges. It learns as the recipe's student does: the same images, crops, rates and
answers of Model 2. An interrupted training goes on from beside BUNDLE.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from shallow import RECIPE
from torch import Tensor, nn
from torch.nn import functional

from wsi_twostage.memory import ALL, keep_freed_memory
from wsi_twostage.models.bundle import build_coarse, load_net, save_bundle
from wsi_twostage.models.header import SHIPPED, read_spec
from wsi_twostage.models.mobilenet import CHANNELS
from wsi_twostage.models.spec import NetSpec
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.models.unet import UNet
from wsi_twostage.training.config import Recipe, TrainConfig, read_recipe
from wsi_twostage.training.data import read_data, stack
from wsi_twostage.training.finish import finish_bundle
from wsi_twostage.training.recipe import stack_answers
from wsi_twostage.training.train import student_loss, train

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/ and bowl2018/")
    parser.add_argument("bundle", type=Path, help="the file to write; the training's state lies beside it")
    parser.add_argument("--widths", type=int, nargs="+", required=True)
    parser.add_argument("--depths", type=int, nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--grow", action="store_true", help="begin as Model 1, with a larger decoder")
    parser.add_argument("--seed", type=int, help="the recipe's if not given")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16, for a CPU that has it")
    parser.add_argument("--start", type=Path, default=SHIPPED, help="the bundle that it begins with")
    arguments = parser.parse_args()
    keep_freed_memory(ALL)  # as `wsi-seg train` does
    recipe, spec, net = read_recipe(RECIPE), read_spec(arguments.start), load_net(arguments.start)
    assert recipe.student
    assert net.guide
    decoder = NetSpec(tuple(arguments.widths), tuple(arguments.depths))
    seed = recipe.student.seed if arguments.seed is None else arguments.seed
    lesson = replace(recipe.student, coarse=decoder, steps=arguments.steps, seed=seed, bf16=arguments.bf16)
    parts = read_data(arguments.data, recipe.first.data).values()
    training = [sample for part in parts for sample in part.train]
    images, masks = stack(training, side=lesson.image_side)
    known = torch.cat([masks, stack_answers(net, training, spec, lesson.image_side, CPU)], 1)
    torch.manual_seed(lesson.seed)
    if arguments.grow:
        some = functional.avg_pool2d(images[:8].float() / 255, lesson.ratio)
        student = grown(net.coarse, lesson.coarse, some)
    else:
        student = first_student(lesson.coarse, net.coarse, net.guide)
    loss = partial(student_loss, student, lesson)
    place = arguments.bundle.with_suffix(".checkpoint")
    for step in train(student, images, known, lesson, loss_of=loss, device=CPU, checkpoint=place):
        print(f"step {step.step} of {step.steps}, loss {step.loss:.4f}", flush=True)
    net = TwoStageNet(student, net.fine, context=net.guide)
    spec = replace(spec, name=arguments.bundle.stem, coarse=lesson.coarse, calibration=None, card={})
    save_bundle(arguments.bundle, net, spec)
    finish(arguments.bundle, arguments.data, recipe, lesson, begun=arguments.start.stem, grow=arguments.grow)


def finish(bundle: Path, data: Path, recipe: Recipe, lesson: TrainConfig, *, begun: str, grow: bool) -> None:
    """Calibrate, measure on what is held out, and write a card that says how it was trained."""
    options = f"--widths {_words(lesson.coarse.widths)} --depths {_words(lesson.coarse.depths)}"
    history = (
        f"Model 2 and its context are those of {begun}; Model 1 by tests/benchmarks/model_1.py {options} "
        f"--steps {lesson.steps} --seed {lesson.seed}{' --grow' * grow}{' --bf16' * lesson.bf16}, on 2 CPU "
        "cores, begun "
        + (f"as that of {begun}" if grow else f"with the encoder of {begun}'s and the context's decoder")
    )
    first = replace(recipe.first, card={**recipe.first.card, "history": history})
    spec = finish_bundle(bundle, data, replace(recipe, first=first, student=lesson), device=CPU)
    print(json.dumps(spec.card["figures"], indent=2))


def _words(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def first_student(decoder: NetSpec, eye: UNet, guide: UNet) -> UNet:
    """A Model 1 to be taught: with the encoder of one network, and of another one's decoder what fits.

    That is of each of its convolutions the first channels, as many as there are.
    """
    student, known = build_coarse(decoder), guide.state_dict()
    for name, mine in student.state_dict().items():
        if name.startswith("steps.") and name in known:
            shared = tuple(map(slice, map(min, mine.shape, known[name].shape)))
            mine[shared] = known[name][shared]
    student.encoder.load_state_dict(eye.encoder.state_dict())
    student.detail.load_state_dict(eye.detail.state_dict())
    return student


@torch.no_grad()
def grown(old: UNet, decoder: NetSpec, images: Tensor) -> UNet:
    """The same function with more channels and convolutions (Net2Net; Chen et al., ICLR 2016).

    What new channels say is drawn, and nobody listens yet; a new convolution hands on what comes. Their batch
    norms have the statistics of ``images``, (N, 3, H, W) in 0..1.
    """
    student, known = build_coarse(decoder).eval(), old.state_dict()
    state = student.state_dict()
    state.update({name: value for name, value in known.items() if not name.startswith(("steps.", "head."))})
    heard_before = heard = CHANNELS[-1]
    new: dict[str, slice] = {}
    for i, width in enumerate(decoder.widths):
        had = len(known[f"steps.{i}.0.0.weight"])
        for j in range(decoder.depths[i]):
            block = f"steps.{i}.{j}"
            conv, before = state[f"{block}.0.weight"], known.get(f"{block}.0.weight")
            new[f"{block}.1"] = slice(0 if before is None else had, None)
            if before is None:
                nn.init.dirac_(conv)
            else:
                conv[:had] = 0
                conv[:had, :heard_before] = before[:, :heard_before]
                conv[:had, heard:] = before[:, heard_before:]  # of the skip
                for name in ("weight", "bias", "running_mean", "running_var"):
                    state[f"{block}.1.{name}"][:had] = known[f"{block}.1.{name}"]
            heard_before, heard = had, width
    state["head.0.weight"][:] = 0
    state["head.0.weight"][:, :heard_before] = known["head.0.weight"]
    state["head.0.bias"] = known["head.0.bias"]
    student.load_state_dict(state)
    for name, part in new.items():
        norm = student.get_submodule(name)
        mean, variance = _statistics(student, norm, images)
        norm.running_mean[part], norm.running_var[part] = mean[part], variance[part]
        if part.start == 0:
            norm.weight[:], norm.bias[:] = (variance + norm.eps).sqrt(), mean
    return student


def _statistics(net: nn.Module, norm: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel that comes to a batch norm."""
    seen: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(images)
    hook.remove()
    return seen[0].mean((0, 2, 3)), seen[0].var((0, 2, 3))


if __name__ == "__main__":
    main()
