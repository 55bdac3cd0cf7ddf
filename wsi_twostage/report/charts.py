"""The charts of a report as inline SVG; colours come from the page, so that light and dark share them."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from wsi_twostage.mask import Source
from wsi_twostage.report.change import Change
from wsi_twostage.report.facts import Facts
from wsi_twostage.report.outliers import FAR, Feature, modified_z
from wsi_twostage.report.svg import Element, add, hint, markup, path, svg, text, ticks
from wsi_twostage.report.words import area, count, seconds

WIDTH, HEIGHT = 380.0, 234.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 366.0, 34.0, 194.0
_POINTS = 150  # of a curve, at most
_BINS = 32

STAGES = (
    ("overview", "overview and tissue"),
    ("stage_1", "stage 1: Model 1"),
    ("selection", "selection"),
    ("stage_2", "stage 2: Model 2"),
    ("audit", "audit"),
)
WORK = (("read", "reading the slide"), ("model_1", "Model 1"), ("model_2", "Model 2"), ("write", "writing"))


def change_chart(change: Change, rule: str) -> Markup:
    """Area changed against tiles refined: by the ``rule``, by the audit, and what is expected of the rest."""
    ends = change.total + max(change.left or 0.0, change.bound or 0.0)
    small = ends < 0.001
    scale = 1e6 if small else 1.0
    top = max(ends * scale, 1e-9) * 1.08
    tissue, chosen = max(change.tissue, 1), len(change.chosen)
    root = svg(WIDTH, HEIGHT, label=_said(change))
    _axes(root, tissue, top, x_label=f"tiles seen by Model 2, of {count(change.tissue)} with tissue")
    text(root, f"area changed, {'µm²' if small else 'mm²'}", 4, 12, "label")

    def at(tiles: float, mm2: float) -> tuple[float, float]:
        return _LEFT + tiles / tissue * (_RIGHT - _LEFT), _BOTTOM - mm2 * scale / top * (_BOTTOM - _TOP)

    end = at(change.refined, change.total)
    if change.refined < tissue:  # what Model 2 did not see
        add(root, "rect", "unseen", x=end[0], y=_TOP, width=_RIGHT - end[0], height=_BOTTOM - _TOP)
    sums = np.concatenate([[0.0], change.chosen])
    if 0 < chosen < tissue:
        x = at(chosen, 0)[0]
        add(root, "path", "budget", d=path([(x, _TOP - 14), (x, _BOTTOM)]))
        left = x > (_LEFT + _RIGHT) / 2
        text(root, rule, x - 4 if left else x + 4, _TOP - 4, "faint", anchor="end" if left else "start")
    kept = np.unique(np.linspace(0, chosen, min(chosen + 1, _POINTS)).astype(int))
    add(root, "path", "line m2", d=path([at(float(i), float(sums[i])) for i in kept]))
    if len(change.audited):
        sums = np.concatenate([sums[-1:], change.audited])
        points = [at(chosen + i, float(value)) for i, value in enumerate(sums)]
        add(root, "path", "line audit", d=path(points))
    if change.left is not None and change.refined < tissue:
        last = at(tissue, change.total + change.left)
        add(root, "path", "line expected", d=path([end, last]))
        if change.bound is not None:
            high = at(tissue, change.total + change.bound)
            add(root, "path", "line whisker", d=path([last, high]))
            add(root, "path", "line whisker", d=path([(high[0] - 4, high[1]), (high[0] + 4, high[1])]))
        add(root, "circle", "dot expected", cx=last[0], cy=last[1], r=3)
    elif change.refined < tissue:
        middle = (end[0] + _RIGHT) / 2
        if _RIGHT - end[0] > 70:
            text(root, "not known: no audit", middle, (_TOP + _BOTTOM) / 2, "faint", anchor="middle")
    if change.refined:
        add(root, "circle", "dot m2", cx=end[0], cy=end[1], r=3)
    return markup(root)


def _said(change: Change) -> str:
    said = f"Model 2 saw {change.refined} of {change.tissue} tiles and changed {area(change.total)}"
    if change.left is not None and change.refined < change.tissue:
        said += f"; {area(change.left)} more are expected to change if it saw the rest"
    return said


def uncertainty_chart(facts: Facts, threshold: float) -> Markup:
    """How many tiles have which uncertainty; which Model 2 saw; the rule took those from ``threshold`` on."""
    known = np.isfinite(facts.table["uncertainty"])
    u, second = facts.table["uncertainty"][known], facts.table["source"][known] == Source.MODEL_2
    right = max(float(u.max(initial=0.0)), 0.01)
    edges = np.linspace(0, right, _BINS + 1)
    everyone, seen = np.histogram(u, edges)[0], np.histogram(u[second], edges)[0]
    top = max(int(everyone.max(initial=1)), 1) * 1.08
    root = svg(WIDTH, HEIGHT, label="How many tiles have which uncertainty, and how many of them Model 2 saw")
    kind = facts.made.get("uncertainty", "uncertainty")
    _axes(root, right, top, whole=True, x_label=f"mean {kind} of a tile")
    text(root, "tiles", 4, 12, "label")
    step = (_RIGHT - _LEFT) / _BINS
    for i, (n, s) in enumerate(zip(everyone.tolist(), seen.tolist(), strict=True)):
        base = _BOTTOM
        x = _LEFT + i * step + 0.5
        for part, bar, by in ((s, "m2", "seen by Model 2"), (n - s, "m1", "not seen by Model 2")):
            height = part / top * (_BOTTOM - _TOP)
            base -= height
            if part:
                shown = add(root, "rect", f"bar {bar}", x=x, y=base, width=step - 1, height=height)
                hint(shown, f"{part} tiles of {edges[i]:.3f} to {edges[i + 1]:.3f}, {by}")
    if 0 < threshold <= right:
        x = _LEFT + threshold / right * (_RIGHT - _LEFT)
        add(root, "path", "budget", d=path([(x, _TOP - 14), (x, _BOTTOM)]))
        left = x > (_LEFT + _RIGHT) / 2
        said = f"the rule: {threshold:.3f} or more"
        text(root, said, x - 4 if left else x + 4, _TOP - 4, "faint", anchor="end" if left else "start")
    return markup(root)


def time_chart(spent: Mapping[str, float]) -> Markup:
    """Bars: wall time of each stage, and below what the threads did in it."""
    rest = max(spent["total"] - sum(spent.get(name, 0.0) for name, _ in STAGES), 0.0)
    walls = [(label, spent[name]) for name, label in STAGES if name in spent] + [("start and end", rest)]
    work = [(label, spent[name]) for name, label in WORK]
    row, left, right = 17.0, 128.0, 316.0
    height = 20 + row * len(walls) + 28 + row * len(work) + 4
    root = svg(WIDTH, height, label=f"Time: {seconds(spent['total'])} in all")
    y = 12.0
    for title, bars, kind in (
        (f"wall time, {seconds(spent['total'])} in all", walls, "bar m2"),
        (f"work of the threads, {spent['network_share']:.0%} of their time in the networks", work, "bar m1"),
    ):
        text(root, title, 0, y, "label")
        longest = max(max(value for _, value in bars), 1e-9)
        for label, value in bars:
            y += row
            text(root, label, left - 8, y, anchor="end")
            width = value / longest * (right - left)
            add(root, "rect", kind, x=left, y=y - 9, width=max(width, 0.8), height=11)
            text(root, seconds(value), left + width + 6, y)
        y += 28
    return markup(root)


def strip_chart(feature: Feature, names: Sequence[str], anchors: Sequence[str]) -> Markup:
    """A dot for each slide of a batch, those far from the middle marked; a click leads to the slide."""
    width, height, left, right = 380.0, 62.0, 10.0, 370.0
    values = feature.values
    known = values[np.isfinite(values)]
    root = svg(width, height, label=f"{feature.name} of {len(known)} slides", kind="chart strip")
    text(root, feature.name, 0, 12, "label")
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    middle, span = (left + right) / 2, high - low
    add(root, "path", "axis", d=path([(left, 44), (right, 44)]))
    scores = modified_z(values)
    for i in np.argsort(np.abs(scores)):
        if not np.isfinite(values[i]):
            continue
        x = left + (values[i] - low) / span * (right - left) if span else middle
        lift = (i * 7 % 5) * 3.2  # so that equals do not hide each other
        link = add(root, "a", href=f"#{anchors[i]}")
        far = abs(scores[i]) >= FAR
        dot = add(link, "circle", "dot far" if far else "dot all", cx=x, cy=38 - lift, r=4 if far else 3)
        hint(dot, f"{names[i]}: {feature.show(float(values[i]))}")
    if span:
        text(root, feature.show(low), left, 58)
        text(root, feature.show(high), right, 58, anchor="end")
    else:
        text(root, feature.show(low), middle, 58, anchor="middle")
    return markup(root)


def _axes(root: Element, right: float, top: float, *, x_label: str, whole: bool = False) -> None:
    """Lines and numbers; ``whole``: upwards only whole ones."""
    for value in (value for value in ticks(top) if not (whole and value % 1)):
        y = _BOTTOM - value / top * (_BOTTOM - _TOP)
        add(root, "path", "grid" if value else "axis", d=path([(_LEFT, y), (_RIGHT, y)]))
        text(root, _tick(value), _LEFT - 6, y + 3.5, anchor="end")
    marks = [value for value in ticks(right, 5) if not (right > 5 and value % 1)]
    for value in marks:
        x = _LEFT + value / right * (_RIGHT - _LEFT)
        text(root, _tick(value), x, _BOTTOM + 15, anchor="middle")
    text(root, x_label, (_LEFT + _RIGHT) / 2, _BOTTOM + 34, "label", anchor="middle")


def _tick(value: float) -> str:
    return f"{value:,.6g}".replace(",", "\u202f")
