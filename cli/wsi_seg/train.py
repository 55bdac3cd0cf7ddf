"""wsi-seg train and wsi-seg evaluate: bundles and the paper's experiments, and their figures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_seg.help import Command, files
from wsi_seg.options import known_bundles
from wsi_seg.progress import Counts
from wsi_twostage.memory import ALL, keep_freed_memory

if TYPE_CHECKING:
    from wsi_twostage.training.finish import Figures

_DATA = click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder that holds the configuration's data.",
)
_DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
_SET = click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change an experiment's setting: side=256."
)


@click.command(
    cls=Command,
    short_help="Train a model, or an experiment of the paper.",
    examples=(
        ("wsi-seg train CONFIG.toml --data DATA -o mine.safetensors", "a model"),
        ("wsi-seg train unet-bowl --data DATA -o runs", "a row of the paper's Table 3"),
    ),
)
@click.argument("configs", nargs=-1, required=True, metavar="CONFIG...", shell_complete=files)
@_DATA
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Bundle to write; of experiments the folder of weights.",
)
@click.option(
    "--encoder", type=click.Path(path_type=Path), help="ImageNet weights of MobileNetV2 to start from."
)
@click.option("--start", type=click.Path(path_type=Path), help="Bundle to start from.")
@_SET
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Threads that read an experiment's images ahead.",
)
@_DEVICE
def train(
    configs: tuple[str, ...],
    data: Path,
    output: Path,
    encoder: Path | None,
    start: Path | None,
    changes: tuple[str, ...],
    workers: int,
    device: str,
) -> None:
    """Train as CONFIG says: a bundle from a recipe, or experiments of the paper.

    CONFIG is a TOML file, or the name of a row of the paper's Tables 3 and 4, such as unet-bowl or
    deeplab-bowl-patches-4 (`wsi-seg tables 4 --rows bowl`), or ours-unet-bowl for our choices. A recipe
    trains both stages, calibrates them and writes a bundle. Run again after an interruption: training goes
    on from its last checkpoint.
    """
    keep_freed_memory(ALL)  # before numpy and torch start threads
    from wsi_seg.experiment import train_experiments
    from wsi_twostage.paper.configuration import is_experiment

    if all(is_experiment(config) for config in configs):
        if encoder or start:
            raise click.UsageError("--encoder and --start are for recipes; set an experiment's weights=FILE")
        train_experiments(configs, changes, data, output, device=device, workers=workers)
        return
    if len(configs) > 1 or changes or workers:
        recipe = next(config for config in configs if not is_experiment(config))
        raise click.UsageError(f"{recipe}: a recipe, or missing; it goes alone, without --set and --workers")
    _train_bundle(Path(configs[0]), data, output, encoder=encoder, start=start, device=device)


def _train_bundle(
    config: Path, data: Path, output: Path, *, encoder: Path | None, start: Path | None, device: str
) -> None:
    import torch

    from wsi_twostage.models.runner import choose_device
    from wsi_twostage.training.config import read_recipe
    from wsi_twostage.training.recipe import train_bundle

    recipe = read_recipe(config)
    with Counts() as counts:
        spec = train_bundle(
            recipe,
            data,
            output,
            device=torch.device(choose_device(device)),
            start=start,
            encoder=encoder,
            progress=lambda at: counts.show("train", at.step, at.steps, f"loss {at.loss:.3f}"),
        )
    click.echo(
        f"{output}: temperature {spec.temperature}, decisions {spec.decisions}, threshold {spec.threshold}"
    )
    click.echo(json.dumps(spec.card["figures"], indent=2))


@click.command(
    cls=Command,
    short_help="Dice of a model or an experiment on held-out images.",
    examples=(
        ("wsi-seg evaluate --data DATA --model mine.safetensors", "a model"),
        ("wsi-seg evaluate unet-bowl --data DATA -o runs", "an experiment"),
    ),
)
@click.argument("configs", nargs=-1, metavar="[CONFIG...]", shell_complete=files)
@_DATA
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    shell_complete=known_bundles,
    help="Bundle, or the name of a shipped one.  [default: nuclei-he]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the experiments' weights.")
@_SET
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Of each test image of an experiment; their median time counts.",
)
@_DEVICE
def evaluate(
    configs: tuple[str, ...],
    data: Path,
    model: Path | None,
    output: Path | None,
    changes: tuple[str, ...],
    repeats: int,
    device: str,
) -> None:
    """Measure Dice: of a bundle on the images its card names as held out, or of experiments.

    With CONFIG, as for `wsi-seg train`: test these experiments, whose weights are in the folder --output,
    and write a report NAME.json of each there, with Dice and the time of each stage.
    """
    keep_freed_memory(ALL)
    import torch

    from wsi_seg.experiment import evaluate_experiments
    from wsi_twostage.models.runner import choose_device
    from wsi_twostage.paper.configuration import is_experiment
    from wsi_twostage.training.finish import evaluate_bundle

    if configs:
        if output is None or model is not None:
            raise click.UsageError("an experiment needs --output, the folder of its weights, and no --model")
        if recipes := [config for config in configs if not is_experiment(config)]:
            raise click.UsageError(f"{recipes[0]}: a recipe, or missing; --model tests what a recipe made")
        evaluate_experiments(configs, changes, data, output, device=device, repeats=repeats)
        return
    if changes or output is not None:
        raise click.UsageError("--set and --output go with experiments; name one, such as unet-bowl")
    for name, figures in evaluate_bundle(model, data, device=torch.device(choose_device(device))).items():
        click.echo(_line(name, figures))


def _line(name: str, figures: "Figures") -> str:
    values = asdict(figures)
    stages = (
        f"Model {i} {values[f'model_{i}'][0]:.2f} pooled, {values[f'model_{i}'][1]:.2f} per image"
        for i in (1, 2)
    )
    return f"{name}: {figures.images} held-out images, Dice in %: {'; '.join(stages)}"
