"""Scanners' own formats: what is read is what was written, in every level, and damage is never silent."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from slides import pyramid, texture
from vendor_slides import (
    MPP,
    TILE,
    Written,
    write_bif,
    write_dicom,
    write_mrxs,
    write_ndpi,
    write_philips,
    write_scn,
    write_svs_jp2k,
)

from wsi_twostage.errors import SlideError, UnreadableRegion
from wsi_twostage.slide import Slide, open_slide
from wsi_twostage.slide.view import READERS
from wsi_twostage.tiles import Box

LEVELS = pyramid(texture(392, 520), 3)
FIELDS = pyramid(texture(7 * TILE, 9 * TILE), 3)  # of a camera, side by side
UNSCANNED = [(0, col) for col in range(9)] + [(row, 0) for row in range(7)] + [(3, 3), (4, 7)]


class Case(NamedTuple):
    write: Callable[[Path], Written]
    format: str
    reader: str = "openslide"
    tolerance: int = 0  # in gray values
    compression: str = "JPEG"


CASES = {
    "NDPI": Case(partial(write_ndpi, levels=LEVELS[::2]), "Hamamatsu"),
    "SCN": Case(partial(write_scn, levels=LEVELS), "Leica SCN"),
    "BIF": Case(partial(write_bif, levels=FIELDS), "Ventana"),
    "BIF-overlap": Case(partial(write_bif, levels=FIELDS, overlap=8), "Ventana"),
    "Philips": Case(partial(write_philips, levels=LEVELS), "Philips TIFF"),
    "MRXS": Case(partial(write_mrxs, levels=FIELDS, image_format="JPEG", missing=UNSCANNED), "MIRAX"),
    "MRXS-overlap": Case(
        partial(write_mrxs, levels=FIELDS, overlap=8, missing=UNSCANNED), "MIRAX", compression="PNG"
    ),
    "DICOM": Case(partial(write_dicom, levels=LEVELS), "DICOM"),
    "DICOM-raw": Case(partial(write_dicom, levels=LEVELS, compressed=False), "DICOM", compression="none"),
    "SVS-33005": Case(
        partial(write_svs_jp2k, levels=LEVELS), "Aperio SVS", reader="tiff", compression="APERIO_JP2000_RGB"
    ),
    "SVS-33003": Case(
        partial(write_svs_jp2k, levels=LEVELS, compression=33003),
        "Aperio SVS",
        tolerance=1,  # readers round YCbCr to RGB in their own ways
        compression="APERIO_JP2000_YCBC",
    ),
}


def stored(slide: Slide, index: int, box: Box | None = None) -> NDArray[np.uint8]:
    level = slide.levels[index]
    return READERS[slide.reader](slide.path, level, box or Box(0, 0, level.height, level.width))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_level_is_what_was_written(tmp_path: Path, case: Case) -> None:
    written = case.write(tmp_path)
    slide = open_slide(written.path)
    assert (slide.format, slide.reader, slide.compression) == (case.format, case.reader, case.compression)
    assert slide.mpp == pytest.approx(MPP)
    assert slide.mpp_source == "file"
    assert slide.origin == written.origin
    assert [(level.height, level.width) for level in slide.levels] == [a.shape[:2] for a in written.levels]
    assert [level.downsample for level in slide.levels] == [
        (2.0**index, 2.0**index) for index in range(len(written.levels))
    ]
    for level, expected in zip(slide.levels, written.levels, strict=True):
        whole = Box(0, 0, level.height, level.width)
        for box in (whole, Box(27, 31, 141, 167).clip(level.height, level.width)):
            found = stored(slide, level.index, box)
            np.testing.assert_allclose(found.astype(int), expected[box.slices], rtol=0, atol=case.tolerance)


def test_what_was_not_scanned_is_white(tmp_path: Path) -> None:
    """Of the MRXS, the first row and column of fields are cut off, and (3, 3) is white."""
    mirax = open_slide(write_mrxs(tmp_path, FIELDS, missing=UNSCANNED).path)
    assert mirax.origin == (TILE, TILE)
    for index in range(3):
        field = TILE >> index
        assert (stored(mirax, index, Box(2 * field, 2 * field, field, field)) == 255).all()
    philips = open_slide(write_philips(tmp_path, LEVELS, missing=[4]).path)
    assert (stored(philips, 0, Box(0, 4 * TILE, TILE, TILE)) == 255).all()


def test_a_slide_begins_at_a_whole_pixel_of_all_its_levels(tmp_path: Path) -> None:
    """Up and to the left of what Leica says was scanned, where that is no multiple of 4 px."""
    written = write_scn(tmp_path, LEVELS, origin=(50, 101))
    slide = open_slide(written.path)
    assert slide.origin == (48, 100)
    expected = np.pad(written.levels[0], ((2, 0), (1, 0), (0, 0)), constant_values=255)
    np.testing.assert_array_equal(stored(slide, 0), expected)


def test_an_ndpi_beyond_4_gib_is_read(tmp_path: Path) -> None:
    """Not a byte of its levels lies below 4 GiB."""
    if not has_sparse_files(tmp_path):
        pytest.skip("the file system has no sparse files")
    written = write_ndpi(tmp_path, LEVELS[::2], start=2**32 + 12345)
    assert written.path.stat().st_size > 2**32
    with tifffile.TiffFile(written.path) as tiff:  # another reader, which reads the high halves
        assert min(tiff.pages[0].dataoffsets) > 2**32
    slide = open_slide(written.path)
    for index, expected in enumerate(written.levels):
        np.testing.assert_array_equal(stored(slide, index), expected)
    assert len(slide.fingerprint) == 64


def has_sparse_files(folder: Path) -> bool:
    path = folder / "sparse"
    with open(path, "wb") as file:
        file.seek(2**24)
        file.write(b"\0")
    return getattr(os.stat(path), "st_blocks", 2**16) * 512 < 2**23


def test_the_preview_of_an_mrxs_is_not_the_slide(tmp_path: Path) -> None:
    """A scanner's .mrxs is a small JPEG; the slide is in the folder of the same name."""
    written = write_mrxs(tmp_path, FIELDS)
    shutil.rmtree(written.path.with_suffix(""))
    with pytest.raises(SlideError, match="the preview of an MRXS; its slide is the folder"):
        open_slide(written.path, MPP)


