"""OME-Zarr metadata of a slide's pyramid, written by ome-zarr-py."""

import warnings
from typing import Any

import zarr

from wsi_twostage.slide.view import View


def write_multiscales(group: zarr.Group, views: tuple[View, ...]) -> None:
    """Say that the arrays 0, 1, ... of a group are these views, (3, rows, cols), in micrometres."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ome-zarr-py's, of a class of its own
        from ome_zarr.format import FormatV05
        from ome_zarr.writer import write_multiscales_metadata

    space = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    write_multiscales_metadata(
        group,
        [_dataset(index, view.mpp, views[0].mpp) for index, view in enumerate(views)],
        fmt=FormatV05(),
        axes=[{"name": "c", "type": "channel"}, *space],
        name="slide",
    )


def _dataset(index: int, mpp: float, finest: float) -> dict[str, Any]:
    """Scale and translation of a level; the origin is the centre of the first pixel of level 0."""
    offset = (mpp - finest) / 2
    return {
        "path": str(index),
        "coordinateTransformations": [
            {"type": "scale", "scale": [1.0, mpp, mpp]},
            {"type": "translation", "translation": [0.0, offset, offset]},
        ],
    }
