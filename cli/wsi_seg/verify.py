"""wsi-seg verify: whether a result is sound."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from wsi_seg import options
from wsi_seg.help import Command
from wsi_seg.progress import listener
from wsi_twostage.errors import ExitCode


@click.command(
    cls=Command,
    short_help="Whether a result is sound and complete.",
    examples=(("wsi-seg verify slide.seg.ome.zarr", ""),),
)
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.quiet
@click.pass_context
def verify(ctx: click.Context, /, output: Path, as_json: bool, quiet: bool) -> None:
    """Read all of the result OUTPUT and say whether it is sound, and what to do if it is not.

    Ends with 0 where it is sound and complete, 1 where it is damaged, 75 where a run on it is unfinished.
    """
    from wsi_twostage.verification import verify as look

    with listener(output.name, quiet=quiet) as listen:
        found = look(output, listener=listen)
    if as_json:
        click.echo(json.dumps({**asdict(found), "advice": found.advice}))
    else:
        for problem in found.problems:
            click.echo(f"{output}: {problem}")
        if found.unfinished:
            click.echo(f"{output}: unfinished: {found.unfinished}")
        if found.unreadable:
            click.echo(f"{output}: {found.unreadable} tiles have no answer of Model 2; it was not to be had")
        click.echo(f"{output}: {found.advice or 'sound and complete'}")
    if found.problems:
        ctx.exit(ExitCode.FAILED)
    if found.unfinished:
        ctx.exit(ExitCode.INTERRUPTED)