def test_a_slide_of_many_files_is_known_by_all_of_them(tmp_path: Path) -> None:
    """Two of MRXS with the same preview."""
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, seed in ((first, 0), (second, 1)):
        folder.mkdir()
        path = write_mrxs(folder, pyramid(texture(7 * TILE, 9 * TILE, seed=seed), 3)).path
    shutil.copy(first / path.name, path)
    assert open_slide(first / path.name).fingerprint != open_slide(path).fingerprint


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_slide_that_is_cut_off_is_an_error_and_never_wrong_pixels(tmp_path: Path, case: Case) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    written = case.write(whole)
    for file in [path for path in whole.rglob("*") if path.is_file() and path.suffix != ".mrxs"]:
        size = file.stat().st_size
        for length in (200, size // 10, size // 2, size * 9 // 10, size - 9):
            folder = shutil.copytree(whole, tmp_path / f"{file.name}-{length}")
            os.truncate(folder / file.relative_to(whole), length)
            errors = damage_of(folder / written.path.name, written, case.tolerance)
            assert errors, f"{length} of {size} bytes of {file.name}"
            assert "\n" not in "".join(errors)


def damage_of(path: Path, written: Written, tolerance: int) -> list[str]:
    """What is said of a damaged slide, as it is opened and of each level; what is read must be right."""
    try:
        slide = open_slide(path, MPP)
    except SlideError as error:
        return [str(error)]
    right = {level.shape[:2]: level for level in written.levels}
    errors = []
    for level in slide.levels:
        try:
            found = stored(slide, level.index)
        except UnreadableRegion as error:
            errors.append(str(error))
        else:
            expected = right[level.height, level.width]
            np.testing.assert_allclose(found.astype(int), expected, rtol=0, atol=tolerance)
    if len(slide.levels) < len(written.levels):  # OpenSlide passes over DICOM files that it cannot read
        errors.append(f"{len(slide.levels)} levels")
    return errors
