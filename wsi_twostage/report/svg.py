"""A little SVG: elements whose text and attributes are escaped, and axes with round ticks."""

import math
from xml.etree import ElementTree as Tree

from markupsafe import Markup

Element = Tree.Element


def svg(width: float, height: float, *, label: str, kind: str = "chart") -> Element:
    """An image of this size in its own units; ``label`` is read out in its place."""
    return Tree.Element(
        "svg", {"viewBox": f"0 0 {width:g} {height:g}", "class": kind, "role": "img", "aria-label": label}
    )


def add(parent: Element, tag: str, kind: str = "", **attributes: float | str) -> Element:
    """A child of a class; numbers to a tenth, ``_`` in a name is ``-``."""
    named = {name.replace("_", "-"): _value(value) for name, value in attributes.items()}
    return Tree.SubElement(parent, tag, ({"class": kind} if kind else {}) | named)


def text(parent: Element, said: str, x: float, y: float, kind: str = "", *, anchor: str = "start") -> None:
    """A line of text at its baseline; anchored at start, middle or end."""
    add(parent, "text", kind, x=x, y=y, text_anchor=anchor).text = said


def hint(parent: Element, said: str) -> None:
    """What is shown when the pointer rests on an element."""
    Tree.SubElement(parent, "title").text = said


def path(points: list[tuple[float, float]]) -> str:
    """A line through points (x, y)."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def markup(root: Element) -> Markup:
    """For a page; nothing in it needs escaping any more."""
    return Markup(Tree.tostring(root, encoding="unicode"))


def ticks(top: float, count: int = 4) -> list[float]:
    """Round values from 0 to at most ``top``, about so many."""
    if not top > 0:
        return [0.0]
    raw = top / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    return [i * step for i in range(int(top / step + 1e-9) + 1)]


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
