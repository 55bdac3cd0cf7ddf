"""Labels of a result, or one line that says which part of it is damaged."""

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
    try:
        return mask.read(box, level)
    except Exception as error:  # stores and codecs raise what they like
        raise StoreError(
            f"{mask.path}: rows {box.top}..{box.bottom}, columns {box.left}..{box.right} of level {level} "
            f"cannot be read ({type(error).__name__}); wsi-seg verify says what is damaged"
        ) from error
