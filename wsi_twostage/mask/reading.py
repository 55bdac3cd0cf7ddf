"""Parts of a result, or one line that says which of them is damaged."""

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.mask.store import MaskPyramid
from wsi_twostage.tiles import Box


def read_labels(mask: MaskPyramid, box: Box, level: int = 0) -> NDArray[np.uint8]:
    """Labels of a box inside the level, (H, W).

    Raises
    ------
    StoreError
        They cannot be decoded.
    """
    with mask.readable(f"labels of {_place(box)} of level {level}"):
        return mask.read(box, level)


def read_probability(mask: MaskPyramid, box: Box) -> NDArray[np.uint8]:
    """(C, H, W), 255 times the probability; ``box`` inside Model 1's grid; raises as `read_labels`."""
    with mask.readable(f"Model 1's answer to {_place(box)} of its grid"):
        return mask.read_probability(box)


def read_source(mask: MaskPyramid) -> NDArray[np.uint8]:
    """Where the labels of each tile come from, (rows, cols); raises as `read_labels`."""
    with mask.readable("the map of sources"):
        return mask.read_source()


def _place(box: Box) -> str:
    return f"rows {box.top}..{box.bottom}, columns {box.left}..{box.right}"
