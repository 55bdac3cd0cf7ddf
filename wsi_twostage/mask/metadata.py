"""OME-Zarr 0.5 metadata of the store, written by ome-zarr-py; this file only fills in values."""

import warnings
from typing import Any

import zarr

from wsi_twostage.mask.spec import MaskSpec

RGB = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}


def write_metadata(root: zarr.Group, spec: MaskSpec) -> None:
    """Describe the overview at ``root`` and the mask below it, in micrometres.

    The origin is the centre of the first fine pixel.
    """
    with warnings.catch_warnings():
        # ome-zarr-py 0.18 warns about its own deprecated class when it is imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Imported here: it drags in dask and takes a second, and workers never need it.
        from ome_zarr.format import FormatV05
        from ome_zarr.writer import write_label_metadata, write_multiscales_metadata

    labels = root.require_group("labels")
    fmt = FormatV05()
    write_multiscales_metadata(
        root,
        _datasets(spec, spec.overview_downsample, channels=1),
        fmt=fmt,
        axes=[{"name": "c", "type": "channel"}, *_axes()],
        name="overview",
        metadata={"omero": _omero(), "method": "2 x 2 mean"},
    )
    write_multiscales_metadata(
        labels[spec.name],
        _datasets(spec, 1.0, channels=0),
        fmt=fmt,
        axes=_axes(),
        name=spec.name,
        metadata={"method": "2 x 2 majority"},
    )
    write_label_metadata(
        labels,
        spec.name,
        colors=[
            {"label-value": label, "rgba": [*colour, 255]} for label, colour in enumerate(spec.colours, 1)
        ],
        properties=[{"label-value": label, "class": name} for label, name in enumerate(spec.classes, 1)],
        fmt=fmt,
        source={"image": "../../"},
    )
    # ome-zarr-py leaves the version out here (still so in 0.21), which both validators refuse.
    attributes: dict[str, Any] = dict(labels.attrs)
    labels.attrs["ome"] = {**attributes["ome"], "version": fmt.version}


def _axes() -> list[dict[str, str]]:
    return [{"name": name, "type": "space", "unit": "micrometer"} for name in ("y", "x")]


def _datasets(spec: MaskSpec, downsample: float, *, channels: int) -> list[dict[str, Any]]:
    """Scale and translation of every level; ``channels`` leading axes have no physical size.

    A pixel of level i covers 2**i * downsample fine pixels, so its centre is half of that, less
    half a fine pixel, away from the centre of the first fine pixel.
    """
    datasets = []
    for level in range(spec.levels):
        size = downsample * 2**level  # fine pixels
        scale, translation = spec.mpp * size, spec.mpp * (size - 1) / 2
        transformations = [
            {"type": "scale", "scale": [1.0] * channels + [scale] * 2},
            {"type": "translation", "translation": [0.0] * channels + [translation] * 2},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    return datasets


def _omero() -> dict[str, Any]:
    """How a viewer shows the three channels as one colour image."""
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    channels = [
        {"label": label, "color": colour, "window": window, "active": True} for label, colour in RGB.items()
    ]
    return {"channels": channels, "rdefs": {"model": "color"}}
