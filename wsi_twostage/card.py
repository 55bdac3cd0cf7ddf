"""The card of a model: what it is, what it was made from, how good it is; for Markdown and for reports."""

import os
from dataclasses import dataclass

from wsi_twostage.models.header import locate, read_spec, sha256_of
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.quality import promises


@dataclass(frozen=True, slots=True)
class Table:
    """Figures under a heading."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Card:
    """What people should know of a bundle."""

    name: str
    facts: tuple[tuple[str, str], ...]
    """What, and its value; of the file's sha256, the last word."""
    tables: tuple[Table, ...]
    held_out: tuple[tuple[str, tuple[str, ...]], ...]
    """Folder, and the images of it that were held out."""


def read_card(bundle: str | os.PathLike[str] | None = None) -> Card:
    """The card of a bundle: a file's, or a shipped one's by name; None is the default one.

    Raises
    ------
    BundleError
        Not a bundle.
    """
    path = locate(bundle)
    spec = read_spec(path)
    return card_of(spec, size=path.stat().st_size, sha256=sha256_of(path))


def card_of(spec: BundleSpec, *, size: int, sha256: str) -> Card:
    """``size`` of the file in bytes."""
    told = spec.card
    facts = [
        ("labels", ", ".join(f"{i} {name}" for i, name in enumerate(spec.classes, 1))),
        ("Model 2", f"{spec.mpp:g} um/px, tiles of {spec.tile} px with a halo of {spec.halo} px"),
        ("Model 1", f"{spec.mpp * spec.ratio:g} um/px, its answer at {spec.mpp * spec.step:g} um/px"),
        ("context of Model 2", _context(spec)),
        *_contract(spec),
        ("temperature of Model 1", f"{spec.temperature:g}"),
        ("foreground from", f"{spec.decisions[0]:g} (Model 1), {spec.decisions[1]:g} (Model 2)"),
        ("default threshold", f"entropy {spec.threshold:g}{_uncalibrated(spec)}"),
        ("file", f"{size / 1e6:.1f} MB, sha256 {sha256}"),
    ]
    facts += [(key, str(told[key])) for key in ("date", "data", "licence", "split", "history") if key in told]
    held_out = tuple((name, tuple(stems)) for name, stems in told.get("held_out", {}).items())
    tables = (_figures(spec), _promises(spec), _curve(spec))
    return Card(spec.name, tuple(facts), tuple(table for table in tables if table.rows), held_out)


def as_markdown(card: Card) -> str:
    """The whole card."""
    lines = [f"# Model card: {card.name}", "", "| | |", "|---|---|"]
    for what, value in card.facts:
        if what == "file":
            head, _, digest = value.rpartition(" ")
            value = f"{head} `{digest}`"
        lines.append(f"| {what} | {value} |")
    for table in card.tables:
        lines += ["", f"## {table.title}", "", _row(table.columns), "|" + "---|" * len(table.columns)]
        lines += [_row(row) for row in table.rows]
    if card.held_out:
        lines += ["", "## Held-out images", ""]
        lines += [f"{name}: {', '.join(stems)}\n" for name, stems in card.held_out]
    return "\n".join(lines).rstrip()


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _context(spec: BundleSpec) -> str:
    if not spec.context:
        return "none"
    if spec.contract:
        return f"a second image, {spec.mpp * 4:g} um/px, four times coarser than the first"
    net = "a network of its own" if spec.context_net else "Model 1"
    return f"features of {net}, {spec.mpp * 4:g} um/px, join it at stride 4"


def _uncalibrated(spec: BundleSpec) -> str:
    return "; not calibrated, so it promises nothing" if spec.contract and not spec.calibration else ""


def _contract(spec: BundleSpec) -> list[tuple[str, str]]:
    """How networks from elsewhere are fed and read."""
    if (told := spec.contract) is None:
        return []
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (told.mean, told.std))
    answer = "probabilities" if told.probabilities else "logits"
    return [
        ("networks", "ONNX files, run by ONNX Runtime"),
        ("input", f"0..1 less {mean}, divided by {std}; sides of multiples of {told.multiple} px"),
        ("answer", answer),
    ]


def _figures(spec: BundleSpec) -> Table:
    rows = []
    for name, values in spec.card.get("figures", {}).items():
        (one, each_one), (two, each_two) = values["model_1"], values["model_2"]
        rows.append((name, *map(str, (values["images"], one, each_one, two, each_two))))
    columns = ("folder", "images", "Model 1 pooled", "per image", "Model 2 pooled", "per image")
    return Table("Dice on held-out images (%)", columns, tuple(rows))


def _promises(spec: BundleSpec) -> Table:
    columns, calibration = ("target gap", "threshold", "tiles refined"), spec.calibration
    if calibration is None:
        return Table("", columns, ())
    title = f"Promised gaps to refining everything, from {calibration.cases} {calibration.unit}"
    rows = tuple((f"{p.target:g}", f"{p.threshold:g}", f"{p.refined:.0%}") for p in promises(calibration))
    return Table(title, columns, rows)


def _curve(spec: BundleSpec) -> Table:
    points = spec.card.get("curve", ())
    rows = tuple((f"{p['threshold']:g}", f"{p['fraction']:.0%}", f"{p['dice']:.2f}") for p in points)
    title = "What refining gives, on the validation images"
    return Table(title, ("threshold", "tiles refined", "pooled Dice (%)"), rows)
