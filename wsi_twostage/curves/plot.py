"""A curve as a picture; needs matplotlib (the extra ``plot``)."""

from pathlib import Path
from typing import Any

from wsi_twostage.curves.curve import RIVALS, Curve
from wsi_twostage.drafts import whole_file
from wsi_twostage.errors import ConfigError

_STYLES = dict(zip(RIVALS, (":", "--"), strict=True))


def ensure_drawing() -> None:
    """Raise ConfigError if matplotlib is not installed; pictures are drawn to files from here on."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ConfigError("pictures need matplotlib; install wsi-twostage[plot]") from error
    mpl.use("Agg")


def draw_curve(curve: Curve, path: Path) -> None:
    """Dice to truth (left) and to the reference (right) over relative time, as PNG or SVG.

    Raises
    ------
    ConfigError
        matplotlib is not installed.
    """
    ensure_drawing()
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    try:
        for axis, what in zip(axes, ("dice", "agreement"), strict=True):
            _draw(axis, curve, what)
        axes[0].axhline(100 * curve.reference_dice, color="0.5", linewidth=0.8)
        axes[0].set_ylabel("Dice to the truth, %")
        axes[1].set_ylabel("Dice to the reference, %")
        kinds = max(len({line.name for line in curve.lines}) // (1 + len(RIVALS)), 1)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, fontsize=8, loc="outside lower center", ncols=kinds)
        figure.suptitle(f"{curve.data}, images: {curve.images}; {curve.machine['device']}", size=10)
        kind = path.suffix.removeprefix(".").lower()
        told = {"Software": None} if kind == "png" else None
        with whole_file(path) as draft:
            figure.savefig(draft, dpi=110, format=kind, metadata=told)
    finally:
        pyplot.close(figure)


def _draw(axis: Any, curve: Curve, what: str) -> None:
    from matplotlib import ticker

    colours: dict[str, str] = {}
    for line in curve.lines:
        kind = next((end for end in RIVALS if line.name.endswith(end)), "")
        name = line.name.removesuffix(kind)
        colour = colours.setdefault(name, f"C{len(colours)}")
        values = [100 * getattr(point, what) for point in line.points]
        axis.plot(
            [point.cost for point in line.points],
            values,
            _STYLES.get(kind, "-"),
            color=colour,
            marker="" if kind else "o",
            markersize=3,
            linewidth=1.2,
            label=line.name,
        )
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    axis.set_xlabel("time, 1 is Model 2 everywhere")
    axis.grid(linewidth=0.3)
