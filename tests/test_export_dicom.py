"""The mask of a DICOM slide as a DICOM Segmentation that lies where the slide lies."""

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from slides import pyramid, texture
from test_export import SPEC, blobs, write_store
from vendor_slides import MPP, write_dicom

from wsi_twostage.errors import ConfigError, SlideError, StoreError
from wsi_twostage.export import Options, export
from wsi_twostage.slide import open_slide


def told(path: Path) -> dict[str, object]:
    """What a result says of its slide."""
    slide = open_slide(path)
    known = {"path": str(path), "mpp": slide.mpp, "reader": slide.reader}
    return {**known, "fingerprint": slide.fingerprint}


def with_patient(path: Path) -> Path:
    """Our small DICOM slides lack what no reader of pixels needs; here it is."""
    told = pydicom.dcmread(path)
    told.PatientName = told.PatientID = told.PatientBirthDate = told.PatientSex = ""
    told.StudyInstanceUID, told.FrameOfReferenceUID = "2.25.7", "2.25.8"
    told.StudyID = told.AccessionNumber = told.StudyDate = told.StudyTime = ""
    told.ReferringPhysicianName = told.PositionReferenceIndicator = ""
    told.ContainerIdentifier, told.Modality = "slide", "SM"
    told.ContainerTypeCodeSequence = told.IssuerOfTheContainerIdentifierSequence = []
    told.SpecimenDescriptionSequence = []
    told.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    told.OpticalPathSequence[0].OpticalPathIdentifier = "1"
    told.TotalPixelMatrixFocalPlanes = told.NumberOfOpticalPaths = 1
    told.ImagedVolumeDepth = 0.001
    told.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = 0.001
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20.0, 40.0
    told.TotalPixelMatrixOriginSequence = [origin]
    told.save_as(path)
    return path


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    (tmp_path / "dicom").mkdir()
    write_dicom(tmp_path / "dicom", pyramid(texture(768, 1024), 2))
    for path in (tmp_path / "dicom").iterdir():
        with_patient(path)
    return tmp_path / "dicom" / "level-1.dcm"  # whichever of its files was named


def test_the_segmentation_is_the_mask_and_lies_on_the_slide(tmp_path: Path, slide: Path) -> None:
    opened = open_slide(slide)
    assert opened.height == 768
    spec = replace(SPEC, height=1536, width=2048, mpp=MPP / 2, overview_height=192, overview_width=256)
    labels = blobs(2301, 2180)[500:2036, :2048]
    mask = write_store(tmp_path / "a.zarr", labels, spec, **told(slide))
    done = export(mask, tmp_path / "a.dcm", options=Options(mpp=MPP))
    found = hd.seg.segread(done.path)
    assert found.number_of_segments == 2
    assert [found.get_segment_description(n).segment_label for n in (1, 2)] == ["tumour", "stroma"]
    matrix = found.get_total_pixel_matrix(combine_segments=True)
    np.testing.assert_array_equal(matrix, mask.lazy(1).compute())
    source = pydicom.dcmread(slide.with_name("level-0.dcm"))
    assert found.StudyInstanceUID == source.StudyInstanceUID
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID


@pytest.mark.parametrize(
    ("mpp", "level", "shift_px"), [(MPP / 2, 0, -0.25), (MPP, 1, 0.0), (2 * MPP, 2, 0.5)]
)
def test_the_first_pixel_of_a_level_lies_on_the_corner_of_the_slide(
    tmp_path: Path, slide: Path, mpp: float, level: int, shift_px: float
) -> None:
    spec = replace(SPEC, height=1536, width=2048, mpp=MPP / 2, overview_height=192, overview_width=256)
    labels = np.ones((1536, 2048), np.uint8)
    mask = write_store(tmp_path / "a.zarr", labels, spec, **told(slide))
    found = pydicom.dcmread(export(mask, tmp_path / "a.dcm", options=Options(mpp=mpp)).path)
    assert (found.TotalPixelMatrixRows, found.TotalPixelMatrixColumns) == mask.shape(level)
    origin = found.TotalPixelMatrixOriginSequence[0]
    shift_mm = shift_px * MPP / 1000  # along -y for a row, along -x for a column
    assert float(origin.YOffsetInSlideCoordinateSystem) == pytest.approx(40 - shift_mm, abs=1e-9)
    assert float(origin.XOffsetInSlideCoordinateSystem) == pytest.approx(20 - shift_mm, abs=1e-9)
    spacing = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert float(spacing[0]) == pytest.approx(mpp / 1000)


