"""wsi-seg model: what a bundle is, as Markdown."""

from pathlib import Path

import click

from wsi_seg.help import Command


@click.command(
    cls=Command,
    short_help="The card of a model: classes, scale, data, figures.",
    examples=(
        ("wsi-seg model", "the shipped one"),
        ("wsi-seg model mine.safetensors", ""),
    ),
)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
def model(bundle: Path | None) -> None:
    """Print the card of a BUNDLE, or of the shipped one, as Markdown."""
    from wsi_twostage.card import as_markdown, read_card
    from wsi_twostage.models.bundle import SHIPPED

    click.echo(as_markdown(read_card(bundle or SHIPPED)))
