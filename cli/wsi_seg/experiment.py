"""Training and testing of the paper's experiments, for wsi-seg train and wsi-seg evaluate."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_seg.progress import Counts
from wsi_twostage.errors import ConfigError

if TYPE_CHECKING:
    from wsi_twostage.paper.train import Epoch


def train_experiments(
    configs: Sequence[str], changes: Sequence[str], data: Path, output: Path, *, device: str, workers: int
) -> None:
    """Train what the experiments need and is not in the folder yet."""
    import torch

    from wsi_twostage.models.runner import choose_device
    from wsi_twostage.paper.configuration import read_experiment
    from wsi_twostage.paper.datasets import ensure_readable, open_set
    from wsi_twostage.paper.train import is_trained, train_experiment

    experiments = [read_experiment(config, changes) for config in configs]
    sets = [open_set(experiment.data, data, seed=experiment.split_seed) for experiment in experiments]
    chosen = torch.device(choose_device(device))
    tests = {
        parts.test: experiment.data
        for experiment, parts in zip(experiments, sets, strict=True)
        if not is_trained(experiment, parts.train, output)
    }
    with Counts() as counts:
        for items, name in tests.items():  # a damaged one is told before the training, not after it
            ensure_readable(items, partial(counts.show, f"{name}: images to test on", total=len(items)))
        for experiment, parts in zip(experiments, sets, strict=True):
            trained = train_experiment(
                experiment,
                parts.train,
                output,
                device=chosen,
                workers=workers,
                progress=partial(_show, counts, experiment.name),
                waits=partial(_wait, experiment.name),
            )
            for stage, done in trained.items():
                click.echo(f"{experiment.name}: {stage} in {done.path}, trained in {done.seconds:.0f} s")


def evaluate_experiments(
    configs: Sequence[str], changes: Sequence[str], data: Path, output: Path, *, device: str, repeats: int
) -> None:
    """Test trained experiments; one report each."""
    import torch

    from wsi_twostage.models.runner import choose_device
    from wsi_twostage.paper.configuration import read_experiment
    from wsi_twostage.paper.datasets import open_set
    from wsi_twostage.paper.evaluate import evaluate_experiment
    from wsi_twostage.paper.reports import report_path, write_report

    experiments = [read_experiment(config, changes) for config in configs]
    if twice := [name for name, count in Counter(e.name for e in experiments).items() if count > 1]:
        raise ConfigError(f"two experiments are called {twice[0]}; each has a report of its name")
    # a test can take hours: refused before, not after it
    places = [report_path(experiment.described, output) for experiment in experiments]
    sets = [open_set(experiment.data, data, seed=experiment.split_seed) for experiment in experiments]
    with Counts() as counts:
        for experiment, parts, path in zip(experiments, sets, places, strict=True):
            name, total = f"{experiment.name}: test", len(parts.test)
            report = evaluate_experiment(
                experiment,
                parts,
                output,
                device=torch.device(choose_device(device)),
                repeats=repeats,
                progress=partial(counts.show, name, total=total),
            )
            best = ", ".join(
                f"{100 * o.mean:.1f} with {100 * o.refined:.0f}% refined, "
                f"{report.reference.time / o.time:.1f}x"
                for o in report.two_stage
            )
            click.echo(f"{path}: Dice {100 * report.reference.mean:.1f}; two-stage {best}")
            write_report(report, output)  # what was measured is said even if no file can be written


def _wait(experiment: str, stage: str) -> None:
    click.echo(f"wsi-seg: {experiment}: another command trains its {stage}; waiting for it", err=True)


def _show(counts: Counts, experiment: str, at: "Epoch") -> None:
    done, total = (at.epoch - 1) * at.steps + at.step, at.epochs * at.steps
    text = f"epoch {at.epoch} of {at.epochs}, loss {at.loss:.4f}"
    counts.show(f"{experiment}: {at.stage}", done, total, text)
