"""wsi-seg model: what a bundle is, as Markdown; wsi-seg model pack: a bundle from two ONNX files."""

from pathlib import Path
from typing import Any

import click

from wsi_seg.help import Command, write_examples
from wsi_seg.options import known_bundles
from wsi_twostage.errors import ConfigError


class Model(click.Group):
    """``wsi-seg model BUNDLE`` is ``wsi-seg model show BUNDLE``."""

    examples = (
        ("wsi-seg model", "the shipped one"),
        ("wsi-seg model mine.safetensors", ""),
        ("wsi-seg model pack --help", "a bundle of your own networks"),
    )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help", "-h"):
            args = ["show", *args]
        elif not args and not ctx.resilient_parsing:  # a shell that completes may mean another command
            args = ["show"]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Commands, and files: the first word may be a bundle."""
        return [*known_bundles(ctx, None, incomplete), *super().shell_complete(ctx, incomplete)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)
        super().format_options(ctx, formatter)


@click.group(cls=Model, short_help="The card of a model: classes, scale, data, figures; or make one.")
def model() -> None:
    """Print the card of a bundle: wsi-seg model [BUNDLE]. Or make one: wsi-seg model pack."""


@model.command(cls=Command, examples=Model.examples[:2])
@click.argument("bundle", required=False, type=click.Path(path_type=Path), shell_complete=known_bundles)
def show(bundle: Path | None) -> None:
    """Print the card of a BUNDLE, a file or the name of a shipped one, as Markdown."""
    from wsi_twostage.card import as_markdown, read_card

    click.echo(as_markdown(read_card(bundle)))


@model.command()
@click.option("--coarse", required=True, type=click.Path(path_type=Path), help="Model 1, an ONNX file.")
@click.option(
    "--fine",
    type=click.Path(path_type=Path),
    help="Model 2; with two inputs it sees its surroundings, too.  [default: Model 1, for both]",
)
@click.option("--mpp", type=float, required=True, help="Of Model 2's level, in um per pixel.")
@click.option(
    "--ratio", type=int, default=4, show_default=True, help="Model 1's level is so many times coarser."
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    required=True,
    metavar="NAME",
    help="Once for each class, in the networks' order; background is not named.",
)
@click.option("--colour", "colours", multiple=True, metavar="RRGGBB", help="Once for each class.")
@click.option("--mean", metavar="R,G,B", default="0,0,0", show_default=True, help="Taken from 0..1.")
@click.option("--std", metavar="R,G,B", default="1,1,1", show_default=True, help="Divided by after that.")
@click.option(
    "--multiple", type=int, default=32, show_default=True, help="Sides of the networks' input: pixels of it."
)
@click.option("--scale", type=int, default=1, show_default=True, help="Model 1's answer is so much finer.")
@click.option(
    "--probabilities/--logits",
    default=None,
    help="What the networks end in.  [default: logits, and what looks like the other is refused]",
)
@click.option("--tile", type=int, help="Pixels of Model 2's level.  [default: 512]")
@click.option("--halo", type=int, help="What Model 2 sees around a tile, in its pixels.  [default: measured]")
@click.option("--coarse-halo", type=int, help="The same of Model 1, in its pixels.  [default: measured]")
@click.option("--threshold", type=float, default=0.5, show_default=True, help="Default of wsi-seg run.")
@click.option("--name", help="[default: the output's]")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The bundle, one file.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def pack(
    coarse: Path,
    fine: Path | None,
    mpp: float,
    ratio: int,
    classes: tuple[str, ...],
    colours: tuple[str, ...],
    mean: str,
    std: str,
    multiple: int,
    scale: int,
    probabilities: bool | None,
    tile: int | None,
    halo: int | None,
    coarse_halo: int | None,
    threshold: float,
    name: str | None,
    output: Path,
    overwrite: bool,
) -> None:
    """Put two networks in ONNX files into one bundle for --model; both are tried first.

    Each takes (N, 3, H, W) float32 and gives logits (N, K, H, W): K is 1 for one class, else one more than
    there are classes, background first. Pickles and TorchScript are never loaded.
    """
    if output.resolve() in [given.resolve() for given in (coarse, fine) if given]:
        raise ConfigError(f"{output} is one of the networks; give another --output")
    if output.exists() and not overwrite:
        raise ConfigError(f"{output} exists; give --overwrite or another --output")
    from wsi_twostage import card
    from wsi_twostage.models import own

    bundle = own.bundle_of(
        coarse,
        fine,
        mpp=mpp,
        classes=classes,
        ratio=ratio,
        scale=scale,
        colours=[_colour(text) for text in colours] or None,
        name=name or output.stem,
        mean=_three("--mean", mean),
        std=_three("--std", std),
        multiple=multiple,
        probabilities=probabilities,
        tile=tile,
        halo=halo,
        coarse_halo=coarse_halo,
        threshold=threshold,
    )
    own.pack(bundle, output, overwrite=overwrite)
    click.echo(card.as_markdown(card.read_card(output)))


def _three(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{option} {text}; use three numbers with commas: 0.5,0.5,0.5") from error


def _colour(text: str) -> tuple[int, int, int]:
    try:
        red, green, blue = bytes.fromhex(text.removeprefix("#"))
    except ValueError as error:
        raise ConfigError(f"--colour {text}; use six digits: ff8800") from error
    return red, green, blue
