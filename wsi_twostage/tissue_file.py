"""Where the tissue is, as somebody else says: a mask image or GeoJSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, UnidentifiedImageError

from wsi_twostage.errors import ConfigError

_ASPECT = 0.03  # relative difference to the slide's sides up to which a mask image is of that slide
_GEOJSON = (".geojson", ".json")


def read_tissue(path: Path, *, full: tuple[int, int], wanted: tuple[int, int]) -> NDArray[np.bool_]:
    """Tissue on a grid that covers the slide.

    Parameters
    ----------
    path
        An image of any size that shows the whole slide, where anything but black is tissue; or GeoJSON
        (RFC 7946; .geojson, .json) whose polygons are in pixels of the slide's level 0, as from QuPath.
    full
        Rows and columns of level 0.
    wanted
        Rows and columns of the result. What touches one of its pixels makes it tissue.

    Raises
    ------
    ConfigError
        Neither, or an image of another shape than the slide.
    """
    if path.suffix.lower() in _GEOJSON:
        return _drawn(path, full, wanted)
    try:
        with Image.open(path) as image:
            rows, cols = image.height / full[0], image.width / full[1]
            if abs(rows / cols - 1) > _ASPECT:
                raise ConfigError(
                    f"{path}: a mask of {image.height} x {image.width} px does not show a slide of "
                    f"{full[0]} x {full[1]} px; its sides must have the same ratio"
                )
            some = Image.fromarray(np.asarray(image.convert("RGB")).max(2))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError) as error:
        raise ConfigError(f"{path}: neither a mask image nor GeoJSON that can be read ({error})") from error
    spread = some.point([0] + [255] * 255).convert("F").resize(wanted[::-1], Image.Resampling.BOX)
    return np.asarray(spread) > 0


def _drawn(path: Path, full: tuple[int, int], wanted: tuple[int, int]) -> NDArray[np.bool_]:
    """The polygons of a GeoJSON file, drawn."""
    tissue = np.zeros(wanted, np.bool_)
    rows, cols = wanted[0] / full[0], wanted[1] / full[1]
    try:
        polygons = list(_polygons(json.loads(path.read_text(encoding="utf-8"))))
        if not polygons:
            raise ConfigError(f"{path}: holds no Polygon and no MultiPolygon")
        for rings in polygons:
            outline, *holes = [[(x * cols, y * rows) for x, y, *_ in ring] for ring in rings]
            one = Image.new("1", wanted[::-1])
            draw = ImageDraw.Draw(one)
            draw.polygon(outline, fill=1, outline=1)
            for hole in holes:
                draw.polygon(hole, fill=0, outline=1)
            tissue |= np.asarray(one)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path}: not GeoJSON that can be read ({error})") from error
    return tissue


def _polygons(value: Any) -> Iterator[Any]:
    """Rings of each polygon, the outline first; lines and points are passed over."""
    if isinstance(value, list):  # as QuPath writes several objects
        for part in value:
            yield from _polygons(part)
        return
    kind = value["type"]
    if kind == "FeatureCollection":
        yield from _polygons(value["features"])
    elif kind == "Feature" and value["geometry"] is not None:
        yield from _polygons(value["geometry"])
    elif kind == "GeometryCollection":
        yield from _polygons(value["geometries"])
    elif kind == "Polygon":
        yield value["coordinates"]
    elif kind == "MultiPolygon":
        yield from value["coordinates"]
