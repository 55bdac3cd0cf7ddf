"""wsi-seg convert: a slide as an OME-Zarr image pyramid."""

from pathlib import Path

import click

from wsi_seg import options
from wsi_seg.help import Command, files
from wsi_seg.progress import listener


@click.command(
    cls=Command,
    short_help="A slide as an OME-Zarr pyramid.",
    examples=(
        ("wsi-seg convert slide.svs slide.ome.zarr", "the same pixels"),
        ("wsi-seg convert slide.svs slide.ome.zarr --compression jpeg:90", "smaller"),
    ),
)
@click.argument("slide", shell_complete=files)
@click.argument("output", type=click.Path(path_type=Path))
@options.mpp
@options.reader
@click.option(
    "--compression",
    default="zstd",
    show_default=True,
    help="zstd keeps the pixels; jpeg or jpeg:90 is smaller, and read by this tool only.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: the cores it may use]")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier conversion left.")
@options.quiet
def convert(
    slide: str,
    output: Path,
    mpp: float | None,
    reader: str,
    compression: str,
    workers: int | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write SLIDE as an OME-Zarr 0.5 pyramid to the folder OUTPUT.

    Its levels are halved until 512 px. If it is interrupted, the same command goes on where it was.
    """
    from wsi_twostage.conversion import convert as write
    from wsi_twostage.slide import open_slide

    opened = open_slide(slide, mpp, reader=reader)
    with listener(output.name, quiet=quiet) as listen:
        write(
            opened,
            output,
            compression=compression,
            workers=workers,
            overwrite=overwrite,
            listener=listen,
        )
    click.echo(f"{output}: {opened.width} x {opened.height} px, {opened.mpp:g} um/px")
