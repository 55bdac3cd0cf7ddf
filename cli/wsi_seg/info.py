"""wsi-seg info: what is in a slide."""

import json
import math
from dataclasses import asdict

import click

from wsi_seg import options
from wsi_seg.help import Command, files


@click.command(
    cls=Command,
    short_help="Reader, scale and levels of a slide.",
    examples=(("wsi-seg info slide.svs", ""),),
)
@click.argument("slide", shell_complete=files)
@options.mpp
@options.reader
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(slide: str, mpp: float | None, reader: str, as_json: bool) -> None:
    """Print reader, scale and stored levels of a SLIDE; reads no pixels."""
    from wsi_twostage.slide import open_slide

    opened = open_slide(slide, mpp, reader=reader, unscaled=True)
    known = not math.isnan(opened.mpp)
    if as_json:
        click.echo(json.dumps(asdict(opened) | {"mpp": opened.mpp if known else None}, indent=2))
        return
    click.echo(f"{slide}: {opened.format}, {opened.compression}, read by {opened.reader}")
    scale = f"{opened.mpp:g} um/px ({_origin(opened.mpp_source)})" if known else "unknown um/px"
    click.echo(f"{opened.width} x {opened.height} px, {scale}")
    if any(opened.origin):
        row, col = opened.origin
        click.echo(f"begins at x {col}, y {row} of the scanner's canvas; the rest of it was not scanned")
    for level in opened.levels:
        down = level.downsample[0]
        scale = f" {opened.mpp * down:.4g} um/px," if known else ""
        click.echo(
            f"  level {level.index}: {level.width} x {level.height} px, 1/{down:g},{scale} "
            f"tiles {level.tile[1]} x {level.tile[0]}"
        )
    for warning in opened.warnings:
        click.echo(f"  note: {warning}")


def _origin(source: str) -> str:
    return "from the file" if source == "file" else "as given"
