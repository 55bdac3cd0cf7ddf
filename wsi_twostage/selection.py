"""g of Algorithm 1: which tiles Model 2 gets, and in which order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Threshold:
    """Every tile whose uncertainty is at least this (the paper's rule, with >=)."""

    value: float  # 0..1

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise ConfigError(f"threshold={self.value}; it must be within 0..1")

    def __str__(self) -> str:
        return f"threshold {self.value:g}"


@dataclass(frozen=True, slots=True)
class Fraction:
    """The most uncertain share of the tissue tiles, over the whole slide."""

    value: float  # 0..1

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise ConfigError(f"budget={self.value:.4g} of the tiles; it must be within 0 % and 100 %")

    def __str__(self) -> str:
        return f"budget {100 * self.value:g}%"


@dataclass(frozen=True, slots=True)
class TargetGap:
    """The threshold that the bundle's calibration promises this for: 1 - Dice to refining everything."""

    value: float  # 0..1

    def __str__(self) -> str:
        return f"target gap {self.value:g}"


Rule = Threshold | Fraction
ALL = Fraction(1.0)
NONE = Fraction(0.0)


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen tiles of a grid."""

    chosen: NDArray[np.bool_]  # (rows, cols)
    order: NDArray[np.int64]
    """Flat indices of the chosen tiles, most uncertain first; ties in reading order."""


def select(scores: NDArray[np.float32], tissue: NDArray[np.bool_], rule: Rule) -> Selection:
    """Choose among the tiles with ``tissue`` by ``scores``, both (rows, cols)."""
    candidates = np.flatnonzero(tissue)
    ranked = candidates[np.argsort(-scores.ravel()[candidates], kind="stable")]
    if isinstance(rule, Threshold):
        order = ranked[scores.ravel()[ranked] >= rule.value]
    else:
        order = ranked[: round(rule.value * len(ranked))]
    chosen = np.zeros(scores.shape, np.bool_)
    chosen.ravel()[order] = True
    return Selection(chosen, order)


def parse_budget(text: str) -> Fraction:
    """``10%`` -> Fraction(0.1).

    Raises
    ------
    ConfigError
        Anything that is not a percentage from 0 to 100.
    """
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / 100
    except ValueError:
        share = float("nan")
    if number == text.strip() or not 0 <= share <= 1:
        raise ConfigError(f"budget {text!r}: expected a share of the tissue tiles, such as 10%")
    return Fraction(share)
