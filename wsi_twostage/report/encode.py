"""Pictures as data URIs, so that a page holds them."""

import io
from base64 import b64encode

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_twostage.pictures import RGB

QUALITY = 82  # of JPEG


def jpeg(rgb: RGB) -> str:
    """As a data URI."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def png(places: NDArray[np.uint8], palette: NDArray[np.uint8], alpha: list[int]) -> str:
    """Places in a palette (n, 3), with the opacity of each, 0..255, as a data URI."""
    image, file = Image.fromarray(places), io.BytesIO()
    image.putpalette(palette.tobytes())
    image.save(file, "PNG", transparency=bytes(alpha), optimize=True)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def png_line(line: NDArray[np.bool_], colour: tuple[int, int, int]) -> str:
    """Pixels of one colour, the rest clear, as a data URI."""
    return png(line.astype(np.uint8), np.array([(0, 0, 0), colour], np.uint8), [0, 255])
