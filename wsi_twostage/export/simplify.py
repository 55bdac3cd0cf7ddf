"""Outlines with fewer points that keep their area; by shapely (GEOS), which is an extra."""

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import ConfigError
from wsi_twostage.export.outlines import Rings


def ensure_simplify() -> None:
    """Raise ConfigError where shapely is not installed."""
    try:
        import shapely  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "--simplify needs shapely; pip install 'wsi-twostage[simplify]', or leave it out"
        ) from error


def simplified(linked: Rings, tolerance_px: float) -> Rings:
    """Each object's rings by Douglas and Peucker, then scaled around its centroid to the area it had.

    Either moves a point by ``tolerance_px`` at most. An object that would fall apart, or whose scaling would
    move its farthest point by more, keeps the outline it has.
    """
    import shapely

    exact = shapely.from_ragged_array(shapely.GeometryType.POLYGON, *_closed(linked))
    area = shapely.area(exact)
    simple = shapely.simplify(exact, tolerance_px, preserve_topology=True)
    centre = shapely.get_coordinates(shapely.centroid(exact))
    factor = np.sqrt(area / np.maximum(shapely.area(simple), 1e-9))
    fits = (shapely.get_type_id(simple) == shapely.GeometryType.POLYGON) & shapely.is_valid(simple)
    farthest = np.abs(shapely.bounds(exact) - np.tile(centre, 2)).reshape(-1, 2, 2).max(1)
    moved = np.abs(factor - 1) * np.hypot(*farthest.T)
    chosen = np.where(fits & (moved <= tolerance_px), simple, exact)
    _, coordinates, (ring_starts, object_starts) = shapely.to_ragged_array(chosen)
    sizes = np.diff(ring_starts)
    ring_owners = np.repeat(np.arange(len(chosen)), np.diff(object_starts))
    owners = np.repeat(ring_owners, sizes)
    scale = np.where(chosen == exact, 1.0, factor)[owners, None]
    points = (coordinates - centre[owners]) * scale + centre[owners]
    last = np.zeros(len(points), np.bool_)
    last[ring_starts[1:] - 1] = True  # a closed ring says its first point again
    starts = np.concatenate([[0], np.cumsum(sizes - 1)])
    names = np.unique(linked.owners)
    return Rings(points[~last][:, ::-1], starts, names[ring_owners])


def _closed(linked: Rings) -> tuple[NDArray[np.float64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Points (x, y), where each ring begins, and which ring is the first of each object."""
    sizes = np.diff(linked.starts)
    order = np.arange(len(linked.points)) + np.repeat(np.arange(len(sizes)), sizes)
    points = np.empty((len(linked.points) + len(sizes), 2))
    points[order] = linked.points[:, ::-1]
    starts = linked.starts + np.arange(len(sizes) + 1)
    points[starts[1:] - 1] = points[starts[:-1]]
    first = np.flatnonzero(np.append(True, np.diff(linked.owners) > 0)) if len(sizes) else sizes
    return points, (starts, np.append(first, len(sizes)))
