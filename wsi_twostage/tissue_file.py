"""Where the tissue is, as somebody else says: a mask image or GeoJSON."""

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, UnidentifiedImageError

from wsi_twostage.errors import ConfigError

_ASPECT = 0.03  # relative difference to the slide's sides up to which a mask image is of that slide
_GEOJSON = (".geojson", ".json")
_FARTHEST_PX = 2**20  # of the grid, from the slide's corner: a line is drawn in as many steps as it is long


def read_tissue(
    path: Path, *, full: tuple[int, int], wanted: tuple[int, int], downsample: float
) -> NDArray[np.bool_]:
    """Tissue on a grid that covers the slide.

    Parameters
    ----------
    path
        An image of any size that shows the whole slide, where anything but black is tissue; or GeoJSON
        (RFC 7946; .geojson, .json) whose polygons are in pixels of the slide's level 0, from `Slide.origin`.
    full
        Rows and columns of level 0.
    wanted
        Rows and columns of the result. What touches one of its pixels makes it tissue.
    downsample
        Pixels of level 0 per pixel of the result.

    Raises
    ------
    ConfigError
        Neither, an image of another shape than the slide, or polygons beside it.
    """
    if path.exists() and not path.is_file():  # a pipe or a device may never end
        raise ConfigError(f"{path}: neither a mask image nor GeoJSON that can be read (not a file)")
    if path.suffix.lower() in _GEOJSON:
        drawn = _drawn(path, wanted, downsample)
        if not drawn.any():
            raise ConfigError(
                f"{path}: none of its polygons lies on the slide; its coordinates are pixels of level 0, of "
                f"which there are {full[1]} x {full[0]}"
            )
        return drawn
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its size
            image = Image.open(path)
        with image:
            rows, cols = image.height / full[0], image.width / full[1]
            if abs(rows / cols - 1) > _ASPECT:
                raise ConfigError(
                    f"{path}: a mask of {image.height} x {image.width} px does not show a slide of "
                    f"{full[0]} x {full[1]} px; its sides must have the same ratio"
                )
            some = Image.fromarray(np.where(_not_black(image), np.uint8(255), np.uint8(0)))
    except Image.DecompressionBombError as error:
        raise ConfigError(f"{path}: a mask of too many pixels; a smaller one will do ({error})") from error
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise ConfigError(f"{path}: neither a mask image nor GeoJSON that can be read ({error})") from error
    # the grid's far edges in the image's pixels: its last row and column may reach beyond the slide
    bottom, right = (
        size * n * downsample / of for size, n, of in zip(some.size[::-1], wanted, full, strict=True)
    )
    larger = (max(some.width, math.ceil(right)), max(some.height, math.ceil(bottom)))
    framed = some.convert("F").crop((0, 0, *larger))
    return np.asarray(framed.resize(wanted[::-1], Image.Resampling.BOX, (0, 0, right, bottom))) > 0


def _not_black(image: Image.Image) -> NDArray[np.bool_]:
    """Pixels of any colour that can be seen, (H, W)."""
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    pixels = np.atleast_3d(np.asarray(image)) != 0
    seen: NDArray[np.bool_] = pixels.any(2)
    if image.mode in ("RGBA", "LA"):
        seen = pixels[..., :-1].any(2) & pixels[..., -1]
    return seen


def _drawn(path: Path, wanted: tuple[int, int], downsample: float) -> NDArray[np.bool_]:
    """The polygons of a GeoJSON file, drawn."""
    tissue = np.zeros(wanted, np.bool_)
    try:
        polygons = list(_polygons(json.loads(path.read_text(encoding="utf-8-sig"))))
        if not polygons:
            raise ConfigError(f"{path}: holds no Polygon and no MultiPolygon")
        for rings in polygons:
            _draw(tissue, [[(x / downsample, y / downsample) for x, y, *_ in ring] for ring in rings])
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ConfigError(f"{path}: not GeoJSON that can be read ({error})") from error
    return tissue


def _draw(tissue: NDArray[np.bool_], rings: list[list[tuple[float, float]]]) -> None:
    """One polygon, in pixels (x, y) of ``tissue``; within the box that holds it: there may be many."""
    for ring in rings:
        if not (np.abs(np.array(ring, float)) < _FARTHEST_PX).all():
            raise ValueError("a position that is no number, or far from the slide")
    corners, (height, width) = np.array(rings[0], float), tissue.shape
    left, top = np.clip(np.floor(corners.min(0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.floor(corners.max(0)) + 1, 0, (width, height)).astype(int)
    if left >= right or top >= bottom:
        return
    one = Image.new("1", (int(right - left), int(bottom - top)))
    draw = ImageDraw.Draw(one)
    for index, ring in enumerate(rings):
        draw.polygon([(x - left, y - top) for x, y in ring], fill=int(index == 0), outline=1)
    tissue[top:bottom, left:right] |= np.asarray(one)


def _polygons(value: Any) -> Iterator[Any]:
    """Rings of each polygon, the outline first; lines and points are passed over."""
    if isinstance(value, list):  # as QuPath writes several objects
        for part in value:
            yield from _polygons(part)
        return
    kind = value["type"]
    if kind == "FeatureCollection":
        yield from _polygons(value["features"])
    elif kind == "Feature":
        if (geometry := value.get("geometry")) is not None:
            yield from _polygons(geometry)
    elif kind == "GeometryCollection":
        yield from _polygons(value["geometries"])
    elif kind in ("Polygon", "MultiPolygon"):
        polygons = value["coordinates"] if kind == "MultiPolygon" else [value["coordinates"]]
        for rings in polygons:
            if rings and rings[0]:  # else it is empty (RFC 7946, 3.1)
                yield list(filter(None, rings))
