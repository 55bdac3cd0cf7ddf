"""The page: what was found of each slide, laid out by the templates; nothing in it comes from elsewhere."""

import hashlib
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wsi_twostage.card import Card, read_card
from wsi_twostage.pictures import HEAT
from wsi_twostage.report import words
from wsi_twostage.report.batch import Row, columns, row_of, row_without, shared
from wsi_twostage.report.cautions import Caution, cautions
from wsi_twostage.report.change import Change, change_of
from wsi_twostage.report.charts import change_chart, strip_chart, time_chart, uncertainty_chart
from wsi_twostage.report.facts import Facts
from wsi_twostage.report.inputs import Found
from wsi_twostage.report.layers import Scene
from wsi_twostage.report.outliers import LEAST, features, oddities
from wsi_twostage.report.statement import Statement, least_refined, quality

STATUS = {
    "ok": "complete",
    "partial": "partly unreadable",
    "stopped": "not complete",
    "empty": "no tissue",
    "failed": "failed",
    "skipped": "not begun",
}
_BAR_MM = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """One slide on the page."""

    anchor: str
    facts: Facts
    scene: Scene
    cautions: tuple[Caution, ...]
    quality: tuple[Statement, ...]
    change: Change
    change_chart: Markup
    uncertainty_chart: Markup
    time_chart: Markup | None

    @property
    def bar_mm(self) -> float:
        """Length of the scale bar: a round one, at most a third of the picture's width."""
        fitting = [mm for mm in _BAR_MM if mm * self.scene.mm <= self.scene.width / 3]
        return fitting[-1] if fitting else _BAR_MM[0]


def section_of(facts: Facts, scene: Scene, number: int) -> Section:
    """Of the slide with this number, from 1."""
    change = change_of(facts.table, facts.spec, facts.audit, facts.drawn)
    return Section(
        anchor=f"slide-{number}",
        facts=facts,
        scene=scene,
        cautions=cautions(facts),
        quality=quality(facts),
        change=change,
        change_chart=change_chart(change, facts.rules[0] if len(facts.rules) == 1 else "all rules"),
        uncertainty_chart=uncertainty_chart(facts, least_refined(facts)),
        time_chart=time_chart(facts.seconds) if facts.seconds else None,
    )


def render(sections: Sequence[Section], lost: Sequence[Found], made: datetime) -> str:
    """The whole file; a table comes first where there is more than one slide."""
    environment = Environment(
        loader=PackageLoader("wsi_twostage.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(words, name) for name in ("percent", "area", "digits", "count", "seconds", "tiles")
    }
    script = _source(environment, "page.js")
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    is_batch = len(sections) + len(lost) > 1
    return environment.get_template("page.html").render(
        sections=sections,
        is_batch=is_batch,
        table=_table(sections, lost) if is_batch else None,
        cards=_cards(sections),
        status=STATUS,
        heat=[f"rgb({','.join(f'{value:.0f}' for value in colour)})" for colour in HEAT.tolist()],
        style=Markup(_source(environment, "page.css")),
        script=Markup(script),
        digest=digest,
        made=made,
        version=version("wsi-twostage"),
    )


@dataclass(frozen=True, slots=True)
class Table:
    """All slides of a batch."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    counts: tuple[tuple[str, int], ...]
    """How many slides ended how."""
    strips: tuple[Markup, ...]
    compared: bool
    """Whether there are enough slides to tell which are unlike the others."""
    common: tuple[str, ...]
    """What is to be known of most slides."""


def _table(sections: Sequence[Section], lost: Sequence[Found]) -> Table:
    slides = [section.facts for section in sections]
    heads, compared = columns(slides), features(slides)
    common = shared([section.cautions for section in sections])
    rows = [
        row_of(
            s.facts, s.anchor, s.cautions, odd, common=common, cells=tuple(cell(s.facts) for _, cell in heads)
        )
        for s, odd in zip(sections, oddities(compared), strict=True)
    ]
    rows += [row_without(found, len(heads)) for found in lost]
    names, anchors = [slide.name for slide in slides], [section.anchor for section in sections]
    varied = [f for f in compared if sum(f.values == f.values) > 2]  # NaN is not itself
    return Table(
        columns=tuple(title for title, _ in heads),
        rows=tuple(sorted(rows, key=lambda row: (-row.weight, row.name))),
        counts=tuple(Counter(STATUS.get(row.status, row.status) for row in rows).most_common()),
        strips=tuple(strip_chart(feature, names, anchors) for feature in varied),
        compared=len(slides) >= LEAST,
        common=common,
    )


def _cards(sections: Sequence[Section]) -> list[Card]:
    """Of each model once."""
    return [
        read_card(path)
        for path in dict.fromkeys(s.facts.model_path for s in sections if s.facts.model_path is not None)
    ]


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
