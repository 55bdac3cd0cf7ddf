"""The rival of the canvas in docs/curves.md: Model 2's network at half the resolution, everywhere.

    python tests/benchmarks/half_heavy.py DATA WORK [--steps 2500]

Writes WORK/half-heavy.safetensors: the shipped bundle with another Model 1, whose decoder is as wide and as
deep as Model 2's. It begins where the shipped Model 1 ended, with that one's encoder, and with the decoder of
the shipped context network, and learns as the recipe's student does: the same images, crops, rates and
answers of Model 2. An interrupted training goes on from WORK.
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
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.models.unet import UNet
from wsi_twostage.training.config import read_recipe
from wsi_twostage.training.data import stack
from wsi_twostage.training.recipe import calibrate, read_data, stack_answers
from wsi_twostage.training.train import student_loss, train

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/ and bowl2018/")
    parser.add_argument("work", type=Path, help="where the training's state and the bundle go")
    parser.add_argument("--steps", type=int, default=2500)
    arguments = parser.parse_args()
    keep_freed_memory(ALL)  # as `wsi-seg train` does
    recipe, spec, net = read_recipe(RECIPE), read_spec(SHIPPED), load_net(SHIPPED)
    assert recipe.student
    assert spec.fine
    assert net.guide
    lesson = replace(recipe.student, coarse=spec.fine, steps=arguments.steps, bf16=False)
    parts = read_data(arguments.data, recipe.first.data).values()
    training = [sample for part in parts for sample in part.train]
    images, masks = stack(training, side=lesson.image_side)
    known = torch.cat([masks, stack_answers(net, training, spec, lesson.image_side, CPU)], 1)
    heavy = build_coarse(lesson.coarse)
    heavy.load_state_dict(at_scale_1(net.guide))
    heavy.encoder.load_state_dict(net.coarse.encoder.state_dict())
    heavy.detail.load_state_dict(net.coarse.detail.state_dict())
    loss = partial(student_loss, heavy, lesson)
    place = arguments.work / "half-heavy.checkpoint"
    for step in train(heavy, images, known, lesson, loss_of=loss, device=CPU, checkpoint=place):
        print(f"step {step.step} of {step.steps}, loss {step.loss:.4f}", flush=True)
    net = TwoStageNet(heavy, net.fine, context=net.guide)
    spec = replace(spec, name="half-heavy", coarse=lesson.coarse, calibration=None, card={})
    spec = calibrate(net.eval(), [sample for part in parts for sample in part.validation], spec, CPU)
    save_bundle(arguments.work / "half-heavy.safetensors", net, spec)


def at_scale_1(net: UNet) -> dict[str, torch.Tensor]:
    """Weights of a network whose logits are twice as fine as its input, for one where they are not."""
    state = net.state_dict()
    for name in ("head.0.weight", "head.0.bias"):
        state[name] = state[name].mean(0, keepdim=True)
    return state


if __name__ == "__main__":
    main()
