"""Entry point: commands, exit codes, and one line for each error a user can cause."""

import sys

import click

from wsi_seg.calibrate import calibrate
from wsi_seg.convert import convert
from wsi_seg.curve import curve
from wsi_seg.export import export
from wsi_seg.info import info
from wsi_seg.model import model
from wsi_seg.plan import plan
from wsi_seg.refine import refine
from wsi_seg.report import report
from wsi_seg.run import run
from wsi_seg.tables import tables
from wsi_seg.train import evaluate, train
from wsi_seg.verify import verify
from wsi_seg.view import view
from wsi_twostage.errors import ClusterError, ExitCode, WriteError, WsiError


class Commands(click.Group):
    """``wsi-seg SLIDE...`` is ``wsi-seg run SLIDE...``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else "--help"
        if first not in self.commands and first not in ("--help", "-h", "--version"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wsi-twostage")
def commands() -> None:
    """Segment whole-slide images in two stages: wsi-seg SLIDE...

    Model 1 looks at the whole slide at low resolution, Model 2 at full resolution only where Model 1 is
    uncertain. The result is an OME-Zarr mask pyramid. `wsi-seg SLIDE` is short for `wsi-seg run SLIDE`.
    """


for command in (
    run, refine, verify, report, view, export, plan, info, convert, model, train, evaluate, calibrate,
    tables, curve,
):  # fmt: skip
    commands.add_command(command)


def main() -> None:
    """The console script."""
    try:
        code = commands(standalone_mode=False)
    except WsiError as error:
        click.echo(f"wsi-seg: {error}", err=True)
        code = ExitCode.USAGE
        if isinstance(error, WriteError):
            code = ExitCode.FAILED
        elif isinstance(error, ClusterError):
            code = ExitCode.INTERRUPTED
            click.echo("wsi-seg: what is on disk is valid, and the same command goes on with it", err=True)
    except click.ClickException as error:
        error.show()
        code = ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "wsi-seg: interrupted; what is on disk is kept, and the same command goes on with it",
            err=True,
        )
        code = ExitCode.INTERRUPTED
    sys.exit(code)
