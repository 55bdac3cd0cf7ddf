"""wsi-seg train and wsi-seg evaluate: a bundle from a configuration, and its figures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from wsi_twostage.training.recipe import Figures

_DATA = click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder that holds the configuration's folders.",
)
_DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@_DATA
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Bundle to write.")
@click.option(
    "--encoder", type=click.Path(path_type=Path), help="ImageNet weights of MobileNetV2 to start from."
)
@click.option("--start", type=click.Path(path_type=Path), help="Bundle to start from.")
@_DEVICE
def train(
    config: Path, data: Path, output: Path, encoder: Path | None, start: Path | None, device: str
) -> None:
    """Train both stages as CONFIG.toml says, calibrate them, and write a bundle.

    Run again after an interruption: training goes on from its last checkpoint.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from wsi_twostage.errors import ConfigError
    from wsi_twostage.models.runner import choose_device
    from wsi_twostage.training.config import read_recipe
    from wsi_twostage.training.recipe import train_bundle
    from wsi_twostage.training.train import Step

    if output.exists():
        raise ConfigError(f"{output} exists; give another --output")
    recipe = read_recipe(config)
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=None)

        def show(step: Step) -> None:
            bar.update(
                task, completed=step.step, total=step.steps, description=f"train, loss {step.loss:.3f}"
            )

        spec = train_bundle(
            recipe,
            data,
            output,
            device=torch.device(choose_device(device)),
            start=start,
            encoder=encoder,
            progress=show,
        )
    click.echo(
        f"{output}: temperature {spec.temperature}, decisions {spec.decisions}, threshold {spec.threshold}"
    )
    click.echo(json.dumps(spec.card["figures"], indent=2))


@click.command()
@_DATA
@click.option("--model", type=click.Path(path_type=Path), help="Bundle.  [default: the shipped one]")
@_DEVICE
def evaluate(data: Path, model: Path | None, device: str) -> None:
    """Measure a bundle's Dice on the images that its card names as held out."""
    import torch

    from wsi_twostage.models.runner import choose_device
    from wsi_twostage.training.recipe import evaluate_bundle

    for name, figures in evaluate_bundle(model, data, device=torch.device(choose_device(device))).items():
        click.echo(_line(name, figures))


def _line(name: str, figures: "Figures") -> str:
    values = asdict(figures)
    stages = (
        f"Model {i} {values[f'model_{i}'][0]:.2f} pooled, {values[f'model_{i}'][1]:.2f} per image"
        for i in (1, 2)
    )
    return f"{name}: {figures.images} held-out images, Dice in %: {'; '.join(stages)}"
