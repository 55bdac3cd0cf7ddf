"""Whether a data set is what limits an experiment: the same trained on a part of its training images.

    python tests/benchmarks/fewer_images.py ours-unet-isic --data DATA -o runs --splits 123 1 2 --set side=256

For each split and share of the training images: reference and Model 1 trained for as many steps as with all
images, and tested on the same test images, nothing refined. Printed is Dice in points: of all pixels of a
split's test images, and the mean of the images'. What was trained is not trained again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_twostage.memory import ALL, keep_freed_memory
from wsi_twostage.paper.configuration import read_experiment
from wsi_twostage.paper.datasets import Parts, open_set
from wsi_twostage.paper.evaluate import evaluate_experiment
from wsi_twostage.paper.experiment import Experiment
from wsi_twostage.paper.train import Epoch, train_experiment

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="a row whose Model 2 is the reference, or a file")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--shares", type=float, nargs="+", default=[1 / 3, 2 / 3, 1])
    parser.add_argument("--splits", type=int, nargs="+", default=[123])
    parser.add_argument("--set", action="append", default=[], help="as of wsi-seg train")
    arguments = parser.parse_args()
    keep_freed_memory(ALL)  # as `wsi-seg train` does
    experiment = read_experiment(arguments.config, [*arguments.set, "thresholds=1"])
    rows = []
    for share in arguments.shares:
        found = []
        for seed in arguments.splits:
            parts = open_set(experiment.data, arguments.data, seed=seed)
            drawn = np.random.RandomState(seed).permutation(
                len(parts.train)
            )  # larger parts hold smaller ones
            kept = sorted(drawn[: round(share * len(drawn))])
            some = Parts(tuple(parts.train[i] for i in kept), parts.test)
            found.append(measured(replace(experiment, split_seed=seed), some, share, arguments.output))
            rows.append(row(len(kept), str(seed), found[-1]))
        rows.append(row(len(kept), "mean", np.mean(found, axis=0)))
    print("| images to train on | split | reference | Model 1 | image by image: reference | Model 1 |")
    print("|" + "---|" * 6)
    print("\n".join(rows))


def row(images: int, split: str, dice: Sequence[float] | NDArray[np.float64]) -> str:
    return f"| {images} | {split} | {' | '.join(f'{100 * value:.1f}' for value in dice)} |"


def measured(experiment: Experiment, parts: Parts, share: float, output: Path) -> list[float]:
    """Dice of the reference and of Model 1: pooled, then the means of the images'."""

    def show(at: Epoch) -> None:
        if at.step == at.steps:
            print(f"{len(parts.train)} images, split {experiment.split_seed}: {at}", flush=True)

    longer = replace(
        experiment,
        epochs=round(experiment.epochs / share),
        model1_epochs=round(experiment.model1_epochs / share),
    )
    train_experiment(longer, parts.train, output, device=CPU, progress=show)
    report = evaluate_experiment(longer, parts, output, device=CPU, repeats=1)
    both = (report.reference, report.two_stage[0])
    return [outcome.pooled for outcome in both] + [outcome.mean for outcome in both]


if __name__ == "__main__":
    main()
