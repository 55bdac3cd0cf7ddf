"""What a compressed tile says about its own size, looked at before a decoder makes room for it."""

import struct
from collections.abc import Callable

from tifffile.tifffile import jpeg_shape

from wsi_twostage.slide.contents import Size

_SOC_SIZ = b"\xff\x4f\xff\x51"  # ISO/IEC 15444-1, A.5.1: start of a codestream, then its image's size
_EOI = b"\xff\xd9"  # ITU T.81, table B.1: end of image
JPEG, _JPEG_2000 = (6, 7, 33007, 34892), (33003, 33004, 33005, 34712)  # TIFF's numbers
_WEBP = (34927, 50001)


def size_of_jpeg(data: bytes) -> Size:
    """Of its first frame; raises ValueError or struct.error where it has none, or was cut off.

    libjpeg would fill what is missing with gray, and only warn. It warns where just the end is missing, too,
    since it reads ahead; OpenSlide takes that for an error, as is done here.
    """
    if data.rfind(_EOI) < 0:
        raise ValueError("a JPEG without its end")
    _, height, width, _ = jpeg_shape(data)
    return Size(height, width)


def size_of_jpeg_2000(data: bytes) -> Size:
    """Of a codestream, bare or in a JP2 file; raises ValueError or struct.error where there is none."""
    start = data.index(_SOC_SIZ) + len(_SOC_SIZ)
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 4)
    return Size(bottom - top, right - left)


def size_of_webp(data: bytes) -> Size:
    """Of its canvas (RFC 9649, 2.5 to 2.7); raises ValueError or struct.error where it has none."""
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<2H", data, 26))
    elif kind == b"VP8L":
        (sides,) = struct.unpack_from("<I", data, 21)
        width, height = (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    else:
        raise ValueError("not a WebP")
    return Size(height, width)


def measure_of(compression: int) -> Callable[[bytes], Size] | None:
    """How the size of a TIFF's tile is found before it is decoded; None: its decoder is told the size."""
    measures = (JPEG, size_of_jpeg), (_JPEG_2000, size_of_jpeg_2000), (_WEBP, size_of_webp)
    return next((measure for codes, measure in measures if compression in codes), None)
