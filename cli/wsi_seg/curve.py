"""wsi-seg curve: Dice over time of several experiments, as numbers and as a picture."""

from pathlib import Path

import click


@click.command()
@click.argument("configs", nargs=-1, required=True, metavar="CONFIG...")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder that holds the data.")
@click.option(
    "--runs", required=True, type=click.Path(path_type=Path), help="Folder of the experiments' weights."
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write, .json.")
@click.option("--picture", type=click.Path(path_type=Path), help="Picture to draw, .png or .svg.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting: side=256.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
def curve(
    configs: tuple[str, ...],
    data: Path,
    runs: Path,
    output: Path,
    picture: Path | None,
    changes: tuple[str, ...],
    repeats: int,
    device: str,
) -> None:
    """Measure Dice over time of trained experiments on the same test images.

    CONFIG as for `wsi-seg train`. The reference of the first experiment is everyone's measure of time and of
    agreement. The first point of each line is Model 1 alone: the network run uniformly at a lower resolution.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from wsi_twostage.models.runner import choose_device
    from wsi_twostage.paper.curve import measure_curve, write_curve
    from wsi_twostage.paper.datasets import open_set
    from wsi_twostage.paper.experiment import read_experiment
    from wsi_twostage.paper.plot import draw_curve
    from wsi_twostage.paper.tables import curve_table

    experiments = [read_experiment(config, changes) for config in configs]
    first = experiments[0]
    parts = open_set(first.data, data, seed=first.split_seed)
    with Progress(console=Console(stderr=True)) as bar:
        tasks = {e.name: bar.add_task(e.name, total=len(parts.test)) for e in experiments}
        found = measure_curve(
            experiments,
            parts,
            runs,
            device=torch.device(choose_device(device)),
            repeats=repeats,
            progress=lambda name, images: bar.update(tasks[name], completed=images),
        )
    write_curve(found, output)
    if picture is not None:
        draw_curve(found, picture)
    click.echo(curve_table(found))
