"""Pixels and objects of each class on the finest level."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.events import Listener, ignore
from wsi_twostage.mask import MaskPyramid

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Measured:
    """Totals of a mask, (classes,) each."""

    pixels: Counts
    objects: Counts
    """As `wsi_twostage.export` has them: parts of one class that hang together by sides of pixels."""


def measure(store: MaskPyramid, *, listener: Listener = ignore) -> Measured:
    """Count over level 0, block by block.

    Raises
    ------
    StoreError
        A part of it cannot be decoded.
    """
    from wsi_twostage.export.objects import objects  # here: scipy and scikit-image take a while

    kinds = len(store.spec.classes) + 1
    pixels, count = np.zeros(kinds, np.int64), np.zeros(kinds, np.int64)
    for found in objects(store, listener=listener, stage="areas"):
        label = found.table["label"]
        count += np.bincount(label, minlength=kinds)
        np.add.at(pixels, label, found.table["area"])
    return Measured(pixels[1:], count[1:])
