"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsi_seg.help import files
from wsi_twostage.errors import ConfigError

if TYPE_CHECKING:
    from wsi_twostage.selection import Rule, TargetGap

Command = Callable[..., Any]

SECTIONS = {
    "What Model 2 gets": ("threshold", "budget", "refine", "target_gap", "region", "audit"),
    "The slide": ("slide", "mpp", "reader", "tissue"),
    "The model": ("model", "uncertainty", "precision", "engine"),
    "Where and how long": (
        "device", "workers", "processes", "scheduler", "patience", "at_once", "fail_fast", "max_seconds",
    ),
    "Results": ("output", "overwrite", "preview", "as_json", "quiet"),
}  # fmt: skip
"""Headings of the help, and the options under them."""


def known(*values: str, or_file: bool = False) -> Callable[..., list[Any]]:
    """Lets the shell complete values; whether one makes sense, the library says."""

    def complete(ctx: click.Context, param: click.Parameter | None, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        found = [CompletionItem(value) for value in values if value.startswith(incomplete)]
        return [*(files(ctx, param, incomplete) if or_file else ()), *found]

    return complete


def known_bundles(ctx: click.Context, param: click.Parameter | None, incomplete: str) -> list[Any]:
    """Completes the file of a bundle, or the name of one that ships."""
    from wsi_twostage.models.header import shipped

    return known(*shipped(), or_file=True)(ctx, param, incomplete)


model = click.option(
    "--model",
    type=click.Path(path_type=Path),
    shell_complete=known_bundles,
    help="Bundle, or the name of a shipped one.  [default: nuclei-he, nuclei in H&E]",
)
mpp = click.option("--mpp", type=float, help="Micrometres per pixel of the finest level; wins over the file.")
reader = click.option(
    "--reader",
    default="auto",
    show_default=True,
    shell_complete=known("auto", "tiff", "openslide", "zarr", "image"),
    help="auto, tiff, openslide, zarr or image.",
)
device = click.option(
    "--device",
    default="auto",
    show_default=True,
    shell_complete=known("auto", "cpu", "cuda"),
    help="auto, cpu, cuda, cuda:1, ...",
)
workers = click.option(
    "--workers", type=int, help="Threads of the local cluster.  [default: the cores it may use]"
)
scheduler = click.option(
    "--scheduler",
    "--scheduler-file",
    metavar="ADDRESS|FILE",
    shell_complete=files,
    help="Of a running Dask scheduler, whose workers are used.",
)
processes = click.option(
    "--processes", type=int, help="Spread those threads over so many processes.  [default: one, this]"
)
patience = click.option(
    "--patience",
    type=float,
    default=300,
    show_default=True,
    help="Seconds for a window of pixels, before its worker process counts as hanging and is ended.",
)
max_seconds = click.option(
    "--max-seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="End after this time, with exit code 75; the same command goes on later.",
)
audit = click.option(
    "--audit", type=int, metavar="N", help="Refine N random tiles, too, and estimate the gap that is left."
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, an event or a result a line; with -q results only."
)
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress.")

moved = click.option("--slide", shell_complete=files, help="Where the slide is now.  [default: where it was]")

_RULE = (
    click.option("--threshold", type=float, help="Refine tiles at least this uncertain, 0..1."),
    click.option(
        "--budget",
        metavar="10%|500tiles|120s",
        help="Refine the most uncertain tiles: a share of the tissue, a number, or what there is time for.",
    ),
    click.option("--refine", type=click.Choice(["all", "none"]), help="Refine every tissue tile, or none."),
    click.option(
        "--target-gap", type=float, help="Refine what keeps 1 - Dice to --refine all below this, on average."
    ),
)
_MADE_FROM = (
    moved,
    click.option(
        "--model",
        type=click.Path(path_type=Path),
        shell_complete=known_bundles,
        help="Where its bundle is.  [default: where it was]",
    ),
)
_WORKERS = (device, workers, processes, scheduler, patience)
_SETTINGS = (
    click.option(
        "--uncertainty",
        default="entropy",
        show_default=True,
        shell_complete=known("entropy", "margin", "expected_gain", "paper"),
        help="entropy, margin, expected_gain or paper.",
    ),
    mpp,
    reader,
    click.option(
        "--tissue",
        default="otsu",
        show_default=True,
        shell_complete=known("otsu", "none", or_file=True),
        help="otsu; none to look everywhere; or a FILE that says it: a mask image or GeoJSON.",
    ),
    click.option(
        "--precision",
        default="fp32",
        show_default=True,
        shell_complete=known("fp32", "bf16", "fp16"),
        help="fp32, bf16 or fp16.",
    ),
    click.option(
        "--engine",
        default="torch",
        show_default=True,
        shell_complete=known("torch", "openvino"),
        help="torch, or openvino on a CPU; networks in ONNX files bring their own.",
    ),
)


def rule(command: Command) -> Command:
    """What `read_rule` takes: threshold, budget, refine and target_gap."""
    return _all(_RULE, command)


def settings(command: Command) -> Command:
    """Fields of `Settings`, under their names."""
    return _all(_SETTINGS, command)


def made_from(command: Command) -> Command:
    """Slide and model of a result that is there."""
    return _all(_MADE_FROM, command)


def on_workers(command: Command) -> Command:
    """Fields of `Settings` that say where the work is done."""
    return _all(_WORKERS, command)


def _all(options: tuple[Callable[[Command], Command], ...], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def read_rule(
    threshold: float | None, budget: str | None, refine: str | None, target_gap: float | None
) -> "Rule | TargetGap | None":
    """The one rule that was given, or None."""
    from wsi_twostage.selection import ALL, NONE, TargetGap, Threshold, parse_budget

    given = {
        "--threshold": threshold,
        "--budget": budget,
        "--refine": refine,
        "--target-gap": target_gap,
    }
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ConfigError(f"{' and '.join(names)} say different things; give one of them")
    if threshold is not None:
        return Threshold(threshold)
    if target_gap is not None:
        return TargetGap(target_gap)
    if budget is not None:
        return parse_budget(budget)
    return {"all": ALL, "none": NONE, None: None}[refine]
