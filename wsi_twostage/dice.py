"""Pixels that two masks share, and the Dice they come to."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
"""Pixels in both, in the mask, in the target: the last axis has these three."""


def overlap(mask: Any, target: Any) -> Counts:
    """(3,): pixels in both, in the mask, in the target; boolean arrays or tensors."""
    return np.array([int((mask & target).sum()), int(mask.sum()), int(target.sum())], np.float64)


def dice(counts: Counts) -> float:
    """Of (3,), 0..1; 1 where there is nothing and nothing was found."""
    return float(dices(counts))


def dices(counts: NDArray[Any]) -> Counts:
    """Of each, (..., 3) -> (...), as `dice`."""
    both, predicted, target = np.moveaxis(counts, -1, 0)
    total = predicted + target
    return np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)
