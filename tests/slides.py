"""Small slides made on the spot, and the real ones where they are to be had."""

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
CMU = ROOT / "examples" / "data" / "CMU-1-Small-Region.svs"


def real_slide(name: str) -> Path:
    """A slide of the data folder; the test is skipped where there is none."""
    folder = Path(os.environ.get("WSI_TWOSTAGE_DATA", ROOT.parent / "shared" / "data"))
    path = folder / "slides" / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def texture(height: int, width: int, *, seed: int = 0, channels: int = 3) -> NDArray[np.uint8]:
    """Blotches with noise on them, so that neither a shift nor a swap of axes goes unnoticed."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(40, 216, (-(-height // 16), -(-width // 16), channels))
    image = coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    return (image + generator.integers(-40, 40, image.shape)).astype(np.uint8)


def halve(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 x 2 px; an odd edge is cut off."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    cells = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1)
    return np.rint(cells.mean(axis=(1, 3))).astype(np.uint8)


def pyramid(image: NDArray[np.uint8], levels: int) -> list[NDArray[np.uint8]]:
    """The image and ``levels - 1`` halvings."""
    stored = [image]
    for _ in range(levels - 1):
        stored.append(halve(stored[-1]))
    return stored


def write_slide(
    path: Path,
    levels: Sequence[NDArray[np.generic]],
    *,
    mpp: float | None = 0.5,
    tile: int = 64,
    compression: str | None = "deflate",
) -> Path:
    """A generic tiled TIFF with these stored levels, readable by both readers."""
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        for index, level in enumerate(levels):
            tiff.write(
                level,
                tile=(tile, tile),
                compression=compression,
                photometric="minisblack" if level.ndim == 2 else "rgb",
                subfiletype=int(index > 0),
                metadata=None,
                **resolution,
            )
    return path


def change_tile(path: Path, tile: int, change: Callable[[bytes], bytes], *, level: int = 0) -> None:
    """Rewrite the stored bytes of one tile in place; an empty result makes it a missing tile."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.series[0].levels[level].keyframe
        offset, count = page.dataoffsets[tile], page.databytecounts[tile]
        tiff.filehandle.seek(offset)
        data = change(tiff.filehandle.read(count))
        counts = list(page.databytecounts)
        counts[tile] = len(data)
        page.tags["TileByteCounts"].overwrite(counts)
        tiff.filehandle.seek(offset)
        tiff.filehandle.write(data)


def set_tag(path: Path, code: int, value: int) -> None:
    """Set a tag of one SHORT on the first page."""
    with tifffile.TiffFile(path) as tiff:
        tag, order = tiff.pages[0].tags[code], tiff.byteorder
    with open(path, "r+b") as file:
        file.seek(tag.valueoffset)
        file.write(struct.pack(f"{order}H", value))
