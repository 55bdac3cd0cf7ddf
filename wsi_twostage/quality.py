"""How far from the reference a threshold leaves a slide, without labels, and a threshold for a target.

The reference is Model 2 everywhere. On slides that both models saw everywhere, the loss of any threshold is
known exactly; conformal risk control (Angelopoulos et al., ICLR 2024) turns the mean over such slides into a
promise for the next one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.dice import dices
from wsi_twostage.errors import ConfigError
from wsi_twostage.models.spec import Calibration
from wsi_twostage.tissue import TISSUES
from wsi_twostage.uncertainty import of_bytes

THRESHOLDS = np.concatenate([[0.0], np.geomspace(0.002, 1.0, 63)]).round(4)
_TEMPERATURES = np.geomspace(0.25, 16, 121)
_WORST = 1.0  # the gap of a slide is at most this
_BYTES = np.arange(256)
_LOGITS = np.log((_BYTES + 0.5) / (255.5 - _BYTES))  # of 255 times a probability, as `answers.to_logits`

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]


class TileAnswers(NamedTuple):
    """What both models say of one tile, clipped to the slide."""

    probability: NDArray[np.uint8]  # (h, w), 255 times Model 1's, on its grid
    first: NDArray[np.uint8]  # (H, W), Model 1's labels
    second: NDArray[np.uint8]  # (H, W), Model 2's


class Way(NamedTuple):
    """How a slide is seen, as a calibration keeps it; empty: not known, or not all one way."""

    tissue: str = ""
    precision: str = ""


UNKNOWN = Way()


@dataclass(frozen=True, eq=False)
class Case:
    """One slide or image that both models saw everywhere, as counts of each tissue tile."""

    name: str
    histogram: NDArray[np.uint32]
    """(tiles, 256): pixels of Model 1's grid by 255 times its probability."""
    positive: Floats
    """(256,): how many of these, over all tiles, Model 2 calls foreground."""
    overlap: NDArray[np.int64]
    """(tiles, 3): fine pixels that both models call foreground, Model 1, Model 2."""


