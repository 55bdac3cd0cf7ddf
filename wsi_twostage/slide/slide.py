"""Opening a slide, and its views by micrometres per pixel."""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from wsi_twostage.errors import ConfigError, NoScale, SlideError, did_you_mean
from wsi_twostage.slide import ome_zarr, openslide_reader, plain_image, tiff
from wsi_twostage.slide.contents import Contents, FileKey, Level, Unsupported, is_url, local_path
from wsi_twostage.slide.identity import Identity, fingerprint_of
from wsi_twostage.slide.scale import choose_mpp
from wsi_twostage.slide.view import View, drifts_little

if TYPE_CHECKING:
    import dask.array as da

COARSEST_PX = 512  # of a pyramid: halvings go on until the longer side is at most this
LARGEST_STEP = 4.5  # between stored levels; scanners take 2 to 4
LARGEST_LAST_PX = 16_384  # of the coarsest stored level, along its longer side
NEAR = 0.10  # relative: a stored level this close to the wanted mpp is used as it is
KNOWN_FORMATS = "SVS, TIFF, OME-TIFF, NDPI, MRXS, SCN, BIF, DICOM, OME-Zarr, PNG and JPEG"

_DESCRIBE: dict[str, Callable[[str], Contents]] = {
    "tiff": tiff.describe,
    "openslide": openslide_reader.describe,
    "zarr": ome_zarr.describe,
    "image": plain_image.describe,
}


