"""Slides with the masks that are their truth."""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_twostage.batch import stem_of
from wsi_twostage.errors import ConfigError
from wsi_twostage.settings import Settings
from wsi_twostage.slide import open_slide
from wsi_twostage.slide.contents import description_of
from wsi_twostage.training.data import by_stem, image_files, read_mask

_MASKS = (".png", ".tif", ".tiff")
_TISSUES = (*_MASKS, ".jpg", ".jpeg", ".geojson", ".json")


class Labelled(NamedTuple):
    """A slide and where its truth lies."""

    slide: Path
    mask: Path
    tissue: Path | None = None
    """An image or GeoJSON that says where its tissue is."""

    def settings(self, common: Settings) -> Settings:
        """Those of all slides, but for its tissue."""
        return common if self.tissue is None else replace(common, tissue=str(self.tissue))


def labelled_slides(folder: Path) -> list[Labelled]:
    """The slides ``images/NAME.*`` that have a mask ``masks/NAME.png`` (or .tif), sorted.

    Where there is ``tissue/NAME.*``, an image or GeoJSON, it says where the slide's tissue is.

    Raises
    ------
    ConfigError
        No masks, a mask without a slide or with several, or two masks of one slide; tissue of no mask, or
        twice for one.
    """
    masks = image_files(folder / "masks", _MASKS)
    if not masks:
        raise ConfigError(f"{folder}: no masks/*.png or *.tif; expected folders images/ and masks/")
    found: list[Labelled] = []
    tissue_of = _tissue_of(folder / "tissue", {mask.stem for mask in masks})
    here = sorted(path for path in (folder / "images").glob("*") if path.is_file() or description_of(path))
    for mask in masks:
        slides = [slide for slide in here if mask.stem in (stem_of(slide.name), slide.stem)]
        if len(slides) != 1:
            names = ", ".join(path.name for path in slides) or "none"
            raise ConfigError(f"{mask}: expected one slide {folder / 'images' / mask.stem}.*, found {names}")
        if found and found[-1].slide == slides[0]:
            raise ConfigError(f"{mask}: a second mask of {slides[0]}; the first is {found[-1].mask}")
        found.append(Labelled(slides[0], mask, tissue_of.get(mask.stem)))
    return found


def _tissue_of(folder: Path, masks: Set[str]) -> dict[str, Path]:
    """The files that say where there is tissue, by the names of the masks that they go with."""
    found = by_stem(image_files(folder, _TISSUES))
    if strays := [path for stem, path in found.items() if stem not in masks]:
        raise ConfigError(f"{strays[0]}: tissue of no slide; expected the name of one of its masks")
    return found


def read_truth(entry: Labelled, mpp: float, settings: Settings) -> NDArray[np.bool_]:
    """(H, W) on the bundle's level; whatever is not black."""
    view = open_slide(entry.slide, settings.mpp, reader=settings.reader).view_at(mpp)
    if entry.mask.suffix.lower() == ".png":
        with _room_for(view.height * view.width):
            truth = read_mask(entry.mask)
    else:
        try:
            truth = _of_tiff(entry.mask)
        except (OSError, ValueError, RuntimeError, tifffile.TiffFileError) as error:
            raise ConfigError(f"{entry.mask}: not a TIFF image ({error})") from error
    if truth.shape != (view.height, view.width):
        size = " x ".join(map(str, truth.shape[::-1]))
        raise ConfigError(
            f"{entry.mask}: {size} px, its slide {view.width} x {view.height} at {view.mpp:g} um/px; "
            f"a mask is as large as the slide at the model's {mpp:g} um/px"
        )
    return truth


@contextmanager
def _room_for(pixels: int) -> Iterator[None]:
    """Pillow takes images of so many pixels for sound, as the slide is."""
    usual = Image.MAX_IMAGE_PIXELS
    if usual is not None:  # it has a limit
        Image.MAX_IMAGE_PIXELS = max(usual, pixels)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = usual


def _of_tiff(path: Path) -> NDArray[np.bool_]:
    """(H, W): what is not black; of the first image in it."""
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        pixels = series.asarray()
        inverted = tiff.pages.first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    if inverted:
        pixels = ~pixels  # of unsigned integers and bits
    if series.axes.endswith("S"):
        pixels = pixels[..., :3].max(-1)
    return np.asarray(pixels > 0)
