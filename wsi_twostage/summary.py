"""The summary of a batch: how each of its slides ended, as JSON and CSV."""

import csv
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_twostage.batch import Entry
from wsi_twostage.drafts import ensure_writable, whole_file
from wsi_twostage.errors import ConfigError

WRITING = 20
"""Times what writing the summary took, until it is written again while slides end."""


@dataclass(frozen=True, slots=True)
class Line:
    """How one slide of a batch ended."""

    slide: str
    output: str
    status: str
    """One of `result.STATUSES`."""
    error: str = ""
    tissue: int = 0
    refined: int = 0
    unreadable: int = 0
    crashed: int = 0
    seconds: float = 0.0


class Summary:
    """Of a batch, written as its slides end; of many that end at once not each time.

    What it says of other results, which earlier batches made, stays.
    """

    def __init__(self, folder: Path, entries: Sequence[Entry]) -> None:
        self._folder, self._entries, self._lines = folder, entries, dict[Entry, Line]()
        self._written = self._took = 0.0
        ours = {os.path.abspath(entry.output) for entry in entries}
        before = _lines_of(folder / "summary.json")
        self._before = [line for line in before if os.path.abspath(line.output) not in ours]

    def ensure_ours(self) -> None:
        """Raise ConfigError if a file of another kind has the name of a summary; it would be replaced."""
        for name, is_ours in (("summary.csv", _is_csv), ("summary.json", _is_json)):
            place = self._folder / name
            if place.exists() and not is_ours(place):
                raise ConfigError(
                    f"{place}: no summary of wsi-seg, and one would replace it; rename it, or give another "
                    f"--output"
                )

    def ensure_writable(self) -> None:
        """Raise WriteError if it cannot be written; what is there stays."""
        ensure_writable(self._folder / "summary.csv")

    def add(self, entry: Entry, line: Line) -> None:
        """How a slide ended; on disk at once, unless that took too much of the time."""
        self._lines[entry] = line
        if time.perf_counter() - self._written >= WRITING * self._took:
            self.write()

    def write(self) -> Path:
        """All there is; gives the place of the first file, and raises as `write_summary`."""
        start = time.perf_counter()
        lines = [self._lines[entry] for entry in self._entries if entry in self._lines]
        place = write_summary(self._folder, [*self._before, *lines])
        self._written = time.perf_counter()
        self._took = self._written - start
        return place


def _is_csv(path: Path) -> bool:
    """Whether a file is the table of a summary."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            return file.readline().startswith("slide,output,status,")
    except (OSError, ValueError):
        return False


def _lines_of(path: Path) -> list[Line]:
    """Of a summary; none where there is none, or one of another version."""
    try:
        return [Line(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _is_json(path: Path) -> bool:
    try:
        return is_summary(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def is_summary(rows: object) -> bool:
    """Whether a JSON file held the lines of a summary; others may have a file of its name, too."""
    needed = {"output", "status"}
    return isinstance(rows, list) and all(isinstance(row, dict) and needed <= row.keys() for row in rows)


def write_summary(folder: Path, lines: Iterable[Line]) -> Path:
    """``summary.json`` and ``summary.csv``, each whole or as it was; gives the first.

    Raises
    ------
    WriteError
        The folder cannot be written to.
    """
    rows: list[dict[str, Any]] = [{name: getattr(line, name) for name in Line.__slots__} for line in lines]
    with (
        whole_file(folder / "summary.csv") as draft,
        draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,  # whatever the names
    ):
        writer = csv.DictWriter(file, Line.__slots__)
        writer.writeheader()
        writer.writerows(rows)
    with whole_file(place := folder / "summary.json") as draft:
        draft.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return place
