"""Imports point one way: the table of the architecture, held by reading the sources."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "wsi_twostage"

ALLOWED: dict[str, set[str]] = {
    "dice": set(),
    "errors": set(),
    "workers": {"errors"},
    "events": set(),
    "tiles": {"errors"},
    "pixels": {"errors", "tiles"},
    "uncertainty": {"errors"},
    "selection": {"errors"},
    "answers": {"tiles"},
    "tissue": {"tiles"},
    "tissue_file": {"errors"},
    "recent": set(),
    "slide": {"errors", "ngff", "recent", "tiles"},
    "lock": {"errors"},
    "ngff": set(),
    "drafts": {"errors", "lock"},
    "conversion": {"drafts", "errors", "events", "lock", "slide", "tiles"},
    "mask": {"drafts", "errors", "ngff", "tiles"},
    "models": {"drafts", "errors"},
    "quality": {"dice", "errors", "models", "tissue", "uncertainty"},
    "kept_cases": {"drafts", "errors", "lock", "quality"},
    "cases": {
        "batch", "errors", "events", "kept_cases", "manifest", "mask", "models", "pipeline", "preparing",
        "quality", "selection", "settings", "shards", "tiles", "training",
    },
    "calibrate": {
        "batch", "cases", "drafts", "errors", "events", "kept_cases", "models", "quality", "settings",
        "training",
    },
    "algorithm": {"answers", "errors", "models", "pixels", "selection", "tiles", "uncertainty"},
    "training": {
        "answers", "dice", "drafts", "errors", "lock", "models", "quality", "slide", "tiles", "uncertainty",
    },
    "paper": {"dice", "drafts", "errors", "lock", "selection", "training", "uncertainty"},
    "curves": {
        "batch", "dice", "drafts", "errors", "manifest", "mask", "models", "paper", "pipeline", "preparing",
        "selection", "settings", "slide", "tiles", "training",
    },
    "stopping": {"errors"},
    "watchdog": set(),
    "work": {"errors", "lock", "mask", "models", "pixels", "slide", "stopping", "tiles", "watchdog"},
    "coarse": {"answers", "mask", "models", "pixels", "tiles", "uncertainty", "work"},
    "shards": {"answers", "mask", "models", "tiles", "work"},
    "fine": {"answers", "mask", "models", "shards", "tiles", "work"},
    "batch": {"errors", "settings", "slide", "tissue"},
    "summary": {"batch", "drafts", "errors"},
    "memory": set(),
    "cluster": {"errors", "memory", "stopping", "workers"},
    "dispatch": {"errors", "workers"},
    "notebook": {"errors", "mask", "pictures", "tiles"},
    "result": {"errors", "export", "mask", "notebook", "work"},
    "ledger": {"errors", "mask", "selection", "tiles"},
    "agenda": {"ledger", "mask", "selection"},
    "audit": {"batches", "ledger", "mask", "models", "shards", "tiles"},
    "manifest": {"drafts", "errors", "lock", "mask", "models", "slide"},
    "overview": {"crew", "events", "ledger", "mask", "pixels", "stopping", "tiles", "tissue", "work"},
    "batches": {"dispatch", "mask", "selection", "tiles", "work"},
    "fitness": {"errors", "lock", "models", "pixels", "stopping", "work", "workers"},
    "crew": {"batches", "dispatch", "errors", "mask", "shards", "stopping", "work", "workers"},
    "schedule": {
        "agenda", "audit", "batches", "coarse", "crew", "dispatch", "events", "fine", "fitness", "ledger",
        "mask", "overview", "result", "shards", "stopping", "tiles", "work",
    },
    "settings": {"audit", "cluster", "errors", "tissue", "uncertainty", "watchdog"},
    "preparing": {
        "errors", "events", "manifest", "mask", "models", "quality", "selection", "settings", "slide",
        "tissue", "tissue_file", "work",
    },
    "pipeline": {
        "agenda", "events", "fitness", "ledger", "manifest", "models", "preparing", "result", "schedule",
        "selection", "settings", "slide", "workers",
    },
    "further": {
        "agenda", "errors", "events", "ledger", "manifest", "mask", "models", "preparing", "result",
        "schedule", "selection", "settings", "slide", "tissue", "workers",
    },
    "many": {
        "batch", "errors", "events", "pipeline", "preparing", "result", "selection", "settings", "slide",
        "stopping",
    },
    "verification": {"errors", "events", "ledger", "lock", "mask", "tissue", "uncertainty"},
    "export": {"drafts", "errors", "events", "mask", "pictures", "pixels", "target", "tiles", "uncertainty"},
    "passes": {"batches", "cluster", "mask", "slide", "tiles", "work"},
    "planning": {
        "answers", "coarse", "errors", "events", "fine", "mask", "memory", "models", "passes", "pixels",
        "preparing", "selection", "settings", "slide", "tiles", "tissue",
    },
    "card": {"models", "quality"},
    "report": {
        "audit", "batch", "card", "drafts", "errors", "events", "export", "mask", "models", "pictures",
        "quality", "selection", "shards", "slide", "summary", "target", "tiles",
    },
    "target": {"errors", "mask", "pictures"},
    "doctor": {"cluster", "errors", "lock", "memory", "models"},
    "pictures": {"errors", "mask", "pixels", "slide", "tiles", "uncertainty"},
    "preview": {"drafts", "mask", "pictures", "pixels", "slide", "target", "tiles"},
    "viewer": {
        "errors", "events", "further", "ledger", "lock", "mask", "pictures", "pixels", "recent", "settings",
        "slide", "stopping", "tiles", "uncertainty",
    },
}  # fmt: skip


def room(path: Path) -> str:
    """First part of the module's name inside the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Rooms of the package that a file imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            names |= (
                {f"{module}.{alias.name}" for alias in node.names} if module == "wsi_twostage" else {module}
            )
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    assert not any(name.split(".")[0] == "wsi_seg" for name in names), (
        f"{path}: the library imports the command"
    )
    return {name.split(".")[1] for name in names if name.startswith("wsi_twostage.")}


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    assert imports(path) - {room(path)} <= ALLOWED[room(path)]


def test_the_table_is_what_the_files_import() -> None:
    found = dict[str, set[str]]()
    for path in FILES:
        found.setdefault(room(path), set()).update(imports(path) - {room(path)})
    assert found == ALLOWED


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_first_line_says_what_a_file_does(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert doc
    assert len(doc.splitlines()[0]) <= 110
