"""wsi-seg refine: more of Model 2 on a result that is there."""

import time
from pathlib import Path
from typing import Any

import click
import psutil

from wsi_seg import options
from wsi_seg.help import Command
from wsi_seg.progress import clock, listener
from wsi_twostage import stopping
from wsi_twostage.errors import ConfigError, ExitCode, similar_file
from wsi_twostage.memory import keep_freed_memory


@click.command(
    cls=Command,
    short_help="More of Model 2 on a result, by budget or region.",
    sections=options.SECTIONS,
    examples=(
        ("wsi-seg refine slide.seg.ome.zarr --budget +10%", "a tenth of the tissue on top"),
        ("wsi-seg refine slide.seg.ome.zarr --region tumour.geojson", "all tiles of a region"),
    ),
)
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--budget",
    metavar="10%|500tiles|120s",
    help="So much more: a share of the tissue, tiles, or time.  [default: what was chosen and is not done]",
)
@click.option(
    "--region", type=click.Path(path_type=Path), help="GeoJSON or mask image: only the tiles that it touches."
)
@options.made_from
@options.on_workers
@options.audit
@options.max_seconds
@options.as_json
@options.quiet
@click.pass_context
def refine(
    ctx: click.Context,
    /,
    output: Path,
    budget: str | None,
    region: Path | None,
    slide: str | None,
    model: Path | None,
    max_seconds: float | None,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Go on with the result OUTPUT: refine tiles that Model 2 has not seen, the most uncertain first.

    On this machine or another; slide and model must be those that made it. A budget is what comes on top:
    10% and +10% are the same here.
    """
    keep_freed_memory()
    from wsi_seg.run import as_json_of, summary
    from wsi_twostage.further import refine as go_on
    from wsi_twostage.selection import parse_budget
    from wsi_twostage.settings import Settings

    if region is not None and not region.is_file():
        raise ConfigError(f"{region}: no such file; give GeoJSON or a mask image{similar_file(region)}")
    rule = None if budget is None else parse_budget(budget.removeprefix("+"))
    since = psutil.Process().create_time()
    until = None if max_seconds is None else since + max_seconds
    with listener(output.name, quiet=quiet, as_json=as_json) as listen, stopping.on_signals():
        result = go_on(
            output,
            rule,
            region=region,
            slide=slide,
            bundle=model,
            settings=Settings(**settings, until=until),
            listener=listen,
            since=since,
        )
    name = result.store.manifest["slide"]["path"]
    click.echo(as_json_of(name, output, result) if as_json else summary(name, output, result))
    click.echo(f"wsi-seg: 1 {result.status} in {clock(time.time() - since)}", err=as_json)
    if result.status == "stopped":
        ctx.exit(ExitCode.INTERRUPTED)
    if result.status == "partial":
        ctx.exit(ExitCode.SOME_FAILED)
