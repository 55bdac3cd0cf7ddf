"""wsi-seg export: a result in the formats of other programs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from wsi_seg import options
from wsi_seg.help import Command
from wsi_seg.progress import listener


@click.command(
    cls=Command,
    short_help="A result as GeoJSON, CSV, Parquet, OME-TIFF, PNG or DICOM.",
    examples=(
        ("wsi-seg export slide.seg.ome.zarr --to geojson --split", "for QuPath"),
        ("wsi-seg export slide.seg.ome.zarr -o nuclei.csv", "a row for each object"),
        ("wsi-seg export slide.seg.ome.zarr --to png --overlay", "a picture"),
    ),
)
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--to",
    metavar="FORMAT",
    shell_complete=options.known("geojson", "csv", "parquet", "ome-tiff", "png", "dicom-seg"),
    help="geojson, csv, parquet: objects; ome-tiff, png, dicom-seg: pixels.  [default: as -o says]",
)
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(path_type=Path),
    help="The new file.  [default: beside it]",
)
@click.option("--split", is_flag=True, help="Objects: cut touching nuclei apart.")
@click.option(
    "--min-area",
    "min_area_um2",
    type=float,
    default=0.0,
    metavar="UM2",
    help="Objects: no smaller ones.",
)
@click.option(
    "--as",
    "kind",
    default="",
    metavar="KIND",
    shell_complete=options.known("annotation", "detection"),
    help="GeoJSON: annotation or detection.  [default: detection]",
)
@click.option(
    "--simplify",
    "simplify_px",
    type=float,
    default=0.0,
    metavar="PX",
    help="GeoJSON: outlines with fewer points, at most twice so far from the exact ones.",
)
@click.option("--gzip", is_flag=True, help="GeoJSON, CSV: compress; also where -o ends in .gz.")
@click.option("--mpp", type=float, help="PNG, DICOM: the level nearest to this.")
@click.option("--overlay", is_flag=True, help="PNG: the outlines on the slide.")
@options.moved
@click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: its cores, up to 8]")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.quiet
def export(
    output: Path,
    to: str | None,
    target: Path | None,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    **chosen: Any,
) -> None:
    """Write the result OUTPUT for QuPath and other programs.

    Objects are connected pixels of one class on the finest level; their coordinates are those of the slide's
    level 0. A result that is not finished is written as it is.
    """
    from wsi_twostage.export import Options
    from wsi_twostage.export import export as write

    with listener(output.name, quiet=quiet) as listen:
        done = write(
            output,
            target,
            to=to,
            options=Options(**chosen),
            workers=workers,
            overwrite=overwrite,
            listener=listen,
        )
    if as_json:
        click.echo(json.dumps({**asdict(done), "path": str(done.path)}))
        return
    what = "" if done.objects is None else f"{done.objects} objects, "
    click.echo(f"{done.path}: {what}{done.bytes / 1e6:.1f} MB")
