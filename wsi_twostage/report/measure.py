"""Pixels and objects of each class on the finest level, one shard at a time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.events import Listener, Started, TilesDone, ignore
from wsi_twostage.ledger import Ledger
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.tiles import Box

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Measured:
    """Totals of a mask, (classes,) each."""

    pixels: Counts
    objects: Counts
    """Parts of one class that hang together by sides of pixels; touching objects are one."""


def measure(store: MaskPyramid, *, listener: Listener = ignore) -> Measured:
    """Count over level 0; at most one shard and a row and a column more are in memory."""
    classes, tissue, grid = len(store.spec.classes), Ledger.read(store).tissue, store.spec.tiles
    height, width = store.shape()
    boxes = [store.box(shard) for shard in store.shards()]
    boxes = [box for box in boxes if tissue[box.coarser(grid.tile).slices].any()]  # the others are empty
    pixels, objects = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    listener(Started("areas", len(boxes)))
    for box in boxes:
        window = Box(box.top, box.left, box.height + 1, box.width + 1).clip(height, width)
        labels = store.read(window)
        pixels += np.bincount(labels[: box.height, : box.width].ravel(), minlength=classes + 1)[1:]
        objects += own_objects(
            labels, classes, below=window.height > box.height, right=window.width > box.width
        )
        listener(TilesDone("areas", 1, box.area / 1e6))
    return Measured(pixels, objects)


def own_objects(labels: NDArray[np.uint8], classes: int, *, below: bool, right: bool) -> Counts:
    """Objects of a window (H, W), so that the sum over all windows is the number in the mask, (classes,).

    Windows share a row with what lies ``below`` and a column with what is to the ``right``: the last. What is
    in two windows is counted in both, so that the parts of the shared row and column are taken off again, and
    the shared corner, taken off twice, put back. Exact but for an object that leaves a window and comes back
    around a hole, which counts one less for each time.
    """
    from scipy import ndimage  # here: it is large, and only reports need it

    found = np.zeros(classes, np.int64)
    for label in np.unique(labels[labels > 0]):
        own = labels == label
        count = ndimage.label(own)[1]
        if below:
            count -= _runs(own[-1])
        if right:
            count -= _runs(own[:, -1])
        if below and right:
            count += int(own[-1, -1])
        found[label - 1] = count
    return found


def _runs(line: NDArray[np.bool_]) -> int:
    """How many unbroken parts, (n,)."""
    return int(line[0]) + int((line[1:] & ~line[:-1]).sum())
