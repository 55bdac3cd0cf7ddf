"""The slide on the pixels of a level of the mask, and the mask drawn on it."""

import numpy as np

from wsi_twostage.errors import WsiError
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.pictures import RGB, backdrop, outline, slide_of
from wsi_twostage.tiles import Box

_INSIDE = 0.35  # how much the inside of an object is coloured, 0..1


def slide_at(store: MaskPyramid, level: int) -> RGB:
    """The slide on the pixels of a level, (H, W, 3); the overview where it is gone, or another one by now."""
    try:
        slide = slide_of(store)
    except WsiError:
        slide = None
    return backdrop(store, level, slide)[0]


def drawn(store: MaskPyramid, level: int) -> RGB:
    """The slide at a level with each object in its class's colour: its outline, and fainter its inside."""
    image = slide_at(store, level)
    labels = store.read(Box(0, 0, *store.shape(level)), level)
    colours = np.array([(0, 0, 0), *store.spec.colours], np.uint8)
    inside = labels > 0
    image[inside] = np.rint(image[inside] * (1 - _INSIDE) + colours[labels[inside]] * _INSIDE)
    edge = outline(labels)
    image[edge] = colours[labels[edge]]
    return image
