"""What a curve is: lines of points, the oracle and chance beside each, as JSON and as a table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.dice import Counts, dice
from wsi_twostage.paper.reports import read_json, write_json

RIVALS = (", oracle", ", random")  # how their lines' names end
FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


@dataclass(frozen=True, slots=True)
class Point:
    """One way to segment the images."""

    refined: float
    """Share of the cells that was asked for, 0..1."""
    cost: float
    """Time; 1 is Model 2 everywhere, and nothing else."""
    dice: float
    """Pooled, against the truth, 0..1."""
    agreement: float
    """Pooled Dice against the reference, 0..1."""


@dataclass(frozen=True, slots=True)
class Line:
    """Points of one kind, with a rising share of refined cells."""

    name: str
    points: list[Point]


@dataclass(frozen=True, slots=True)
class Curve:
    """A picture's lines, and how they were measured."""

    data: str
    images: int
    reference_dice: float
    lines: list[Line]
    settings: list[dict[str, Any]]
    machine: dict[str, Any]
    commit: str


@dataclass(frozen=True, eq=False)
class Cells:
    """What the answers to each cell share with the truth and with the reference."""

    scores: NDArray[np.float32]  # (cells,)
    counts: Counts  # (cells, 2 models, 2 targets, 3): pixels in both, predicted, in the target


def gathered(parts: Sequence[Cells]) -> Cells:
    """The cells of several images."""
    return Cells(np.concatenate([p.scores for p in parts]), np.concatenate([p.counts for p in parts]))


def lines_of(
    name: str,
    cells: Cells,
    costs: Sequence[float],
    *,
    reference_dice: float,
    rest: Counts | None = None,
    within: NDArray[np.int64] | None = None,
) -> list[Line]:
    """Three lines, with the cells that the scores, an oracle and chance choose.

    Of chance it is the Dice of the counts expected when every cell is as likely as any other of its image,
    and as many are chosen.

    Parameters
    ----------
    costs
        Of refining each of `FRACTIONS`.
    rest
        (2 targets, 3): pixels that no cell holds.
    within
        (cells,): the image of each cell, if the share is taken of every image and not of all cells.
    """
    rest = np.zeros((2, 3)) if rest is None else rest
    within = np.zeros(len(cells.scores), np.int64) if within is None else within
    gain = gains(cells.counts, np.array([reference_dice, 1.0]))  # against the truth and against itself

    def best(order: NDArray[Any]) -> list[NDArray[Any]]:
        return [highest(order, fraction, within) for fraction in FRACTIONS]

    own = best(cells.scores)
    likely = [_shared_out(chosen, within) for chosen in own]
    ways = {  # for each target how much of every cell is Model 2's
        name: (own, own),
        name + RIVALS[0]: (best(gain[:, 0]), best(gain[:, 1])),
        name + RIVALS[1]: (likely, likely),
    }
    lines = []
    for way, shares in ways.items():
        reached = [_reached(cells.counts[:, :, t], share, rest[t]) for t, share in enumerate(shares)]
        points = zip(FRACTIONS, (round(c, 4) for c in costs), *reached, strict=True)
        lines.append(Line(way, [Point(*values) for values in points]))
    return lines


def gains(counts: Counts, level: Any) -> Counts:
    """What Model 2 gains on each cell: the derivative of 2 I / (P + T), times P + T, where Dice is ``level``.

    (cells, models, ..., 3) -> (cells, ...).
    """
    change = counts[:, 1] - counts[:, 0]
    return np.asarray(2 * change[..., 0] - level * change[..., 1], np.float64)


def highest(
    order: NDArray[Any], fraction: float, within: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Which cells are the highest ``fraction``, of all or within each image; ties in reading order."""
    chosen = np.zeros(len(order), np.bool_)
    within = np.zeros(len(order), np.int64) if within is None else within
    for image in np.unique(within):
        cells = np.flatnonzero(within == image)
        best = np.argsort(-order[cells], kind="stable")[: round(fraction * len(cells))]
        chosen[cells[best]] = True
    return chosen


def _shared_out(chosen: NDArray[np.bool_], within: NDArray[np.int64]) -> NDArray[np.float64]:
    """The chosen share of each cell's image."""
    sizes = np.maximum(np.bincount(within), 1)  # an image may have no cells
    return np.asarray((np.bincount(within, chosen) / sizes)[within], np.float64)


def _reached(counts: Counts, shares: Sequence[NDArray[Any]], rest: Counts) -> list[float]:
    """Dice at each fraction, from (cells, models, 3), Model 2's share of each cell and the rest, (3,)."""
    first, change = counts[:, 0], counts[:, 1] - counts[:, 0]
    return [round(dice((first + share[:, None] * change).sum(0) + rest), 5) for share in shares]


def write_curve(curve: Curve, path: Path) -> None:
    """As JSON; it appears whole or not at all."""
    write_json(path, asdict(curve))


def read_curve(path: Path) -> Curve:
    """What `write_curve` wrote.

    Raises
    ------
    ConfigError
        Not such a file.
    """

    def make(content: dict[str, Any]) -> Curve:
        lines = [
            Line(line["name"], [Point(**point) for point in line["points"]]) for line in content["lines"]
        ]
        return Curve(**{**content, "lines": lines})

    return read_json(path, make, "a curve")


def curve_table(curve: Curve) -> str:
    """Markdown: a row for each point of the lines, beside it what oracle and random reach.

    Dice and gaps are to the truth; then the Dice to the reference, and its gain over refining nothing as a
    share of the oracle's.
    """
    lines = {line.name: line.points for line in curve.lines}
    columns = "| | refined | times faster | Dice | gap | oracle's gap | random's gap | Dice to the reference "
    rows = [columns + "| of the oracle's gain |", "|" + "---|" * 9]
    for name, points in lines.items():
        if name.endswith(RIVALS):
            continue
        oracle, random = (lines[name + rival] for rival in RIVALS)
        for point, best, chance in zip(points, oracle, random, strict=True):
            gaps = " | ".join(f"{100 * (curve.reference_dice - p.dice):z.2f}" for p in (point, best, chance))
            gain, possible = (p.agreement - points[0].agreement for p in (point, best))
            rows.append(
                f"| {name} | {point.refined:.0%} | {1 / point.cost:.1f} | {100 * point.dice:.2f} | {gaps} "
                f"| {100 * point.agreement:.2f} | {f'{gain / possible:.0%}' if possible > 0 else ''} |"
            )
    head = f"{curve.data}: {curve.images} images, Dice in %, reference {100 * curve.reference_dice:.2f}"
    return "\n".join([head, "", *rows])
