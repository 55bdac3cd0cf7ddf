"""wsi-seg calibrate: temperature and target gaps from a user's own slides."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_seg import options
from wsi_seg.help import Command, files
from wsi_seg.progress import Counts
from wsi_twostage.errors import ExitCode
from wsi_twostage.events import Event, Note, Started, TilesDone
from wsi_twostage.memory import keep_freed_memory

if TYPE_CHECKING:
    from wsi_twostage.calibrate import Seen


@click.command(
    cls=Command,
    short_help="Measure a model's gap on your own slides, without labels.",
    examples=(("wsi-seg calibrate slides/ -o mine.safetensors", ""),),
)
@click.argument("inputs", nargs=-1, required=True, shell_complete=files)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Bundle to write.")
@options.model
@options.mpp
@options.device
@options.workers
@click.pass_context
def calibrate(
    ctx: click.Context,
    inputs: tuple[str, ...],
    output: Path,
    model: Path | None,
    mpp: float | None,
    device: str,
    workers: int | None,
) -> None:
    """Measure a bundle's gap to its reference on INPUTS, and write it anew.

    INPUTS are slides, as `wsi-seg run` takes them (files, folders, CSV manifests), or folders of images.

    No labels are needed: both models see everything, which takes as long as --refine all. The copy has a
    temperature that fits these slides and the curve behind --target-gap. A promise of a gap g needs at least
    1 / g - 1 slides, and a quarter more given: every fifth fits the temperature. Inputs that cannot be read
    are left out; the exit code is 3 then. If it is interrupted on slides, the same command goes on where it
    was.
    """
    keep_freed_memory()  # as in a run
    from wsi_twostage.calibrate import calibrate_bundle
    from wsi_twostage.quality import least_promise, promises
    from wsi_twostage.settings import Settings

    with Counts() as counts:
        watch = _Watch(counts)
        spec = calibrate_bundle(
            inputs,
            output,
            model=model,
            settings=Settings(mpp=mpp, device=device, workers=workers),
            progress=watch.input,
            listener=watch.run,
        )
    found = spec.calibration
    assert found is not None
    basis = f"from {found.cases} {found.unit}"
    click.echo(f"{output}: temperature {spec.temperature}, threshold {spec.threshold}, {basis}")
    if kept := promises(found):
        click.echo("| target gap | threshold | tiles refined |")
        click.echo("|---|---|---|")
        for promise in kept:
            click.echo(f"| {promise.target:g} | {promise.threshold:.4f} | {promise.refined:.1%} |")
    else:
        click.echo(f"{found.cases} {found.unit} can promise a gap of {least_promise(found.cases):g} at best")
    if watch.failed:
        click.echo(f"{watch.failed} inputs could not be read and are left out", err=True)
        ctx.exit(ExitCode.SOME_FAILED)


class _Watch:
    """Shows how many inputs are done, and how far the run on the present one is."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._inputs = self._total = self._tiles = self._of_tiles = 0
        self.failed = 0

    def input(self, seen: "Seen") -> None:
        self._inputs, self._total = seen.inputs, seen.total
        self._counts.show("calibrate", seen.inputs, seen.total, seen.name)
        self.failed += seen.failed
        if seen.left_out:
            self._counts.say(f"{seen.name} left out: {seen.left_out}")

    def run(self, event: Event) -> None:
        if isinstance(event, Started):
            self._tiles, self._of_tiles = 0, event.total
        elif isinstance(event, TilesDone):
            self._tiles += event.tiles
            text = f"{event.stage}, {self._tiles} of {self._of_tiles} tiles"
            self._counts.show("calibrate", self._inputs, self._total, text)
        elif isinstance(event, Note):
            self._counts.say(event.text)
