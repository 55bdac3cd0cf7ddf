"""u and h of Algorithm 1: how unsure Model 1 is of a pixel, and of a tile."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import ConfigError, did_you_mean

Floats = NDArray[np.float32]

_DICE = 0.85  # to be expected of the whole


def entropy(p: Floats) -> Floats:
    """Shannon entropy of (C, H, W) over its largest value, 0..1 -> (H, W); Section 3.1.

    C = 1 holds the probability of the one class; more hold a distribution over background and classes.
    """
    q = _distribution(p)
    logs = np.log(q, out=np.zeros_like(q), where=q > 0)
    return np.asarray(-(q * logs).sum(0) / np.log(q.shape[0]), np.float32)


def margin(p: Floats) -> Floats:
    """1 minus the lead of the likeliest class over the next; 1 - |1 - 2p| for one class.

    This is what the published code of the paper computes.
    """
    ordered = np.sort(_distribution(p), axis=0)
    return np.asarray(1 - (ordered[-1] - ordered[-2]), np.float32)


def paper(p: Floats) -> Floats:
    """u(p) = -p log2 p, as the paper prints it; its peak, 0.53, is at p = 1/e and not at 1/2.

    With several classes, the mean over all but the background.
    """
    q = p if p.shape[0] == 1 else p[1:]
    logs = np.log2(q, out=np.zeros_like(q), where=q > 0)
    return np.asarray(-(q * logs).mean(0), np.float32)


def expected_gain(p: Floats) -> Floats:
    """What Dice a pixel is expected to gain from the right answer, over its largest value, 0..1.

    The chance that the likeliest answer is wrong, times what that costs: at a Dice of D, a missed pixel of
    foreground is worth 2 - D, a false one D (the derivative of 2 I / (P + T)). It needs calibrated
    probabilities.
    """
    q = _distribution(p)
    missed = np.where(q.argmax(0) == 0, 2 - _DICE, _DICE)
    return np.asarray((1 - q.max(0)) * missed / ((1 - 1 / len(q)) * (2 - _DICE)), np.float32)


UNCERTAINTIES: dict[str, Callable[[Floats], Floats]] = {
    "entropy": entropy,
    "margin": margin,
    "paper": paper,
    "expected_gain": expected_gain,
}


def ensure_uncertainty(name: str) -> None:
    """Raise ConfigError where no uncertainty has this name."""
    if name not in UNCERTAINTIES:
        near = did_you_mean(name, UNCERTAINTIES)
        raise ConfigError(f"uncertainty={name!r}; use {', '.join(UNCERTAINTIES)}{near}")


def of_bytes(name: str, probability: NDArray[np.uint8]) -> Floats:
    """The named uncertainty of 255 times the probability, (C, H, W) -> (H, W)."""
    ensure_uncertainty(name)
    u = UNCERTAINTIES[name]
    if len(probability) > 1:
        return u(np.divide(probability, 255, dtype=np.float32))
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 1, -1)
    table = u(values)[0]  # one logarithm for each of 256 values, not for each pixel
    return np.asarray(table[probability[0]], np.float32)


def tile_mean(u: Floats, cell: int) -> Floats:
    """h: mean of ``u`` (H, W) over exactly each cell of ``cell`` px -> (rows, cols), clipped."""
    rows, cols = range(0, u.shape[0], cell), range(0, u.shape[1], cell)
    means = [[u[y : y + cell, x : x + cell].mean(dtype=np.float64) for x in cols] for y in rows]
    return np.asarray(means, np.float32).reshape(len(rows), len(cols))


def _distribution(p: Floats) -> Floats:
    return p if p.shape[0] > 1 else np.concatenate([1 - p, p])
