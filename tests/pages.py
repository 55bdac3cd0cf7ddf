"""The documentation's pages as data: their blocks of code, headings and links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))

_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>[\w{}-]+)\n(?P<text>.*?)```", re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced piece of a page."""

    language: str
    text: str
    reason: str | None
    """Why it is not run."""

    @property
    def lines(self) -> list[str]:
        """Commands, each on one line; comments and empty lines are left out."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


def page(name: str) -> Path:
    """Where a page lies: of the README, beside the docs."""
    return ROOT / "README.md" if name == "README" else DOCS / f"{name}.md"


def blocks(path: Path) -> list[Block]:
    """In the order of the text."""
    text = path.read_text(encoding="utf-8")
    return [Block(found["language"], found["text"], found["reason"]) for found in _BLOCK.finditer(text)]


def prose(path: Path) -> str:
    """A page without its blocks."""
    return _BLOCK.sub("", path.read_text(encoding="utf-8"))


def links(path: Path) -> list[str]:
    """Targets of links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(path))


def anchors(path: Path) -> set[str]:
    """Of the headings, as code hosts and MyST make them."""
    titles = re.findall(r"^#+ (.*)", prose(path), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in plain}
