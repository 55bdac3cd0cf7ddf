"""JPEG tiles decoded into memory of our choice are those that tifffile decodes."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from slides import texture

from wsi_twostage.slide.jpeg import decode_jpeg, decoder_of


@pytest.mark.parametrize(
    ("photometric", "colours"), [("rgb", 3), ("ycbcr", 3), ("minisblack", 1)], ids=["rgb", "ycbcr", "gray"]
)
def test_tiles_are_those_of_tifffile(tmp_path: Path, photometric: str, colours: int) -> None:
    path, image = tmp_path / "slide.tif", texture(128, 192)
    image = image if colours == 3 else image[..., 0]
    with tifffile.TiffWriter(path) as writer:
        writer.write(image, tile=(64, 64), compression="jpeg", photometric=photometric)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        decode = decoder_of(page)
        assert decode is not None
        for index in range(6):
            data = path.read_bytes()[page.dataoffsets[index] :][: page.databytecounts[index]]
            theirs = page.decode(data, index, jpegtables=page.jpegtables)[0][0]
            np.testing.assert_array_equal(decode(data), theirs)


def test_other_compressions_have_no_such_decoder(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, texture(64, 64), tile=(64, 64), compression="zlib", photometric="rgb")
    with tifffile.TiffFile(path) as tiff:
        assert decoder_of(tiff.pages.first) is None


def test_rows_lie_beside_the_boundaries_that_make_the_decoder_slow() -> None:
    data = imagecodecs.jpeg8_encode(texture(64, 96))
    assert all(decode_jpeg(data, shape=(64, 96, 3)).ctypes.data % 32 == 16 for _ in range(8))


def test_a_jpeg_of_another_shape_is_refused() -> None:
    data = imagecodecs.jpeg8_encode(texture(64, 96))
    for shape in ((64, 64, 3), (64, 96, 1), (128, 96, 3)):
        with pytest.raises((ValueError, RuntimeError)):
            decode_jpeg(data, shape=shape)
