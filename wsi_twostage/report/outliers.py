"""Which slides of a batch are unlike the others, and in what; robust, so that none hides another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.report.facts import Facts
from wsi_twostage.report.words import digits, percent

FAR = 3.5
"""Of the modified z-score (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993)."""

LEAST = 6
"""Values, below which the middle of a batch is not known well enough."""

_MAD_TO_SIGMA, _MEAN_AD_TO_SIGMA = 1.4826, 1.2533  # of a normal distribution
_SPECK = 0.003  # beside nothing
_SPREAD = 0.1  # of the median: a batch in which all are nearly the same has no outliers in the third digit


@dataclass(frozen=True, slots=True)
class Feature:
    """A number that each slide of a batch has, or lacks."""

    name: str
    values: NDArray[np.float64]
    """(slides,); NaN where there is none."""
    show: Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Oddity:
    """How far a slide is from the middle of the batch."""

    score: float
    """The largest of its modified z-scores, without sign."""
    reasons: tuple[str, ...]
    """A sentence for each feature in which it is far off, the worst first."""


def features(slides: Sequence[Facts]) -> list[Feature]:
    """What slides of a batch are compared by."""

    def column(value: Callable[[Facts], float | None]) -> NDArray[np.float64]:
        return np.array([np.nan if (v := value(slide)) is None else v for slide in slides], np.float64)

    return [
        Feature("share of the tissue that is covered", column(lambda s: s.covered), percent),
        Feature("tissue (mm²)", column(lambda s: s.tissue_mm2 or None), digits),
        Feature("mean uncertainty", column(lambda s: s.mean_uncertainty), digits),
        Feature("tiles seen by Model 2", column(_seen), percent),
        Feature("estimated gap (1 − Dice)", column(_gap), digits),
        Feature("seconds per tile", column(lambda s: s.tile_seconds), digits),
    ]


def _seen(facts: Facts) -> float | None:
    return facts.counts.share if facts.counts.tissue else None


def _gap(facts: Facts) -> float | None:
    overall = facts.audit.overall if facts.audit and facts.counts.tissue else None
    return overall.gap if overall else None


def modified_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance from the median over the robust spread, (n,); 0 where a value is missing or there are few."""
    known = values[np.isfinite(values)]
    if len(known) < LEAST:
        return np.zeros(len(values))
    middle = float(np.median(known))
    spread = max(_MAD_TO_SIGMA * float(np.median(np.abs(known - middle))), _SPREAD * abs(middle))
    if not spread:  # half of them are 0: as the same authors do where the median deviation is none
        spread = max(_MEAN_AD_TO_SIGMA * float(np.abs(known - middle).mean()), _SPECK)
    return np.nan_to_num((values - middle) / spread)


def oddities(batch: Sequence[Feature]) -> list[Oddity]:
    """One for each slide."""
    scores = np.array([modified_z(feature.values) for feature in batch])  # (features, slides)
    found = []
    for i, own in enumerate(scores.T):
        reasons = [_reason(batch[j], i, own[j]) for j in np.argsort(-np.abs(own)) if abs(own[j]) >= FAR]
        found.append(Oddity(float(np.abs(own).max(initial=0.0)), tuple(reasons)))
    return found


def _reason(feature: Feature, at: int, score: float) -> str:
    low, high = np.nanpercentile(feature.values, [25, 75])
    where = "high" if score > 0 else "low"
    middle = feature.show(float(low))
    if feature.show(float(high)) != middle:
        middle += f" to {feature.show(float(high))}"
    return (
        f"{feature.name} is {where}: {feature.show(float(feature.values[at]))}; half of the slides: {middle}"
    )
