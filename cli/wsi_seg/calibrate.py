"""wsi-seg calibrate: temperature and target gaps from a user's own slides."""

from pathlib import Path

import click

from wsi_seg import options
from wsi_seg.help import Command
from wsi_twostage.errors import ConfigError


@click.command(
    cls=Command,
    short_help="Measure a model's gap on your own slides, without labels.",
    examples=(("wsi-seg calibrate *.svs -o mine.safetensors", ""),),
)
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Bundle to write.")
@options.model
@options.mpp
@options.device
@options.workers
def calibrate(
    inputs: tuple[Path, ...],
    output: Path,
    model: Path | None,
    mpp: float | None,
    device: str,
    workers: int | None,
) -> None:
    """Measure a bundle's gap to its reference on INPUTS, slides or folders of images, and write it anew.

    No labels are needed: both models see everything, which takes as long as --refine all. The copy has a
    temperature that fits these slides and the curve behind --target-gap. A promise of a gap g needs at least
    1 / g - 1 slides; every fifth input fits the temperature and does not count.
    """
    from rich.console import Console
    from rich.progress import Progress

    from wsi_twostage.calibrate import calibrate_bundle
    from wsi_twostage.quality import promises
    from wsi_twostage.settings import Settings

    if output.exists():
        raise ConfigError(f"{output} exists; give another --output")
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("calibrate", total=None)

        def show(text: str) -> None:
            bar.update(task, advance=1, description=f"calibrate: {text}")
            if " left out: " in text:
                bar.console.print(f"wsi-seg: {text}", markup=False, highlight=False)

        spec = calibrate_bundle(
            inputs,
            output,
            model=model,
            settings=Settings(mpp=mpp, device=device, workers=workers),
            progress=show,
        )
    found = spec.calibration
    assert found is not None
    basis = f"from {found.cases} {found.unit}"
    click.echo(f"{output}: temperature {spec.temperature}, threshold {spec.threshold}, {basis}")
    kept = promises(found)
    if not kept:
        click.echo(f"{found.cases} {found.unit} can promise a gap of {1 / (found.cases + 1):.2g} at best")
        return
    click.echo("| target gap | threshold | tiles refined |")
    click.echo("|---|---|---|")
    for promise in kept:
        click.echo(f"| {promise.target:g} | {promise.threshold:.4f} | {promise.refined:.1%} |")