def tally(name: str, tiles: Iterable[TileAnswers], *, step: int) -> Case:
    """Count the tissue tiles of a slide, one at a time; ``step`` fine pixels make one of Model 1's grid."""
    histograms, overlaps, positive = [], [], np.zeros(256)
    for p, first, second in tiles:
        own = second[step // 2 :: step, step // 2 :: step]  # one of Model 2's pixels for each of Model 1's
        seen = p[: own.shape[0], : own.shape[1]].ravel()
        histograms.append(np.bincount(seen, minlength=256).astype(np.uint32))
        positive += np.bincount(seen, weights=(own > 0).ravel(), minlength=256)
        overlaps.append([((first > 0) & (second > 0)).sum(), (first > 0).sum(), (second > 0).sum()])
    histogram = np.array(histograms, np.uint32).reshape(-1, 256)  # of no tiles, too
    return Case(name, histogram, positive, np.array(overlaps, np.int64).reshape(-1, 3))


def fit_temperature(cases: Sequence[Case], before: float) -> float | None:
    """The temperature with which Model 1 best says what Model 2 will say; ``before`` is in the cases.

    Least cross-entropy (Guo et al., ICML 2017), with Model 2's answer in place of a label. None where that
    is the same everywhere, and so says nothing.
    """
    total = sum((case.histogram.sum(0, dtype=np.float64) for case in cases), np.zeros(256))
    positive = sum((case.positive for case in cases), np.zeros(256))

    if not 0 < positive.sum() < total.sum():
        return None

    def loss(temperature: float) -> float:
        z = _LOGITS * before / temperature
        return float((positive * np.logaddexp(0, -z) + (total - positive) * np.logaddexp(0, z)).sum())

    return float(min(_TEMPERATURES, key=loss))


def calibrate_cases(
    cases: Sequence[Case], *, unit: str, uncertainty: str = "entropy", way: Way = UNKNOWN
) -> Calibration:
    """The mean curves of the cases over `THRESHOLDS`; ``unit`` is what a case is: slides, or images."""
    table = of_bytes(uncertainty, np.arange(256, dtype=np.uint8)[None, None])[0]
    gaps, fractions = zip(*(_curve(case, table) for case in cases), strict=True)
    return Calibration(
        cases=len(cases),
        unit=unit,
        threshold=tuple(THRESHOLDS.tolist()),
        gap=tuple(np.mean(gaps, axis=0).round(6).tolist()),
        refined=tuple(np.mean(fractions, axis=0).round(4).tolist()),
        uncertainty=uncertainty,
        tissue=way.tissue,
        precision=way.precision,
    )


def _curve(case: Case, table: Floats32) -> tuple[Floats, Floats]:
    """1 - Dice to the reference, never falling, and the share of tiles refined, for each threshold."""
    pixels = case.histogram.astype(np.float64)
    scores = pixels @ table / np.maximum(pixels.sum(1), 1)
    order = np.argsort(scores, kind="stable")
    both, first, second = case.overlap[order].T
    skipped = np.searchsorted(scores[order], THRESHOLDS, side="left")  # tiles below each threshold

    def left(values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sum over the tiles that are skipped."""
        return np.concatenate([[0], values.cumsum()])[skipped]

    total = second.sum()
    refined = total - left(second)
    counts = np.stack([left(both) + refined, left(first) + refined, np.full(len(skipped), total)], -1)
    return np.maximum.accumulate(1 - dices(counts)), 1 - skipped / max(len(scores), 1)


def mean_threshold(calibration: Calibration, gap: float) -> float:
    """The highest threshold that left the cases at most this far from the reference, on average."""
    return float(calibration.threshold[np.flatnonzero(np.asarray(calibration.gap) <= gap)[-1]])


def threshold_for(calibration: Calibration | None, target: float, *, uncertainty: str = "entropy") -> float:
    """The highest threshold whose expected gap on a new slide is at most ``target``.

    For n cases with mean gap R, the promise holds where (n R + 1) / (n + 1) <= target: in expectation over
    slides like those of the calibration.

    Raises
    ------
    ConfigError
        No calibration, one of another uncertainty, or too few cases for this target.
    """
    if not 0 < target < 1:
        raise ConfigError(f"target gap {target:g}; it must be within 0..1, such as 0.02")
    if calibration is None:
        raise ConfigError("this model carries no calibration; make one with wsi-seg calibrate")
    if calibration.uncertainty != uncertainty:
        raise ConfigError(f"this model's calibration is of {calibration.uncertainty}, not of {uncertainty}")
    n, unit = calibration.cases, calibration.unit
    bound = (n * np.asarray(calibration.gap) + _WORST) / (n + 1)
    allowed = np.flatnonzero(bound <= target)
    if not len(allowed):
        needed = math.ceil(_WORST / target) - 1
        given = needed if needed < 5 else math.ceil(needed * 5 / 4)  # every fifth fits the temperature
        raise ConfigError(
            f"target gap {target:g}: the calibration rests on {n} {unit}, which can promise "
            f"{least_promise(n):g} at best; {needed} are needed, and so {given} or more for wsi-seg calibrate"
        )
    return float(calibration.threshold[allowed[-1]])


def least_promise(cases: int) -> float:
    """The smallest gap that so many cases can promise, rounded up to three digits, so that it is granted."""
    exact = _WORST / (cases + 1)
    unit = 10.0 ** (math.floor(math.log10(exact)) - 2)
    return round(math.ceil(exact / unit) * unit, 12)


def way_of(made: Mapping[str, Any]) -> Way:
    """Of a manifest, or of settings."""
    tissue = made["tissue"]
    return Way(tissue if tissue in TISSUES else "file", made["precision"])


def unlike(calibration: Calibration, made: Mapping[str, Any]) -> str:
    """What of a run is not as it was in the calibration, for people; empty if nothing is known to differ."""
    ways = zip(Way._fields, way_of(made), (calibration.tissue, calibration.precision), strict=True)
    return ", ".join(f"{name} is {here} and was {then}" for name, here, then in ways if then and then != here)


class Promise(NamedTuple):
    """A target gap that a calibration can promise, and what it takes."""

    target: float
    threshold: float
    refined: float  # of the tiles, on average, 0..1


def promises(calibration: Calibration) -> list[Promise]:
    """What holds of a few targets; those that it cannot promise are left out."""
    kept = []
    for target in (0.005, 0.01, 0.02, 0.03, 0.05, 0.1):
        try:
            threshold = threshold_for(calibration, target, uncertainty=calibration.uncertainty)
        except ConfigError:
            continue
        refined = calibration.refined[calibration.threshold.index(threshold)]
        kept.append(Promise(target, threshold, refined))
    return kept
