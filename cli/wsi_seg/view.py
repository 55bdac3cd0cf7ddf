"""wsi-seg view: a result in the browser."""

from pathlib import Path

import click

from wsi_seg import options
from wsi_seg.help import Command
from wsi_twostage.memory import keep_freed_memory


@click.command(
    cls=Command,
    short_help="Look at a result in the browser, and refine there.",
    examples=(
        ("wsi-seg view slide.seg.ome.zarr", "on this machine"),
        ("wsi-seg view slide.seg.ome.zarr --no-browser --port 8000", "through an SSH tunnel"),
    ),
)
@click.argument("output", type=click.Path(path_type=Path))
@options.made_from
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="To listen on.  [default: any that is free]"
)
@click.option("--at", metavar="LINK", default="", help="A link copied in the viewer: its view is restored.")
@click.option("--no-browser", is_flag=True, help="Only print where it is.")
@options.device
@options.workers
def view(
    output: Path,
    slide: str | None,
    model: Path | None,
    host: str,
    port: int,
    at: str,
    no_browser: bool,
    device: str,
    workers: int | None,
) -> None:
    """Look at the result OUTPUT, and its slide, in the browser; refine what is shown.

    Serves this machine only, and prints the address; whoever knows it can look. Ends with Ctrl-C.
    """
    keep_freed_memory()
    from wsi_twostage.viewer import open_viewer
    from wsi_twostage.viewer.refiner import Tools
    from wsi_twostage.viewer.viewer import place_in

    place = place_in(at)
    viewer = open_viewer(output, slide=slide, host=host, port=port, tools=Tools(model, device, workers))
    for note in viewer.notes:
        click.echo(f"wsi-seg: {note}", err=True)

    def ready() -> None:
        click.echo(viewer.url + place)
        if not no_browser:
            viewer.browse(place)

    def ending() -> None:
        click.echo("wsi-seg: the tiles at work are finished first; Ctrl-C again ends at once", err=True)

    viewer.run(ready, ending)
