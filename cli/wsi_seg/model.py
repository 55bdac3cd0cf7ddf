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


def _context(spec: "BundleSpec") -> str:
    if not spec.context:
        return "none"
    net = "a network of its own" if spec.context_net else "Model 1"
    return f"features of {net}, {spec.mpp * 4:g} um/px, join it at stride 4"


def _card(spec: "BundleSpec", size: int, sha256: str) -> str:
    from wsi_twostage.quality import promises

    card = spec.card
    lines = [
        f"# Model card: {spec.name}",
        "",
        "| | |",
        "|---|---|",
        f"| labels | {', '.join(f'{i} {name}' for i, name in enumerate(spec.classes, 1))} |",
        f"| Model 2 | {spec.mpp:g} um/px, tiles of {spec.tile} px with a halo of {spec.halo} px |",
        f"| Model 1 | {spec.mpp * spec.ratio:g} um/px, its answer at {spec.mpp * spec.step:g} um/px |",
        f"| context of Model 2 | {_context(spec)} |",
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
    if spec.calibration:
        lines += [
            "",
            f"## Promised gaps to refining everything, from {spec.calibration.cases} {spec.calibration.unit}",
            "",
            "| target gap | threshold | tiles refined |",
            "|---|---|---|",
        ]
        for promise in promises(spec.calibration):
            lines.append(f"| {promise.target:g} | {promise.threshold:g} | {promise.refined:.0%} |")
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
