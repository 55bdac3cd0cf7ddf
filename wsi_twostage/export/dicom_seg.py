"""The mask as a DICOM Segmentation of a DICOM slide; by highdicom, which is an extra."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import ConfigError, SlideError
from wsi_twostage.events import Listener, Started, TilesDone
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.pictures import slide_of
from wsi_twostage.tiles import TileGrid

TILE = 512  # pixels of a frame's side
SERIES_NUMBER = 100
_NUCLEUS = ("84640000", "SCT", "Nucleus")
_LONGEST = 64  # characters of a name
_OURS = "99WSISEG"  # DICOM wants 99 before the name of a private coding scheme


def ensure_dicom() -> None:
    """Raise ConfigError where highdicom is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "--to dicom-seg needs highdicom; pip install 'wsi-twostage[dicom]', or take another format"
        ) from error


def source_of(mask: MaskPyramid, moved: str | None = None) -> Path:
    """The file of the slide's finest level, where it was or beside ``moved``.

    Raises
    ------
    ConfigError
        The slide is not DICOM.
    SlideError
        It is not there any more.
    StoreError
        It is another slide by now.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    path = Path(moved or mask.manifest["slide"]["path"])
    if not path.is_file():
        where = "no such file" if moved else "the slide is not there any more; --slide says where it is now"
        raise SlideError(f"{path}: {where}; DICOM SEG names its patient and study")
    wanted = ["SeriesInstanceUID", "TotalPixelMatrixColumns", "ImageType"]
    try:
        series = pydicom.dcmread(path, specific_tags=wanted).SeriesInstanceUID
    except (InvalidDicomError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a DICOM slide, whose patient and study DICOM SEG names; "
            f"take --to geojson or --to ome-tiff"
        ) from error

    slide_of(mask, path)  # another one may lie there by now, of another patient

    def levels() -> Iterator[tuple[int, Path]]:
        for file in sorted(path.parent.iterdir()):
            if file.is_file():
                try:
                    told = pydicom.dcmread(file, specific_tags=wanted)
                except InvalidDicomError:
                    continue
                if told.get("SeriesInstanceUID") == series and "VOLUME" in told.get("ImageType", ()):
                    yield int(told.get("TotalPixelMatrixColumns", 0)), file

    return max(levels(), key=lambda level: level[0])[1]


def write_dicom_seg(path: Path, mask: MaskPyramid, level: int, source: Path, listener: Listener) -> None:
    """One level of the mask as a binary segmentation, a segment for each class; frames without any are left
    out.

    Its pixels lie in the slide's coordinate system as they lie on the slide, by the scale that the slide's
    file says: the run may have been told another one.
    """
    import highdicom as hd
    import pydicom

    image = pydicom.dcmread(source, stop_before_pixels=True)
    _ensure_sayable(mask.spec.classes, image)
    grid = TileGrid(*mask.shape(level), 2048)
    listener(Started("export", len(grid)))
    labels = np.empty((1, grid.height, grid.width), np.uint8)
    for box in map(grid.box, grid):
        labels[0][box.slices] = mask.read(box, level)
        listener(TilesDone("export", 1, box.area / 1e6))
    factor = mask.spec.mpp * 2**level / mask.manifest["slide"]["mpp"]  # slide px in one of the mask
    try:
        measures = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        spacing = np.array(measures.PixelSpacing, float)  # mm, of the slide's rows and columns
        made = hd.seg.Segmentation(
            source_images=[image],
            pixel_array=labels,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_segments(mask),
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="wsi_twostage",
            manufacturer_model_name="wsi_twostage",
            software_versions=version("wsi-twostage"),
            device_serial_number="none",
            pixel_measures=hd.PixelMeasuresSequence(
                (spacing * factor).tolist(), slice_thickness=float(measures.get("SliceThickness") or 0.001)
            ),
            plane_positions=[_position(image, spacing * (factor - 1) / 2)],
            tile_pixel_array=True,
            tile_size=(TILE, TILE),
        )
    except (
        AttributeError,
        ValueError,
        TypeError,
    ) as error:  # of a source that lacks a part
        raise ConfigError(f"{source}: no DICOM SEG can refer to it ({error})") from error
    made.save_as(path)


def _ensure_sayable(names: Sequence[str], image: Any) -> None:
    """Raise ConfigError for a class that DICOM would call otherwise (PS3.5, 6.1 and 6.2: LO)."""
    from pydicom.charset import convert_encodings

    told = image.get("SpecificCharacterSet")
    encodings = convert_encodings(told) if told else ["ascii"]

    def fits(name: str, encoding: str) -> bool:
        try:
            return bool(name.encode(encoding))
        except (UnicodeEncodeError, LookupError):
            return False

    for name in names:
        if "\\" in name or len(name) > _LONGEST or not any(fits(name, encoding) for encoding in encodings):
            raise ConfigError(
                f"class {name!r}: DICOM takes names of up to {_LONGEST} characters, without backslashes, "
                f"that the slide's character set has ({told or 'ASCII'}); --to ome-tiff takes any"
            )


def _segments(mask: MaskPyramid) -> list[Any]:
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    model = mask.manifest["model"]
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"wsi_twostage {model['name']}"[:64],
        version=str(model["sha256"])[:16] or "none",
        family=codes.DCM.ArtificialIntelligence,
    )
    return [
        hd.seg.SegmentDescription(
            segment_number=label,
            segment_label=name,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=Code(*_NUCLEUS)
            if name.lower() in ("nucleus", "nuclei")
            else Code(f"{label}", _OURS, name),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=hd.UID(),
            tracking_id=name,
            display_color=hd.color.CIELabColor.from_rgb(*colour),
        )
        for label, (name, colour) in enumerate(zip(mask.spec.classes, mask.spec.colours, strict=True), 1)
    ]


def _position(image: Any, shift: NDArray[np.float64]) -> Any:
    """Where the centre of the mask's first pixel lies, from that of the image's down and right, in mm."""
    import highdicom as hd

    origin = image.TotalPixelMatrixOriginSequence[0]
    along = np.array(image.ImageOrientationSlide, float).reshape(2, 3)  # of a row's and of a column's pixels
    place = np.array(
        [origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem, 0.0], float
    )
    place += along[0] * shift[1] + along[1] * shift[0]
    return hd.PlanePositionSequence(
        hd.CoordinateSystemNames.SLIDE, place.tolist(), pixel_matrix_position=(1, 1)
    )
