"""wsi-seg model: what a bundle is, as Markdown."""

from pathlib import Path

import click


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
def model(bundle: Path | None) -> None:
    """Print the card of a BUNDLE, or of the shipped one, as Markdown."""
    from wsi_twostage.card import as_markdown, read_card
    from wsi_twostage.models.bundle import SHIPPED

    click.echo(as_markdown(read_card(bundle or SHIPPED)))
