"""What an examination tells: a line, how bad it is, and what to do."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    state: Literal["ok", "note", "problem"]
    """A note costs time or comfort; with a problem a run would fail."""
    what: str
    found: str
    advice: str = ""
    """What to do; empty where all is well."""


def ok(what: str, found: str) -> Finding:
    """All is well."""
    return Finding("ok", what, found)


def note(what: str, found: str, advice: str) -> Finding:
    """Worse than it could be."""
    return Finding("note", what, found, advice)


def problem(what: str, found: str, advice: str) -> Finding:
    """A run would fail."""
    return Finding("problem", what, found, advice)
