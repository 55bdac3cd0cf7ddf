"""The slide on the pixels of a level of the mask, and the mask drawn on it."""

import numpy as np
from PIL import Image

from wsi_twostage.errors import SlideError
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.pictures import RGB, outline
from wsi_twostage.slide import open_slide
from wsi_twostage.tiles import Box

_INSIDE = 0.35  # how much the inside of an object is coloured, 0..1


def slide_at(store: MaskPyramid, level: int) -> RGB:
    """The slide on the pixels of a level, (H, W, 3); from the overview, where that is as fine or has to do.

    It has to do where the slide is gone, is another one by now, or cannot be read.
    """
    made_from, spec = store.manifest["slide"], store.spec
    if spec.overview_downsample > 2**level:
        try:
            slide = open_slide(made_from["path"], made_from["mpp"], reader=made_from["reader"])
            if slide.fingerprint == made_from["fingerprint"]:
                return slide.view(spec.mpp / slide.mpp * 2**level).read(Box(0, 0, *store.shape(level)))
        except SlideError:
            pass
    return _overview_at(store, level)


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


def _overview_at(store: MaskPyramid, level: int) -> RGB:
    """The overview, from its level that is nearest, at the size of a level of the mask."""
    spec, (height, width) = store.spec, store.shape(level)
    stored = int(np.clip(np.floor(np.log2(2**level / spec.overview_downsample)), 0, store.levels - 1))
    overview = Image.fromarray(store.read_overview(level=stored))
    fine = spec.overview_downsample * 2**stored  # fine pixels per pixel of what was read
    right, bottom = (
        min(size * 2**level / fine, own) for size, own in zip((width, height), overview.size, strict=True)
    )
    resized = overview.resize((width, height), Image.Resampling.BICUBIC, box=(0, 0, right, bottom))
    return np.array(resized, np.uint8)