def test_it_lies_on_the_slide_whatever_scale_the_run_was_told(tmp_path: Path, slide: Path) -> None:
    spec = replace(SPEC, height=384, width=512, mpp=8.0, overview_height=48, overview_width=64)
    mask = write_store(tmp_path / "a.zarr", np.ones((384, 512), np.uint8), spec, **told(slide) | {"mpp": 4.0})
    found = pydicom.dcmread(export(mask, tmp_path / "a.dcm").path)
    spacing = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert [float(mm) for mm in spacing] == pytest.approx([2 * MPP / 1000] * 2)
    origin = found.TotalPixelMatrixOriginSequence[0]
    assert float(origin.YOffsetInSlideCoordinateSystem) == pytest.approx(40 - MPP / 2000, abs=1e-9)


@pytest.mark.parametrize(
    ("charset", "name", "sound"),
    [
        (None, "tumour", True),
        (None, "Drüse", False),
        ("ISO_IR 100", "Drüse", True),
        ("ISO_IR 100", "核", False),
        ("ISO_IR 192", "核", True),
        ("ISO_IR 192", "one\\other", False),
        ("ISO_IR 192", 65 * "x", False),
    ],
)
def test_a_class_that_dicom_would_call_otherwise_is_refused(
    tmp_path: Path, slide: Path, charset: str | None, name: str, sound: bool
) -> None:
    for path in slide.parent.iterdir():
        image = pydicom.dcmread(path)
        if charset:
            image.SpecificCharacterSet = charset
        image.save_as(path)
    spec = replace(
        SPEC, height=768, width=1024, mpp=MPP, overview_height=96, overview_width=128, classes=(name, "other")
    )
    mask = write_store(tmp_path / "a.zarr", blobs(2301, 2180)[:768, :1024], spec, **told(slide))
    if sound:
        found = hd.seg.segread(export(mask, tmp_path / "a.dcm").path)
        assert found.get_segment_description(1).segment_label == name
    else:
        with pytest.raises(ConfigError, match="DICOM takes names of up to 64 characters"):
            export(mask, tmp_path / "a.dcm")


def test_what_is_no_dicom_slide_is_refused(tmp_path: Path) -> None:
    spec = replace(SPEC, height=64, width=64, overview_height=8, overview_width=8)
    labels = np.ones((64, 64), np.uint8)
    (tmp_path / "text.svs").write_text("no DICOM" * 100)
    mask = write_store(tmp_path / "a.zarr", labels, spec, path=str(tmp_path / "text.svs"))
    with pytest.raises(ConfigError, match=r"text.svs is not a DICOM slide, .* --to geojson"):
        export(mask, tmp_path / "a.dcm")
    gone = write_store(tmp_path / "b.zarr", labels, spec, path=str(tmp_path / "gone.dcm"))
    with pytest.raises(SlideError, match="not there any more"):
        export(gone, tmp_path / "a.dcm")
    assert not (tmp_path / "a.dcm").exists()


def test_a_slide_that_lacks_patient_and_study_is_one_line(tmp_path: Path) -> None:
    write_dicom(tmp_path, [texture(256, 256)])
    spec = replace(SPEC, height=256, width=256, mpp=MPP, overview_height=32, overview_width=32)
    labels = np.ones((256, 256), np.uint8)
    mask = write_store(tmp_path / "a.zarr", labels, spec, **told(tmp_path / "level-0.dcm"))
    with pytest.raises(ConfigError, match="no DICOM SEG can refer to it"):
        export(mask, tmp_path / "a.dcm")


def test_a_slide_of_another_patient_in_its_place_is_refused(tmp_path: Path) -> None:
    write_dicom(tmp_path, [texture(256, 256)])
    path, labels = tmp_path / "level-0.dcm", np.ones((256, 256), np.uint8)
    spec = replace(SPEC, height=256, width=256, mpp=MPP, overview_height=32, overview_width=32)
    mask = write_store(tmp_path / "a.zarr", labels, spec, **told(path))
    write_dicom(tmp_path, [texture(256, 256, seed=1)])
    with_patient(path)
    with pytest.raises(StoreError, match=r"is not the slide that .* was made from"):
        export(mask, tmp_path / "a.dcm")
