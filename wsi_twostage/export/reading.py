"""Parts of a result, or one line that says which of them is damaged."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import StoreError
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.tiles import Box


def read_labels(mask: MaskPyramid, box: Box, level: int = 0) -> NDArray[np.uint8]:
    """Labels of a box inside the level, (H, W).

    Raises
    ------
    StoreError
        They cannot be decoded.
    """
    with _told(mask, f"labels of {_place(box)} of level {level}"):
        return mask.read(box, level)


def read_probability(mask: MaskPyramid, box: Box) -> NDArray[np.uint8]:
    """(C, H, W), 255 times the probability; ``box`` inside Model 1's grid; raises as `read_labels`."""
    with _told(mask, f"Model 1's answer to {_place(box)} of its grid"):
        return mask.read_probability(box)


def read_source(mask: MaskPyramid) -> NDArray[np.uint8]:
    """Where the labels of each tile come from, (rows, cols); raises as `read_labels`."""
    with _told(mask, "the map of sources"):
        return mask.read_source()


@contextmanager
def _told(mask: MaskPyramid, what: str) -> Iterator[None]:
    """Stores and codecs raise what they like; it is no fault of the file that is written."""
    try:
        yield
    except Exception as error:
        raise StoreError(
            f"{mask.path}: {what} cannot be read ({type(error).__name__}); "
            f"wsi-seg verify says what is damaged"
        ) from error


def _place(box: Box) -> str:
    return f"rows {box.top}..{box.bottom}, columns {box.left}..{box.right}"
