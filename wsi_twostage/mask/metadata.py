"""OME-Zarr 0.5 metadata of the store; this file only fills in values."""

from typing import Any

import zarr

from wsi_twostage.mask.spec import MaskSpec
from wsi_twostage.ngff import VERSION, Grid, describe, multiscale

RGB = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}


def write_metadata(root: zarr.Group, spec: MaskSpec) -> None:
    """Describe the overview at ``root`` and the mask below it, in micrometres.

    The origin is the centre of the slide's first pixel, as in the slide's own OME-Zarr.
    """
    from ome_zarr_models.v05.image import ImageAttrs
    from ome_zarr_models.v05.image_label import ImageLabelAttrs
    from ome_zarr_models.v05.labels import LabelsAttrs

    labels = root.require_group("labels")
    overview = multiscale(
        "overview", _grids(spec, spec.overview_downsample), colour=True, method="2 x 2 mean"
    )
    mask = multiscale(spec.name, _grids(spec, 1.0), colour=False, method="2 x 2 majority")
    describe(root, ImageAttrs, {"multiscales": [overview], "omero": _omero()})
    describe(labels, LabelsAttrs, {"labels": [spec.name]})
    describe(
        labels.require_group(spec.name), ImageLabelAttrs, {"multiscales": [mask], "image-label": _label(spec)}
    )


def _grids(spec: MaskSpec, downsample: float) -> list[Grid]:
    """Of every level.

    A pixel of level i covers 2**i * downsample fine pixels, so its centre is half of that, less half a fine
    pixel, away from the centre of the first fine pixel.
    """
    sizes = [downsample * 2**level for level in range(spec.levels)]  # fine pixels
    return [Grid(spec.mpp * size, spec.origin_um + spec.mpp * (size - 1) / 2) for size in sizes]


def _label(spec: MaskSpec) -> dict[str, Any]:
    """Name and colour of each class, and which image the mask is of."""
    return {
        "version": VERSION,
        "colors": [
            {"label-value": label, "rgba": [*colour, 255]} for label, colour in enumerate(spec.colours, 1)
        ],
        "properties": [{"label-value": label, "class": name} for label, name in enumerate(spec.classes, 1)],
        "source": {"image": "../../"},
    }


def _omero() -> dict[str, Any]:
    """How a viewer shows the three channels as one colour image."""
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    channels = [
        {"label": label, "color": colour, "window": window, "active": True} for label, colour in RGB.items()
    ]
    return {"channels": channels, "rdefs": {"model": "color"}}
