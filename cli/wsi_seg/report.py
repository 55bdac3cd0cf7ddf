"""wsi-seg report: one HTML file about results."""

import json
from pathlib import Path

import click

from wsi_seg import options
from wsi_seg.help import Command
from wsi_seg.progress import listener


@click.command(
    cls=Command,
    short_help="One HTML file about one result, or many.",
    examples=(("wsi-seg report results -o results.html", "of a batch"),),
)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="The file to write.",
)
@options.moved
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.quiet
def report(
    results: tuple[Path, ...], output: Path, slide: str | None, overwrite: bool, as_json: bool, quiet: bool
) -> None:
    """Write one HTML file about RESULTS: pictures, areas, quality, warnings; nothing in it needs a network.

    RESULTS are results of wsi-seg, folders of them, or the summary.json of a batch. Of several there is a
    table first, the slides that stand out on top.
    """
    from wsi_twostage.report import write_report

    with listener(output.name, quiet=quiet) as listen:
        write_report(results, output, slide=slide, overwrite=overwrite, listener=listen)
    size = output.stat().st_size
    if as_json:
        click.echo(json.dumps({"path": str(output), "bytes": size}))
        return
    click.echo(f"{output}: {size / 1e6:.1f} MB")
