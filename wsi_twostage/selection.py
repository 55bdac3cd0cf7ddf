"""g of Algorithm 1: which tiles Model 2 gets, and in which order."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Threshold:
    """Every tile whose uncertainty is at least this, 0..1 (the paper's rule, with >=)."""

    value: float  # 0..1

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise ConfigError(f"threshold={self.value}; it must be within 0..1")

    def __str__(self) -> str:
        return f"threshold {self.value:g}"


@dataclass(frozen=True, slots=True)
class Fraction:
    """The most uncertain share, 0..1, of the tissue tiles, over the whole slide."""

    value: float  # 0..1

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise ConfigError(f"budget={self.value:.4g} of the tiles; expected a share within 0 % and 100 %")

    def __str__(self) -> str:
        if self.value in (0, 1):
            return "refine all" if self.value else "refine none"
        return f"budget {100 * self.value:g}%"


@dataclass(frozen=True, slots=True)
class TargetGap:
    """The threshold that the bundle's calibration promises this for: 1 - Dice to refining all, 0..1."""

    value: float  # 0..1

    def __str__(self) -> str:
        return f"target gap {self.value:g}"


@dataclass(frozen=True, slots=True)
class TileCount:
    """So many tiles, the most uncertain."""

    value: int

    def __post_init__(self) -> None:
        if not self.value >= 0 or self.value % 1:  # of what is no number, or none that ends, too
            raise ConfigError(f"budget={self.value} tiles; expected a whole number, 0 or more")

    def __str__(self) -> str:
        return f"budget {self.value} tiles"


@dataclass(frozen=True, slots=True)
class Duration:
    """The most uncertain tiles, until so many seconds of wall time are over, from the start of the run."""

    value: float  # s

    def __post_init__(self) -> None:
        if not self.value > 0:
            raise ConfigError(f"budget={self.value:g} s; it must be positive")

    def __str__(self) -> str:
        return f"budget {self.value:g}s"


Rule = Threshold | Fraction | TileCount | Duration
RULES = (Threshold, Fraction, TileCount, Duration)
ALL = Fraction(1.0)
NONE = Fraction(0.0)


def ensure_rule(rule: object) -> None:
    """Raise ConfigError for a number, a text, or whatever else says less than a rule does."""
    if not isinstance(rule, RULES):
        names = ", ".join(kind.__name__ for kind in RULES)
        raise ConfigError(f"rule={rule!r}; give one of {names}, such as {Fraction(0.1)!r}")


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen tiles of a grid."""

    chosen: NDArray[np.bool_]  # (rows, cols)
    order: NDArray[np.int64]
    """Flat indices of the chosen tiles, most uncertain first; ties in reading order."""


def select(
    scores: NDArray[np.float32], tissue: NDArray[np.bool_], rule: Rule, *, of: int | None = None
) -> Selection:
    """Choose among the tiles with ``tissue`` by ``scores``, both (rows, cols).

    A share is one ``of`` so many tiles; None: of these.

    Raises
    ------
    ConfigError
        No rule.
    """
    ensure_rule(rule)
    candidates = np.flatnonzero(tissue)
    ranked = candidates[np.argsort(-scores.ravel()[candidates], kind="stable")]
    if isinstance(rule, Threshold):
        order = ranked[scores.ravel()[ranked] >= rule.value]
    elif isinstance(rule, Fraction):
        order = ranked[: round(rule.value * (len(ranked) if of is None else of))]
    elif isinstance(rule, TileCount):
        order = ranked[: int(rule.value)]
    else:  # as many as there is time for
        order = ranked
    chosen = np.zeros(scores.shape, np.bool_)
    chosen.ravel()[order] = True
    return Selection(chosen, order)


def is_timed(said: str) -> bool:
    """Whether a rule, as a manifest says it, was a budget of time.

    >>> is_timed("budget 120s in tumour.geojson"), is_timed("budget 500 tiles")
    (True, False)
    """
    return re.match(r"budget \S+s\b", said) is not None


_UNITS = {"s": 1, "min": 60, "h": 3600}


def parse_budget(text: str) -> Fraction | TileCount | Duration:
    """``10%``, ``500tiles``, ``120s``, ``30min``, ``2h``.

    Raises
    ------
    ConfigError
        Anything else.

    >>> parse_budget("30min")
    Duration(value=1800.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|tiles?|s|min|h)\s*", text)
    if found is None:
        raise ConfigError(f"budget {text!r}: expected a share, tiles or time: 10%, 500tiles, 120s, 30min")
    number, unit = float(found[1]), found[2]
    if unit == "%":
        return Fraction(number / 100)
    if unit.startswith("tile"):
        if not found[1].isdigit():
            raise ConfigError(f"budget {text!r}: tiles are whole, such as 500tiles")
        return TileCount(int(found[1]))
    return Duration(number * _UNITS[unit])
