"""Entry point: commands, exit codes, and one line for each error a user can cause."""

import logging
import signal
import sys

import click

from wsi_seg.calibrate import calibrate
from wsi_seg.completion import completion
from wsi_seg.convert import convert
from wsi_seg.curve import curve
from wsi_seg.doctor import doctor
from wsi_seg.export import export
from wsi_seg.help import Commands
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
from wsi_twostage.errors import (
    Busy,
    ClusterError,
    DeviceFull,
    ExitCode,
    LostSlide,
    NoCases,
    UnreadableRegion,
    WriteError,
    WsiError,
)

GROUPS = {
    "Segment": (run, refine, plan, verify),
    "Look and export": (view, report, export),
    "Slides": (info, convert),
    "Models": (model, calibrate, train, evaluate),
    "The paper": (curve, tables),
    "This machine": (doctor, completion),
}
EXAMPLES = (
    ("wsi-seg slide.svs", "-> slide.seg.ome.zarr, here"),
    ("wsi-seg slides/ -o results --budget 10%", "all slides of a folder"),
    ("wsi-seg view slide.seg.ome.zarr", "look at it in the browser"),
)


@click.group(
    "wsi-seg",
    cls=Commands,
    groups=GROUPS,
    examples=EXAMPLES,
    options_metavar="",
    subcommand_metavar="SLIDE... | COMMAND ...",
    epilog="`wsi-seg COMMAND --help` says more.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(None, "-v", "--version", package_name="wsi-twostage", message="wsi-seg %(version)s")
def commands() -> None:
    """Segment whole-slide images in two stages.

    Model 1 looks at the whole slide at low resolution, Model 2 at full resolution only where Model 1 is
    uncertain. The result is an OME-Zarr mask pyramid. `wsi-seg SLIDE` is short for `wsi-seg run SLIDE`.
    """


def main() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until a run has its own way to end
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of what Dask cuts off when it closes
    try:
        code = commands(prog_name="wsi-seg", standalone_mode=False)
    except WsiError as error:
        click.echo(f"wsi-seg: {error}", err=True)
        code = ExitCode.USAGE
        if isinstance(error, (LostSlide, NoCases, UnreadableRegion, WriteError, DeviceFull)):
            code = ExitCode.FAILED
        elif isinstance(error, Busy):
            code = ExitCode.INTERRUPTED
        elif isinstance(error, ClusterError):
            code = ExitCode.INTERRUPTED
            click.echo("wsi-seg: what is on disk is valid, and the same command goes on with it", err=True)
    except click.ClickException as error:
        error.show()
        code = ExitCode.USAGE
    except OSError as error:  # a path that the system will not even look at, a full disk
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"wsi-seg: {where}{error.strerror or error}", err=True)
        code = ExitCode.FAILED
    except (KeyboardInterrupt, click.Abort):
        click.echo("wsi-seg: interrupted; what is on disk is kept; give the same command again", err=True)
        code = ExitCode.INTERRUPTED
    sys.exit(code)
