"""What a reader finds in a file before it reads a pixel: levels, scale and format."""

import math
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import SlideError, similar_file

_DESCRIPTIONS = ("zarr.json", ".zattrs", ".zgroup")  # of a zarr group, 3 and 2


class Unsupported(SlideError):
    """The file may be sound, but this reader cannot read it; another may."""


def is_url(path: str) -> bool:
    """Whether a slide is to be had through fsspec, and not in the file system."""
    return "://" in path


def local_path(path: str) -> str:
    """A URL of this machine's files (RFC 8089) as their path; anything else as it is."""
    scheme, _, rest = path.partition("://")
    host, slash, place = rest.partition("/")
    if scheme.lower() != "file" or host not in ("", "localhost"):
        return path
    return unquote(slash + place)


def description_of(folder: str | os.PathLike[str]) -> Path | None:
    """The file that says what the zarr group in a folder is; None where there is none."""
    told = (Path(folder) / name for name in _DESCRIPTIONS)
    return next((place for place in told if os.path.isfile(place)), None)


class FileKey(NamedTuple):
    """A file as it is now; handles are cached under it, so a file that was replaced is opened anew."""

    path: str
    """Of the file or the folder, or a URL."""
    mtime_ns: int  # of a folder: of what describes it; 0 for a URL
    size: int  # bytes; 0 for a URL

    @classmethod
    def of(cls, path: str) -> "FileKey":
        """Look at the file.

        Raises
        ------
        SlideError
            There is no such file.
        """
        if is_url(path):
            return cls(path, 0, 0)
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                status = os.stat(description_of(path) or path)
            elif not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
                raise SlideError(f"{path}: neither a file nor a folder")
        except OSError as error:
            raise cannot_open(path, error) from error
        return cls(path, status.st_mtime_ns, status.st_size)

    def ensure_current(self) -> None:
        """Look again.

        Raises
        ------
        SlideError
            The file is gone, or was replaced: what failed was not its pixels.
        """
        if FileKey.of(self.path) != self:
            raise SlideError(f"{self.path}: has been replaced since it was opened; run again")


def cannot_open(path: str, error: OSError) -> SlideError:
    """The one line for a file that the system will not open."""
    hint = similar_file(path) if isinstance(error, FileNotFoundError) else ""
    return SlideError(f"{path}: cannot be opened ({error.strerror or error}){hint}")


def cannot_read(path: str, error: OSError) -> SlideError:
    """The one line for an open file that the system will not read."""
    return SlideError(f"{path}: cannot be read ({error.strerror or error})")


def said(error: Exception) -> str:
    """What another library says, in one line."""
    return " ".join(str(error).split())


def on_background(pixels: NDArray[np.uint8], colour: int | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) with alpha, not premultiplied, on a colour -> (H, W, 3)."""
    alpha = pixels[..., 3:]
    if alpha.min(initial=255) == 255:
        return pixels[..., :3]
    weight = alpha.astype(np.float32) / 255
    return np.rint(pixels[..., :3] * weight + colour * (1 - weight)).astype(np.uint8)


class Size(NamedTuple):
    """Rows and columns, in pixels."""

    height: int
    width: int


class FoundMpp(NamedTuple):
    """A scale that a file states."""

    y: float  # um per pixel of level 0, along a column
    x: float  # um per pixel of level 0, along a row
    origin: str  # where it was found, for messages


@dataclass(frozen=True, slots=True)
class Level:
    """One stored level of a slide's pyramid."""

    index: int
    height: int  # pixels
    width: int  # pixels
    downsample: tuple[float, float]
    """Pixels of level 0 per pixel of this level, along (rows, cols)."""
    tile: tuple[int, int]
    """Rows and columns of a native tile, in pixels."""


@dataclass(frozen=True, slots=True)
class Contents:
    """All that opening a slide finds out."""

    format: str
    compression: str
    levels: tuple[Level, ...]
    mpp: FoundMpp | None
    origin: tuple[int, int] = (0, 0)
    """Where level 0 begins on the scanner's canvas, (row, col): what lies outside of it was not scanned."""
    bounds: tuple[int, int] = (0, 0)
    """Where the scanned part begins by the file's own words, (row, col) on the canvas."""


def ensure_same(path: str, level: Level, levels: Sequence[Level]) -> None:
    """A view's level is one that the file, as it is now, has; SlideError, if not."""
    if level not in levels:
        raise SlideError(
            f"{path}: has been replaced since it was opened; level {level.index} is not the same"
        )


def make_levels(sizes: Sequence[Size], tiles: Sequence[Size]) -> tuple[Level, ...]:
    """Levels from their stored sizes (the first is level 0) and native tile sizes."""
    return tuple(
        Level(index, size.height, size.width, stored_downsample(sizes[0], size), (tile.height, tile.width))
        for index, (size, tile) in enumerate(zip(sizes, tiles, strict=True))
    )


def stored_downsample(full: Size, stored: Size) -> tuple[float, float]:
    """Level-0 pixels per pixel of a stored level, along (rows, cols).

    Pyramids are made with a whole factor and the odd edge is cut off or filled up: 4443 px become 2221, which
    is a factor of 2 and not of 2.00045. So a whole number that explains both sizes to within a pixel is the
    truth (a power of two first: small levels leave a choice). Anything else is taken as the sizes say.

    >>> stored_downsample(Size(3567, 4443), Size(1783, 2221))
    (2.0, 2.0)
    >>> stored_downsample(Size(250, 250), Size(100, 100))
    (2.5, 2.5)
    """
    rows, cols = full.height / stored.height, full.width / stored.width
    fits = _whole_factors(full.height, stored.height), _whole_factors(full.width, stored.width)
    both = range(max(r.start for r in fits), min(r.stop for r in fits))
    if not both:
        return rows, cols
    powers = [n for n in both if n.bit_count() == 1]
    factor = min(powers or both, key=lambda n: abs(math.log(n * n / (rows * cols))))
    return float(factor), float(factor)


def _whole_factors(full: int, stored: int) -> range:
    """Every n with ``|full / n - stored| < 1``."""
    stop = math.ceil(full / (stored - 1)) if stored > 1 else full + 1
    return range(full // (stored + 1) + 1, stop)
