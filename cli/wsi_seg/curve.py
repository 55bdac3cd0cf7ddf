"""wsi-seg curve: Dice over time of bundles or experiments, as numbers and as a picture."""

from pathlib import Path
from typing import Any

import click

from wsi_seg.help import Command
from wsi_seg.options import known_bundles
from wsi_seg.progress import Counts
from wsi_twostage.errors import ConfigError
from wsi_twostage.memory import keep_freed_memory


@click.command(
    cls=Command,
    short_help="Dice over time, as numbers and as a picture.",
    examples=(("wsi-seg curve nuclei-he --data DATA -o curve.json", "the shipped model"),),
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=known_bundles)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder that holds the data.")
@click.option("--runs", type=click.Path(path_type=Path), help="Folder of the experiments' weights.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write, .json.")
@click.option("--picture", type=click.Path(path_type=Path), help="Picture to draw, .png or .svg.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting: side=256.")
@click.option(
    "--split-seed",
    "seeds",
    multiple=True,
    type=click.IntRange(min=0, max=2**32 - 1),
    metavar="SEED",
    help="Pool the test images of several splits, each with its own trainings; again for each.",
)
@click.option("--mpp", type=float, help="Of the slides, in um per pixel; wins over the file.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
def curve(
    models: tuple[str, ...],
    data: Path,
    runs: Path | None,
    output: Path,
    picture: Path | None,
    changes: tuple[str, ...],
    seeds: tuple[int, ...],
    mpp: float | None,
    repeats: int,
    device: str,
    overwrite: bool,
) -> None:
    """Measure Dice over time on images with ground truth.

    MODEL is a bundle (a .safetensors file, or the name of a shipped one), measured in whole runs on the
    slides DATA/images with masks in DATA/masks, with tissue where DATA/tissue/NAME.* says so (an image or
    GeoJSON, as for `wsi-seg --tissue`), if that is there; or an experiment as for `wsi-seg train`,
    measured on its test images, the networks alone, with its weights in --runs. The full-resolution
    reference of the first MODEL, its Model 2 everywhere (of whole runs: without stage 1), is everyone's
    measure of time and of agreement. The first point of each line is Model 1 alone: a network run uniformly
    at a lower resolution. If it is interrupted on slides, the same command goes on after its last whole run.
    """
    keep_freed_memory()  # as in a run
    from wsi_twostage.curves.curve import curve_table, write_curve
    from wsi_twostage.curves.plot import draw_curve, ensure_drawing

    if output.suffix.lower() != ".json":
        raise click.UsageError(f"--output {output}: its name must end in .json")
    if picture is not None:
        if picture.suffix.lower() not in (".png", ".svg"):
            raise click.UsageError(f"--picture {picture}: its name must end in .png or .svg")
        ensure_drawing()
    if there := [path for path in (output, picture) if path and path.exists() and not overwrite]:
        raise ConfigError(f"{there[0]} exists; give another name, or --overwrite")
    bundles = [_bundle(model) for model in models]
    kept = output.with_name(f"{output.name}.runs")
    with Counts() as counts:
        if all(bundles):
            if runs or changes or seeds:
                raise click.UsageError("--runs, --set and --split-seed are for experiments, not for bundles")
            found = _of_slides([path for path in bundles if path], data, mpp, device, repeats, kept, counts)
        elif any(bundles):
            raise click.UsageError("bundles and experiments do not share a picture; give one kind")
        elif runs is None:
            raise click.UsageError(
                f"{models[0]}: neither a .safetensors file nor a shipped bundle, and experiments need --runs"
            )
        elif mpp is not None:
            raise click.UsageError("--mpp is for bundles, not for experiments")
        else:
            found = _of_experiments(models, changes, seeds, data, runs, device, repeats, counts)
    click.echo(curve_table(found))  # first: it is there even if no file can be written
    write_curve(found, output)
    if picture is not None:
        draw_curve(found, picture)
    if all(bundles):
        from wsi_twostage.curves.slides import forget

        forget(kept)


def _bundle(model: str) -> Path | None:
    from wsi_twostage.models.header import locate, shipped

    path = Path(model)
    is_file = path.is_file() and path.suffix.lower() != ".toml"  # whatever a bundle is called
    return locate(model) if model in shipped() or is_file or path.suffix == ".safetensors" else None


def _of_slides(
    bundles: list[Path],
    data: Path,
    mpp: float | None,
    device: str,
    repeats: int,
    kept: Path,
    counts: Counts,
) -> Any:
    from wsi_twostage.curves.curve import FRACTIONS
    from wsi_twostage.curves.slides import measure_slides
    from wsi_twostage.curves.truth import labelled_slides
    from wsi_twostage.settings import Settings

    slides = labelled_slides(data)
    total = len(bundles) * len(slides) * len(FRACTIONS) * repeats
    return measure_slides(
        bundles,
        slides,
        settings=Settings(mpp=mpp, device=device),
        repeats=repeats,
        kept=kept,
        progress=lambda name, runs: counts.show("runs", runs, total, name),
    )


def _of_experiments(
    names: tuple[str, ...],
    changes: tuple[str, ...],
    seeds: tuple[int, ...],
    data: Path,
    runs: Path,
    device: str,
    repeats: int,
    counts: Counts,
) -> Any:
    import torch

    from wsi_twostage.curves.experiments import measure_experiments
    from wsi_twostage.models.runner import choose_device
    from wsi_twostage.paper.configuration import read_experiment
    from wsi_twostage.paper.datasets import open_set

    experiments = [read_experiment(name, changes) for name in names]
    first = experiments[0]
    splits = {seed: open_set(first.data, data, seed=seed) for seed in seeds or (first.split_seed,)}
    total = sum(len(parts.test) for parts in splits.values())
    return measure_experiments(
        experiments,
        splits,
        runs,
        device=torch.device(choose_device(device)),
        repeats=repeats,
        progress=lambda name, images: counts.show(name, images, total),
    )
