"""The documentation: it builds without a warning, its links lead somewhere, and what it quotes exists."""

import ast
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS, PAGES, ROOT, anchors, blocks, links

from wsi_seg.main import commands

NEEDED = ("sphinx", "myst_parser", "furo")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    for target in links(path):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.is_file(), target
        assert there.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_is_in_the_contents() -> None:
    listed = {
        line for block in blocks(DOCS / "index.md") if block.language == "{toctree}" for line in block.lines
    }
    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} <= listed


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pictures_say_what_they_show(path: Path) -> None:
    assert not re.search(r"!\[\]\(", path.read_text(encoding="utf-8"))


def test_the_table_of_commands_is_that_of_the_program() -> None:
    table = re.findall(r"^\| `wsi-seg (\w+)` \|", (DOCS / "commands.md").read_text("utf-8"), re.MULTILINE)
    assert table == list(commands.commands)


def test_the_python_page_has_every_public_name() -> None:
    import wsi_twostage

    text = (DOCS / "python.md").read_text(encoding="utf-8")
    for name in wsi_twostage.__all__:
        assert f":: wsi_twostage.{name}\n" in text, name


def test_the_functions_that_carry_out_the_paper_are_there() -> None:
    text = (DOCS / "algorithm.md").read_text(encoding="utf-8")
    named = [name.rpartition(".") for name in re.findall(r"`([a-z_.]+\.[A-Za-z_]+)`", text)]
    assert len(named) > 8
    for module, _, name in named:
        assert hasattr(importlib.import_module(f"wsi_twostage.{module}"), name), f"{module}.{name}"


def _templates() -> list[str]:
    """Every text in the sources; what is filled in is an ellipsis."""
    found = []
    for folder in (ROOT / "wsi_twostage", ROOT / "cli"):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (n.value if isinstance(n, ast.Constant) else "…" for n in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_messages_that_are_explained_are_those_of_the_program() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8").partition("## Without a message")[0]
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    quoted = [part for cell in cells for part in re.findall(r"`([^`]+)`", cell)]
    assert len(quoted) > 50
    templates = _templates()
    unknown = [each for each in quoted if not any(each in template for template in templates)]
    assert not unknown


def _typed(line: str) -> list[str] | None:
    """Arguments of a wsi-seg command in a line of shell; None where there is none."""
    try:
        words = shlex.split(re.sub(r"\$\([^)]*\)", "WORD", line), comments=True)
    except ValueError:  # a part of something longer
        return None
    ends = ("|", "||", "&&", "&", ">", ">>", ";")
    if not words or words[0] != "wsi-seg":
        return None
    stop = next((i for i, word in enumerate(words) if word in ends or word.startswith(">")), len(words))
    return words[1:stop]


COMMANDS = [
    pytest.param(arguments, id=f"{path.stem}: {' '.join(arguments)}"[:100])
    for path in PAGES
    for block in blocks(path)
    if block.language == "bash"
    for line in block.lines
    if (arguments := _typed(line)) is not None
]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_every_command_that_is_shown_is_understood(arguments: list[str]) -> None:
    # not a bare click.Context: in one, click keeps an option --help without -h for the tests after this
    group = commands.make_context("wsi-seg", ["--help"], resilient_parsing=True)
    first, *rest = arguments
    name, given = (first, rest) if first in commands.commands else ("run", arguments)
    commands.commands[name].make_context(name, list(given), parent=group)


@pytest.mark.timeout(600)
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED), reason=f"wants {', '.join(NEEDED)}"
)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", tmp_path / "doctrees", DOCS, tmp_path / "site"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    built = (tmp_path / "site" / "commands.html").read_text(encoding="utf-8")
    assert all(text in built for text in ("--target-gap", "--coarse-halo", "Examples:"))
    reference = (tmp_path / "site" / "python.html").read_text(encoding="utf-8")
    assert "wsi_twostage.segment" in reference
    assert "Type<" not in reference  # of an attribute whose docstring has a colon
    assert not re.search(r"<strong>(&gt;|\()", reference)  # an example or a sentence taken for a parameter
