"""What the documents show is what the commands print."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from wsi_seg.main import commands
from wsi_twostage.curves.curve import curve_table, read_curve
from wsi_twostage.paper.reports import read_report
from wsi_twostage.paper.tables import table1, table3, table4

DOCS = Path(__file__).parent.parent / "docs"


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_model_card_is_what_the_command_prints() -> None:
    assert CliRunner().invoke(commands, ["model"]).output == text("model.md")


def test_table_1_is_what_the_command_prints() -> None:
    assert table1() in text("reproduction.md")


@pytest.mark.parametrize("make", [table3, table4], ids=["table 3", "table 4"])
def test_tables_3_and_4_are_rendered_from_the_reports(make: object) -> None:
    reports = [read_report(path) for path in sorted((DOCS / "results").glob("*.json"))]
    assert reports
    assert make(reports) in text("reproduction.md")  # type: ignore[operator]


@pytest.mark.parametrize("path", sorted((DOCS / "results" / "curves").glob("*.json")), ids=lambda p: p.stem)
def test_curves_are_rendered_from_their_measurements(path: Path) -> None:
    assert curve_table(read_curve(path)) in text("curves.md")
    assert f"images/curve-{path.stem}.png" in text("curves.md")
    assert (DOCS / "images" / f"curve-{path.stem}.png").is_file()
