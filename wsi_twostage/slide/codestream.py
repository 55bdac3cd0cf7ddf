"""What a compressed tile says about its own size, looked at before a decoder makes room for it."""

import struct
from collections.abc import Callable

from tifffile.tifffile import jpeg_shape

from wsi_twostage.slide.contents import Size

_SOC_SIZ = b"\xff\x4f\xff\x51"  # ISO/IEC 15444-1, A.5.1: start of a codestream, then its image's size
JPEG, _JPEG_2000 = (6, 7, 33007, 34892), (33003, 33004, 33005, 34712)  # TIFF's numbers


def size_of_jpeg(data: bytes) -> Size:
    """Of its first frame; raises ValueError or struct.error where it has none."""
    _, height, width, _ = jpeg_shape(data)
    return Size(height, width)


def size_of_jpeg_2000(data: bytes) -> Size:
    """Of a codestream, bare or in a JP2 file; raises ValueError or struct.error where there is none."""
    start = data.index(_SOC_SIZ) + len(_SOC_SIZ)
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 4)
    return Size(bottom - top, right - left)


def measure_of(compression: int) -> Callable[[bytes], Size] | None:
    """How the size of a TIFF's tile is found before it is decoded; None: its decoder is told the size."""
    return size_of_jpeg if compression in JPEG else size_of_jpeg_2000 if compression in _JPEG_2000 else None
