"""What the documents show is what the commands print."""

from pathlib import Path

from click.testing import CliRunner

from wsi_seg.main import commands
from wsi_twostage.paper.tables import table1

DOCS = Path(__file__).parent.parent / "docs"


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_model_card_is_what_the_command_prints() -> None:
    assert CliRunner().invoke(commands, ["model"]).output.strip() == text("model.md").strip()


def test_table_1_is_what_the_command_prints() -> None:
    assert table1() in text("reproduction.md")
