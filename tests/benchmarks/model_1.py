"""A Model 1 with another decoder, for docs/curves.md.

    python tests/benchmarks/model_1.py DATA BUNDLE --widths 192 128 96 64 32 --depths 2 2 2 2 2

Writes BUNDLE: the shipped one (or that of ``--start``) with another Model 1. It begins with the encoder of
the old Model 1 and what fits of the decoder of the context network, and learns as the recipe's student does:
the same images, crops, rates and answers of Model 2. An interrupted training goes on from beside BUNDLE.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from shallow import RECIPE

from wsi_twostage.memory import ALL, keep_freed_memory
from wsi_twostage.models.bundle import build_coarse, load_net, save_bundle
from wsi_twostage.models.header import SHIPPED, read_spec
from wsi_twostage.models.spec import NetSpec
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.models.unet import UNet
from wsi_twostage.training.config import TrainConfig, read_recipe
from wsi_twostage.training.data import stack
from wsi_twostage.training.recipe import calibrate, read_data, stack_answers
from wsi_twostage.training.train import student_loss, train

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/ and bowl2018/")
    parser.add_argument("bundle", type=Path, help="the file to write; the training's state lies beside it")
    parser.add_argument("--widths", type=int, nargs="+", required=True)
    parser.add_argument("--depths", type=int, nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--start", type=Path, default=SHIPPED, help="the bundle that it begins with")
    arguments = parser.parse_args()
    keep_freed_memory(ALL)  # as `wsi-seg train` does
    recipe, spec, net = read_recipe(RECIPE), read_spec(arguments.start), load_net(arguments.start)
    assert recipe.student
    assert net.guide
    decoder = NetSpec(tuple(arguments.widths), tuple(arguments.depths))
    lesson = replace(recipe.student, coarse=decoder, steps=arguments.steps, bf16=False)
    parts = read_data(arguments.data, recipe.first.data).values()
    training = [sample for part in parts for sample in part.train]
    images, masks = stack(training, side=lesson.image_side)
    known = torch.cat([masks, stack_answers(net, training, spec, lesson.image_side, CPU)], 1)
    student = first_student(lesson, net.coarse, net.guide)
    loss = partial(student_loss, student, lesson)
    place = arguments.bundle.with_suffix(".checkpoint")
    for step in train(student, images, known, lesson, loss_of=loss, device=CPU, checkpoint=place):
        print(f"step {step.step} of {step.steps}, loss {step.loss:.4f}", flush=True)
    net = TwoStageNet(student, net.fine, context=net.guide)
    spec = replace(spec, name=arguments.bundle.stem, coarse=lesson.coarse, calibration=None, card={})
    spec = calibrate(net.eval(), [sample for part in parts for sample in part.validation], spec, CPU)
    save_bundle(arguments.bundle, net, spec)


def first_student(lesson: TrainConfig, eye: UNet, guide: UNet) -> UNet:
    """A Model 1 to be taught: with the encoder of one network, and of another one's decoder what fits.

    That is of each of its convolutions the first channels, as many as there are.
    """
    torch.manual_seed(lesson.seed)
    student, known = build_coarse(lesson.coarse), guide.state_dict()
    for name, mine in student.state_dict().items():
        if name.startswith("steps.") and name in known:
            shared = tuple(map(slice, map(min, mine.shape, known[name].shape)))
            mine[shared] = known[name][shared]
    student.encoder.load_state_dict(eye.encoder.state_dict())
    student.detail.load_state_dict(eye.detail.state_dict())
    return student


if __name__ == "__main__":
    main()
