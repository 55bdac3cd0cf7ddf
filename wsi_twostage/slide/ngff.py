"""OME-Zarr metadata of a slide's pyramid."""

import zarr

from wsi_twostage.ngff import Grid, describe, multiscale
from wsi_twostage.slide.view import View


def write_multiscales(group: zarr.Group, views: tuple[View, ...]) -> None:
    """Say that the arrays 0, 1, ... of a group are these views, (3, rows, cols), in micrometres.

    The origin is the centre of the first pixel of level 0.
    """
    from ome_zarr_models.v05.image import ImageAttrs

    grids = [Grid(view.mpp, (view.mpp - views[0].mpp) / 2) for view in views]
    describe(group, ImageAttrs, {"multiscales": [multiscale("slide", grids, colour=True)]})
