"""Images without a pyramid, decoded as a whole: PNG, JPEG, and TIFF in strips (Pillow)."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsi_twostage.errors import SlideError, UnreadableRegion
from wsi_twostage.slide.contents import (
    Contents,
    FileKey,
    FoundMpp,
    Level,
    Size,
    Unsupported,
    cannot_open,
    make_levels,
    said,
)
from wsi_twostage.slide.scale import PLAUSIBLE, mpp_of_ome
from wsi_twostage.slide.strips import ensure_whole
from wsi_twostage.slide.tiff_pages import DECODE_ERRORS, ORIENTATION, ensure_upright
from wsi_twostage.tiles import Box

BACKGROUND = 255  # under what has an alpha
LARGEST_PX = 178_956_970  # from here on Pillow suspects a bomb; 537 MB of RGB, held as a whole
_TILE = Size(1024, 1024)  # of reads: the image has none
_FORMATS = ("PNG", "JPEG", "TIFF")
_GRAY, _COLOUR, _ALPHA = ("1", "L"), ("RGB", "YCbCr", "CMYK", "P"), ("RGBA", "LA", "PA")
_UM_PER_INCH = 25_400.0
_IMAGE_DESCRIPTION = 270  # TIFF's tag

# What Pillow raises on bad data.
_DECODE_ERRORS = (
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    MemoryError,
)

_decoding = Lock()


def describe(path: str) -> Contents:
    """What the image is; decodes no pixels.

    Raises
    ------
    Unsupported
        Not an image that Pillow knows.
    SlideError
        The file cannot be opened, is too large to be held, or is not of 8 bits.
    """
    if path.lower().endswith(".mrxs"):  # a JPEG, but of the whole slide at once
        raise Unsupported(f"{path}: the preview of an MRXS; its slide is the folder of that name beside it")
    with _opened(path) as image:
        width, height = image.size
        if getattr(image, "n_frames", 1) > 1:
            raise Unsupported(f"{path}: holds several images, and no pyramid")
        if image.mode not in (*_GRAY, *_COLOUR, *_ALPHA):
            raise SlideError(f"{path}: its pixels are of mode {image.mode}; 8-bit (uint8) are needed")
        if ";16" in str(getattr(image, "tile", "")):  # of which Pillow would give the high bytes
            raise SlideError(f"{path}: its pixels are of 16 bits; 8-bit (uint8) are needed")
        if image.format != "PNG":  # of which Pillow would decode all to find it
            ensure_upright(path, image.getexif().get(ORIENTATION, 1))
        return Contents(
            format=str(image.format),
            compression=str(image.info.get("compression", image.format)),
            levels=make_levels([Size(height, width)], [_TILE]),
            mpp=_mpp(image),
        )


def read(path: str, level: Level, box: Box) -> NDArray[np.uint8]:
    """Pixels of a box -> (box.height, box.width, 3); the whole image is decoded the first time.

    Raises
    ------
    UnreadableRegion
        It cannot be decoded.
    SlideError
        The file cannot be opened any more, or was replaced.
    """
    with _decoding:  # once, whichever thread asks first
        pixels = _decode(FileKey.of(path))
    if isinstance(pixels, UnreadableRegion):
        raise UnreadableRegion(str(pixels))
    if pixels.shape != (level.height, level.width, 3):
        raise SlideError(f"{path}: has been replaced since it was opened; run again")
    return pixels[box.slices].copy()  # what is kept is not to be written to


@lru_cache(maxsize=2)
def _decode(key: FileKey) -> NDArray[np.uint8] | UnreadableRegion:
    """All of it, (H, W, 3); or, so that it is known without trying again, why not."""
    with _opened(key.path) as image:
        try:
            if image.format == "TIFF":
                ensure_whole(key.path)
            if image.mode in _ALPHA or "transparency" in image.info:
                below = Image.new("RGBA", image.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255))
                image = Image.alpha_composite(below, image.convert("RGBA"))
            return np.asarray(image.convert("RGB"))
        except (*_DECODE_ERRORS, *DECODE_ERRORS, OSError) as error:
            key.ensure_current()
            failure = UnreadableRegion(f"{key.path}: cannot be decoded ({said(error)})")
            if isinstance(error, MemoryError):  # there may be room another time
                raise failure from error
            return failure


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """Its header is read. What the block decodes may fail as `_DECODE_ERRORS` and OSError say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, for which `describe` has a limit, and of odd tags
        try:
            with Image.open(path, formats=_FORMATS) as image:
                yield image
        except Image.DecompressionBombError as error:
            raise SlideError(
                f"{path}: more than {LARGEST_PX:,} px in one piece; as a tiled TIFF or an OME-Zarr "
                f"it can be read"
            ) from error
        except (UnidentifiedImageError, *_DECODE_ERRORS) as error:
            raise Unsupported(f"{path}: not a PNG, a JPEG or a TIFF ({said(error)})") from error
        except OSError as error:
            raise cannot_open(path, error) from error


def _mpp(image: Image.Image) -> FoundMpp | None:
    """From OME-XML; else from its dots per inch, where they are not those of a screen or a printer."""
    described = str(getattr(image, "tag_v2", {}).get(_IMAGE_DESCRIPTION, ""))
    xml = described.encode("latin-1", "replace").decode("utf-8", "replace")  # Pillow takes it for the former
    if told := mpp_of_ome(xml, Size(image.height, image.width)):
        return told
    x, y = (float(value) for value in image.info.get("dpi", (0, 0)))
    if x <= 0 or y <= 0:
        return None
    found = FoundMpp(_UM_PER_INCH / y, _UM_PER_INCH / x, "dots per inch")
    return found if all(PLAUSIBLE[0] <= value <= PLAUSIBLE[1] for value in found[:2]) else None
