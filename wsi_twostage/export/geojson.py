"""Objects as GeoJSON (RFC 7946) as QuPath reads it, one feature a line, streamed."""

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.export.objects import About, measures
from wsi_twostage.export.outlines import rings
from wsi_twostage.export.parts import Components

KINDS = ("annotation", "detection")
"""What QuPath takes objects for: annotations can be edited, of detections there can be many."""

_NUMBERS = ("area_um2", "perimeter_um", "uncertainty")
_compact = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def write_geojson(
    file: BinaryIO,
    batches: Iterable[Components],
    about: About,
    *,
    kind: str = "detection",
    simplify_px: float = 0.0,
) -> int:
    """Write a FeatureCollection and say how many features it has.

    Each is a Polygon, with its holes, in pixels (x, y) of the slide's level 0; the outer ring turns by RFC
    7946 as if y pointed up. It runs along the edges of the mask's pixels, or is made simpler by up to
    ``simplify_px`` of them.
    """
    file.write(b'{"type":"FeatureCollection","features":[')
    count = 0
    for batch in batches:
        for feature in _features(batch, about, kind, simplify_px):
            file.write(b",\n" if count else b"\n")
            file.write(feature.encode())
            count += 1
    file.write(b"\n]}\n")
    return count


def _features(batch: Components, about: About, kind: str, simplify_px: float) -> Iterator[str]:
    columns = measures(batch, about)
    numbers = zip(*(columns[name].tolist() for name in _NUMBERS), strict=True)
    classes = [
        {"name": name, "color": list(colour)}
        for name, colour in zip(about.classes, about.colours, strict=True)
    ]
    each = zip(
        columns["id"].tolist(),
        (batch.table["label"] - 1).tolist(),
        columns["source"].tolist(),
        numbers,
        polygons(batch, about, simplify_px),
        strict=True,
    )
    for name, label, source, measured, coordinates in each:
        properties = {
            "objectType": kind,
            "classification": classes[label],
            "measurements": dict(zip(_NUMBERS, measured, strict=True)),
            "metadata": {"source": source},
        }
        yield (
            f'{{"type":"Feature","id":"{name}",'
            f'"geometry":{{"type":"Polygon","coordinates":{coordinates}}},'
            f'"properties":{_compact(properties)}}}'
        )


def polygons(batch: Components, about: About, simplify_px: float = 0.0) -> Iterator[str]:
    """Coordinates of each object of a batch as JSON: closed rings, the outer one first.

    Written as text at once: a list for every point costs several times as much.
    """
    linked = rings(batch.corners)
    if simplify_px:
        from wsi_twostage.export.simplify import simplified

        linked = simplified(linked, simplify_px)
    points = [f"[{x},{y}]" for x, y in zip(*_plain(about.positions(linked.points)), strict=True)]
    first = np.searchsorted(linked.owners, np.arange(len(batch.table) + 1)).tolist()
    starts = linked.starts.tolist()
    for begin, end in pairwise(first):
        found = (points[starts[ring] : starts[ring + 1]] for ring in range(begin, end))
        yield f"[{','.join(_closed(ring) for ring in found)}]"


def _closed(ring: list[str]) -> str:
    return f"[{','.join(ring)},{ring[0]}]"


def _plain(points: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """x and y; whole numbers without a point, where all are."""
    whole = points.astype(np.int64)
    x, y = (whole if (whole == points).all() else points).T
    return x.tolist(), y.tolist()
