"""OME-Zarr 0.5 metadata by the models of ome-zarr-models, which check what goes into them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import zarr

if TYPE_CHECKING:
    from ome_zarr_models.v05.base import BaseOMEAttrs
    from ome_zarr_models.v05.multiscales import Multiscale

VERSION = "0.5"


class Grid(NamedTuple):
    """Where the pixels of a level lie, in micrometres."""

    scale: float
    """Size of a pixel."""
    translation: float
    """Centre of the first pixel; that of the first pixel of the slide is 0."""


def multiscale(name: str, grids: Sequence[Grid], *, colour: bool, method: str = "") -> "Multiscale":
    """Of the arrays 0, 1, ..., (rows, cols), or (channels, rows, cols) with ``colour``.

    ``method`` says how a level was made from the one before.
    """
    # Imported here: it takes half a second, and workers never need it.
    from ome_zarr_models.v05.axes import Axis
    from ome_zarr_models.v05.multiscales import Dataset, Multiscale

    channel = [Axis(name="c", type="channel")] if colour else []
    space = [Axis(name=axis, type="space", unit="micrometer") for axis in "yx"]
    datasets = tuple(
        Dataset.build(
            path=str(level),
            scale=[1.0] * len(channel) + [grid.scale] * 2,
            translation=[0.0] * len(channel) + [grid.translation] * 2,
        )
        for level, grid in enumerate(grids)
    )
    metadata: dict[str, Any] | None = {"method": method} if method else None
    return Multiscale(axes=[*channel, *space], datasets=datasets, name=name, metadata=metadata)


def describe(group: zarr.Group, kind: "type[BaseOMEAttrs]", attributes: dict[str, Any]) -> None:
    """Write a group's attributes, as a model of ome-zarr-models has them."""
    checked = kind.model_validate({"version": VERSION, **attributes})
    group.attrs["ome"] = checked.model_dump(mode="json", by_alias=True, exclude_none=True)
