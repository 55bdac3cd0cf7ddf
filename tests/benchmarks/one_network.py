"""One network for both stages: Model 2's, taught to answer at half the resolution, too; for docs/curves.md.

    python tests/benchmarks/one_network.py DATA BUNDLE [--steps 1800] [--bf16]

It begins as the shipped Model 2 without its context. Each step shows it the recipe's crops for a student
twice: all of them at half the resolution, and a quarter of them in full, so that either resolution costs the
same. BUNDLE has it as Model 1 and as Model 2. An interrupted training goes on from beside BUNDLE.
"""

import argparse
import copy
import json
from dataclasses import replace
from pathlib import Path

import torch
from model_1 import CPU, first_student
from shallow import RECIPE
from torch import Tensor

from wsi_twostage.memory import ALL, keep_freed_memory
from wsi_twostage.models.bundle import load_net, save_bundle
from wsi_twostage.models.header import SHIPPED, read_spec
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.training.config import read_recipe
from wsi_twostage.training.data import read_data, stack
from wsi_twostage.training.finish import finish_bundle
from wsi_twostage.training.recipe import stack_answers
from wsi_twostage.training.train import student_loss, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/ and bowl2018/")
    parser.add_argument("bundle", type=Path, help="the file to write; the training's state lies beside it")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16, for a CPU that has it")
    arguments = parser.parse_args()
    keep_freed_memory(ALL)  # as `wsi-seg train` does
    recipe, spec, net = read_recipe(RECIPE), read_spec(SHIPPED), load_net(SHIPPED)
    assert recipe.student
    assert spec.fine
    half = replace(
        recipe.student, coarse=spec.fine, steps=arguments.steps, bf16=arguments.bf16, learning_rate=5e-4
    )
    full = replace(half, ratio=1)
    parts = read_data(arguments.data, recipe.first.data).values()
    training = [sample for part in parts for sample in part.train]
    images, masks = stack(training, side=half.image_side)
    known = torch.cat([masks, stack_answers(net, training, spec, half.image_side, CPU)], 1)
    torch.manual_seed(half.seed)
    both = first_student(spec.fine, net.fine, net.fine)
    both.head.load_state_dict(net.fine.head.state_dict())

    def loss_of(crops: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
        few = slice(len(crops) // 4)
        return student_loss(both, half, crops, known, generator) + student_loss(
            both, full, crops[few], known[few], generator
        )

    place = arguments.bundle.with_suffix(".checkpoint")
    for step in train(both, images, known, half, loss_of=loss_of, device=CPU, checkpoint=place):
        print(f"step {step.step} of {step.steps}, loss {step.loss:.4f}", flush=True)
    spec = replace(
        spec,
        name=arguments.bundle.stem,
        coarse=spec.fine,
        context=False,
        context_net=None,
        calibration=None,
        card={},
    )
    save_bundle(arguments.bundle, TwoStageNet(both, copy.deepcopy(both)), spec)
    history = (
        f"one network as Model 1 and as Model 2, by tests/benchmarks/one_network.py --steps {half.steps}"
        f"{' --bf16' * half.bf16}, on 2 CPU cores, begun as the Model 2 of nuclei-he without its context"
    )
    first = replace(recipe.first, context=False, card={**recipe.first.card, "history": history})
    made = finish_bundle(
        arguments.bundle, arguments.data, replace(recipe, first=first, student=half), device=CPU
    )
    print(json.dumps(made.card["figures"], indent=2))


if __name__ == "__main__":
    main()
