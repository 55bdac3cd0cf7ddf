"""wsi-seg model: what a bundle is, as Markdown."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from wsi_twostage.models.bundle import BundleSpec


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
def model(bundle: Path | None) -> None:
    """Print the card of a BUNDLE, or of the shipped one, as Markdown."""
    from wsi_twostage.models.bundle import SHIPPED, read_spec, sha256_of

    path = bundle or SHIPPED
    spec = read_spec(path)
    click.echo(_card(spec, path.stat().st_size, sha256_of(path)))


def _card(spec: "BundleSpec", size: int, sha256: str) -> str:
    card = spec.card
    lines = [
        f"# Model card: {spec.name}",
        "",
        "| | |",
        "|---|---|",
        f"| labels | {', '.join(f'{i} {name}' for i, name in enumerate(spec.classes, 1))} |",
        f"| Model 2 | {spec.mpp:g} um/px, tiles of {spec.tile} px with a halo of {spec.halo} px |",
        f"| Model 1 | {spec.mpp * spec.ratio:g} um/px, its answer at {spec.mpp * spec.step:g} um/px |",
        f"| context | {'Model 1 features join Model 2 at stride 4' if spec.context else 'none'} |",
        f"| temperature of Model 1 | {spec.temperature:g} |",
        f"| foreground from | {spec.decisions[0]:g} (Model 1), {spec.decisions[1]:g} (Model 2) |",
        f"| default threshold | entropy {spec.threshold:g} |",
        f"| file | {size / 1e6:.1f} MB, sha256 `{sha256}` |",
    ]
    lines += [
        f"| {key} | {card[key]} |" for key in ("date", "data", "licence", "split", "history") if key in card
    ]
    if figures := card.get("figures"):
        lines += [
            "",
            "## Dice on held-out images (%)",
            "",
            "| folder | images | Model 1 pooled | per image | Model 2 pooled | per image |",
            "|---|---|---|---|---|---|",
        ]
        for name, values in figures.items():
            (one, each_one), (two, each_two) = values["model_1"], values["model_2"]
            lines.append(f"| {name} | {values['images']} | {one} | {each_one} | {two} | {each_two} |")
    if curve := card.get("curve"):
        lines += [
            "",
            "## What refining gives, on the validation images",
            "",
            "| threshold | tiles refined | pooled Dice (%) |",
            "|---|---|---|",
        ]
        lines += [f"| {p['threshold']:g} | {p['fraction']:.0%} | {p['dice']:.2f} |" for p in curve]
    if held_out := card.get("held_out"):
        lines += ["", "## Held-out images", ""]
        lines += [f"{name}: {', '.join(stems)}\n" for name, stems in held_out.items()]
    return "\n".join(lines).rstrip()