@dataclass(frozen=True)
class Slide:
    """A whole slide: stored levels and a physical scale; pixels are read when a view is."""

    path: str
    """Absolute, or a URL."""
    reader: str
    """``tiff``, ``openslide``, ``zarr`` or ``image``."""
    levels: tuple[Level, ...]
    """Stored levels, finest first."""
    mpp: float
    """Um per pixel of level 0; NaN if `open_slide` was told to let that through."""
    mpp_source: str
    """``file``, ``given`` or ``none``."""
    format: str
    compression: str
    origin: tuple[int, int] = (0, 0)
    """Where level 0 begins on the scanner's canvas, (row, col) in its pixels."""
    bounds: tuple[int, int] = (0, 0)
    """Where the scanned part begins on it by the file's own words; QuPath counts from there."""
    warnings: tuple[str, ...] = ()
    """What a user may want to know before a run, a line each."""

    @property
    def height(self) -> int:
        return self.levels[0].height

    @property
    def width(self) -> int:
        return self.levels[0].width

    @property
    def fingerprint(self) -> str:
        """A cheap key of the file's content (`fingerprint_of`)."""
        return fingerprint_of(self.path, self.reader)

    @property
    def identity(self) -> Identity:
        """By which it is known again."""
        return Identity(self.path, self.reader, self.fingerprint)

    def at(self, mpp: float) -> "da.Array":
        """The slide at ``mpp`` um per pixel: lazy, (rows, cols, 3) uint8.

        >>> open_slide("examples/data/CMU-1-Small-Region.svs").at(2.0).shape
        (741, 554, 3)
        """
        return self.view_at(mpp).array()

    def pyramid(self) -> "tuple[da.Array, ...]":
        """The slide and its halvings, lazy, (rows, cols, 3) uint8 each; see `views`.

        >>> [level.shape[0] for level in open_slide("examples/data/CMU-1-Small-Region.svs").pyramid()]
        [2967, 1484, 742, 371]
        """
        return tuple(view.array() for view in self.views())

    def views(self) -> tuple[View, ...]:
        """The slide at downsamples 1, 2, 4, ... until its longer side is at most 512 px.

        Each is a stored level where there is one, else averaged from the next finer stored one.
        """
        count = max((max(self.height, self.width) - 1) // COARSEST_PX, 0).bit_length() + 1
        return tuple(self.view(2**index) for index in range(count))

    def view_at(self, mpp: float) -> View:
        """The view nearest to ``mpp`` um per pixel.

        Within 10 %: a stored level as it is, or the finest one enlarged by a whole number, so that their
        pixels stay pixels of the view. Else exact.
        """
        _ensure_positive("mpp", mpp)
        wanted = mpp / self.mpp
        downsamples = [math.sqrt(math.prod(level.downsample)) for level in self.levels]
        if wanted < 1:
            downsamples.append(1 / round(1 / wanted))
        nearest = min(downsamples, key=lambda stored: abs(math.log(stored / wanted)))
        return self.view(nearest if abs(nearest / wanted - 1) <= NEAR else wanted)

    def view(self, downsample: float) -> View:
        """The slide at ``downsample`` level-0 pixels per view pixel; below 1 it is enlarged.

        Made from the coarsest stored level that is finer: the level as it is where its pixels fit, else
        means over exact areas; from level 0 along straight lines where that is too coarse.
        """
        _ensure_positive("downsample", downsample)
        height, width = (math.ceil(size / downsample - 1e-6) for size in (self.height, self.width))
        height, width = max(height, 1), max(width, 1)
        level = self._source(downsample, height, width)
        return View(self.path, self.reader, level, height, width, downsample, self.mpp * downsample)

    def _source(self, downsample: float, height: int, width: int) -> Level:
        """The stored level that a view of ``height`` x ``width`` px is made from."""

        def suits(level: Level) -> bool:
            rows, cols = (downsample / stored for stored in level.downsample)
            return all(
                scale >= 1 or drifts_little(scale, extent)
                for scale, extent in ((rows, height), (cols, width))
            )

        return next((level for level in reversed(self.levels) if suits(level)), self.levels[0])


def open_slide(
    path: str | os.PathLike[str], mpp: float | None = None, *, reader: str = "auto", unscaled: bool = False
) -> Slide:
    """Open a slide; reads no pixels.

    >>> open_slide("examples/data/CMU-1-Small-Region.svs").mpp
    0.499

    Parameters
    ----------
    mpp
        Micrometres per pixel of level 0; wins over what the file says.
    reader
        "tiff" (native), "openslide", "zarr", "image", or "auto": the first of them that can.
    unscaled
        Open a slide without a scale, too: to see what it is, not to segment it.

    Raises
    ------
    SlideError
        It cannot be read, or has no plausible micrometres per pixel and none were given.
    """
    if reader != "auto" and reader not in _DESCRIBE:
        near = did_you_mean(reader, ("auto", *_DESCRIBE))
        raise ConfigError(f"reader={reader!r}; use {', '.join(('auto', *_DESCRIBE))}{near}")
    place = local_path(os.fspath(path))
    key = FileKey.of(place)
    remote, folder = is_url(place), os.path.isdir(place)
    if not (remote or folder) and key.size == 0:
        raise SlideError(f"{place}: is empty")
    if reader == "auto":
        fitting = [name for name in _DESCRIBE if (name == "zarr") == (remote or folder)]
    else:
        fitting = [reader]
    try:
        chosen, contents = _describe(place, {name: _DESCRIBE[name] for name in fitting})
    except Unsupported as error:
        hint = (
            "; of MRXS and DICOM give any one file"
            if folder
            else "; at a URL only OME-Zarr is read"
            if remote
            else f"; {KNOWN_FORMATS} work"
        )
        raise SlideError(f"{error}{hint}") from error
    unknown = ""
    try:
        scale, source = choose_mpp(place, mpp, contents.mpp)
    except NoScale as error:
        if not unscaled:
            raise
        scale, source, unknown = math.nan, "none", str(error).removeprefix(f"{place}: ")
    # Absolute, since a view may be read by a worker in another folder.
    place = place if remote else os.path.abspath(place)
    return Slide(
        place,
        chosen,
        contents.levels,
        mpp=scale,
        mpp_source=source,
        format=contents.format,
        compression=contents.compression,
        origin=contents.origin,
        bounds=contents.bounds,
        warnings=tuple(filter(None, (unknown, *_warnings(contents, scale)))),
    )


def _warnings(contents: Contents, mpp: float) -> Iterator[str]:
    """About a scale that contradicts the file's, and levels that are missing."""
    if contents.mpp is not None and abs(math.log(mpp / contents.mpp.x)) > math.log(1 + NEAR):
        yield f"{mpp:g} um/px was given; the file says {contents.mpp.x:.4g} ({contents.mpp.origin})"
    cost = "what is coarser is averaged from it when it is read; wsi-seg convert makes the levels once"
    for finer, coarser in pairwise(max(level.downsample) for level in contents.levels):
        if coarser / finer > LARGEST_STEP:
            yield f"no stored level between 1/{finer:g} and 1/{coarser:g}: {cost}"
    last = contents.levels[-1]
    if max(last.height, last.width) > LARGEST_LAST_PX:
        yield f"the coarsest stored level has {last.width} x {last.height} px: {cost}"


def _describe(path: str, readers: dict[str, Callable[[str], Contents]]) -> tuple[str, Contents]:
    """The first reader that can read the file, and what it found."""
    reasons = []
    for name, describe in readers.items():
        try:
            return name, describe(path)
        except Unsupported as error:
            reasons.append(f"{name}: {str(error).removeprefix(f'{path}: ')}")
    raise Unsupported(f"{path}: cannot be read as a slide ({'; '.join(reasons)})")


def _ensure_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name}={value!r}; it must be a positive number")
