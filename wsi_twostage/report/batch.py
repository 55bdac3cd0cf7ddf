"""The table of a batch: its columns, and its rows with what stands out first."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wsi_twostage.report.cautions import Caution
from wsi_twostage.report.facts import Facts
from wsi_twostage.report.inputs import Found
from wsi_twostage.report.outliers import FAR, Oddity
from wsi_twostage.report.words import count, digits, percent, seconds

CLASSES = 3
"""That have a column each; of more, their sum has one."""

LONGEST = 200
"""Letters of an error in the table."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is shown, and the number it is sorted by; None: last."""

    shown: str
    value: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """A slide of a batch."""

    name: str
    anchor: str
    """Of its section; empty: it has none."""
    status: str
    why: tuple[str, ...]
    """What stands out, in words."""
    weight: float
    """By which the table is sorted at first, the largest on top."""
    cells: tuple[Cell, ...]


def columns(slides: Sequence[Facts]) -> list[tuple[str, Callable[[Facts], Cell]]]:
    """Heading, and what is under it."""
    names = {slide.spec.classes for slide in slides}
    found: list[tuple[str, Callable[[Facts], Cell]]] = [
        ("tissue, mm²", lambda s: Cell(digits(s.tissue_mm2), s.tissue_mm2))
    ]
    if len(names) == 1 and len(one := names.pop()) <= CLASSES:
        found += [(f"{name}, mm²", _area_of(k)) for k, name in enumerate(one)]
    else:
        found.append(("all classes, mm²", lambda s: _area(sum(part.mm2 for part in s.classes))))
    return [
        *found,
        ("of the tissue", lambda s: _share(s.covered)),
        ("objects", _objects),
        ("seen by Model 2", lambda s: _share(s.counts.share)),
        ("mean uncertainty", lambda s: _number(s.mean_uncertainty)),
        ("left, at most", _left),
        ("unreadable", lambda s: Cell(count(s.counts.unreadable), s.counts.unreadable)),
        ("time", lambda s: _time(s.seconds.get("total"))),
    ]


def shared(all_found: Sequence[Sequence[Caution]]) -> tuple[str, ...]:
    """What is mild and true of more than half of the slides: nothing that stands out."""
    shorts = [c.short for found in all_found for c in found if c.short and not c.grave]
    return tuple(short for short in dict.fromkeys(shorts) if 2 * shorts.count(short) > len(all_found))


def row_of(
    facts: Facts,
    anchor: str,
    found: Sequence[Caution],
    odd: Oddity,
    *,
    common: Sequence[str],
    cells: tuple[Cell, ...],
) -> Row:
    """Of a slide with a result; what is ``common`` to the slides of the batch is not said again."""
    grave = [caution.short for caution in found if caution.grave]
    mild = [c.short for c in found if not c.grave and c.short and c.short not in common]
    weight = 1000.0 * bool(grave) + (odd.score if odd.score >= FAR else 0.0)
    weight += (facts.mean_uncertainty or 0.0) / 10  # among those that are alike, the least sure
    return Row(facts.name, anchor, facts.status, (*grave, *odd.reasons, *mild), weight, cells)


def row_without(found: Found, columns: int) -> Row:
    """Of a slide without a result."""
    status = found.status or "failed"
    reason = textwrap.shorten(found.error.removeprefix(f"{found.name}: "), LONGEST, placeholder=" …")
    why = (reason,) if reason else ("not begun",) if status == "skipped" else ()
    return Row(found.name, "", status, why, 2000.0, (Cell("–", None),) * columns)


def _area_of(k: int) -> Callable[[Facts], Cell]:
    return lambda slide: _area(slide.classes[k].mm2)


def _area(mm2: float) -> Cell:
    return Cell(digits(mm2), mm2)


def _share(value: float | None) -> Cell:
    return Cell("–" if value is None else percent(value), value)


def _number(value: float | None) -> Cell:
    return Cell("–" if value is None else f"{value:.3f}", value)


def _time(value: float | None) -> Cell:
    return Cell("–" if value is None else seconds(value), value)


def _objects(slide: Facts) -> Cell:
    number = sum(part.objects for part in slide.classes)
    return Cell(count(number), number)


def _left(slide: Facts) -> Cell:
    if not slide.counts.tissue:
        return Cell("–", None)
    if slide.counts.full:
        return Cell("0", 0.0)
    overall = slide.audit.overall if slide.audit else None
    return (
        Cell("–", None) if overall is None else Cell(f"{overall.gap:.3f}, {overall.bound:.3f}", overall.gap)
    )
