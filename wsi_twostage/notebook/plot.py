"""plot(): slide, uncertainty and models side by side, in matplotlib (the extra ``plot``)."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wsi_twostage.errors import ConfigError
from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.notebook.drawing import drawn, slide_at
from wsi_twostage.pictures import HEAT, level_within, uncertainty_at

SIDE_PX = 1000  # longer side of what is drawn, at most
_INCHES = 4.5  # width of a panel
_MODELS = {
    Source.MODEL_1: ("Model 1", (230, 130, 0)),
    Source.MODEL_2: ("Model 2", (0, 110, 220)),
    Source.UNREADABLE: ("unreadable", (220, 0, 0)),
    Source.CRASHED: ("crashed", (140, 0, 0)),
    Source.PENDING: ("not seen yet", (130, 130, 130)),
}


def plot(
    result: MaskPyramid | str | os.PathLike[str], *layers: str, axes: Any = None, side_px: int = SIDE_PX
) -> list[Any]:
    """Draw a result with axes in millimetres from the slide's upper left corner.

    Parameters
    ----------
    result
        Its store, opened or not.
    layers
        Of `LAYERS`, all of them if none is given. ``slide``: with each object in its class's colour; where
        the slide is gone, over the store's overview. ``uncertainty``: Model 1's, where there is tissue.
        ``model``: which model gave each tile its labels.
    axes
        Matplotlib axes to draw on, one for each layer; None: a new figure.
    side_px
        Longer side of what is read and drawn, at most; the level of the mask is chosen by it.

    Returns
    -------
    The axes, one for each layer.

    Raises
    ------
    ConfigError
        matplotlib is not installed, a layer is unknown, or there are not as many axes as layers.
    StoreError
        There is no result.
    """
    store = result if isinstance(result, MaskPyramid) else MaskPyramid.open(result)
    layers = layers or tuple(LAYERS)
    unknown = [name for name in layers if name not in LAYERS]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} cannot be plotted; use {', '.join(LAYERS)}")
    panels = _new_panels(store, len(layers)) if axes is None else _given_panels(axes)
    if len(panels) != len(layers):
        raise ConfigError(f"{len(panels)} axes for {len(layers)} layers ({', '.join(layers)})")
    level = level_within(store, side_px)
    for panel, name in zip(panels, layers, strict=True):
        LAYERS[name](panel, store, level)
        panel.set_xlim(0, _mm(store, store.spec.width))
        panel.set_ylim(_mm(store, store.spec.height), 0)
        panel.set_aspect("equal")
        panel.set_xlabel("mm")
        panel.set_title(name)
    panels[0].set_ylabel("mm")
    return panels


def _new_panels(store: MaskPyramid, count: int) -> list[Any]:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ConfigError("plots need matplotlib; install wsi-twostage[plot]") from error
    height = float(np.clip(_INCHES * store.spec.height / store.spec.width, 2, 9)) + 0.6
    _, panels = pyplot.subplots(
        1, count, figsize=(_INCHES * count, height), layout="constrained", squeeze=False
    )
    return list(panels.flat)


def _given_panels(axes: Any) -> list[Any]:
    if isinstance(axes, np.ndarray):
        return list(axes.flat)
    return list(axes) if isinstance(axes, Sequence) else [axes]


def _mm(store: MaskPyramid, fine_px: float) -> float:
    return fine_px * store.spec.mpp / 1000


def _image(panel: Any, store: MaskPyramid, image: Any, fine_px: int, **how: Any) -> Any:
    """Show an image whose pixels are ``fine_px`` of the finest level each."""
    height, width = image.shape[:2]
    extent = (0, _mm(store, width * fine_px), _mm(store, height * fine_px), 0)
    return panel.imshow(image, extent=extent, **{"interpolation": "antialiased", **how})


def _legend(panel: Any, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(color=np.array(colour) / 255, label=name.replace("$", r"\$"))  # else it is mathematics
        for name, colour in entries
    ]
    panel.legend(handles=handles, loc="upper right", fontsize="small", framealpha=0.85)


def _slide(panel: Any, store: MaskPyramid, level: int) -> None:
    _image(panel, store, drawn(store, level), 2**level)
    _legend(panel, list(zip(store.spec.classes, store.spec.colours, strict=True)))


def _uncertainty(panel: Any, store: MaskPyramid, level: int) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    source, tile = store.read_source(), store.spec.tile
    ys, xs = ((np.arange(size) * 2**level // tile) for size in store.shape(level))
    u = np.ma.masked_where(source[ys][:, xs] == Source.BACKGROUND, uncertainty_at(store, level))
    heat = LinearSegmentedColormap.from_list("uncertainty", HEAT / 255)
    shown = _image(panel, store, u, 2**level, cmap=heat, vmin=0, vmax=1)
    panel.figure.colorbar(shown, ax=panel, shrink=0.7, label=str(store.manifest["uncertainty"]))


def _model(panel: Any, store: MaskPyramid, level: int) -> None:
    """Tiles in the colour of their model, over the slide in grey."""
    source, tile = store.read_source(), store.spec.tile
    grey = slide_at(store, level).mean(axis=-1)
    _image(panel, store, grey, 2**level, cmap="gray", vmin=0, vmax=255)
    colours = np.zeros((*source.shape, 4), np.float32)
    there = [(kind, entry) for kind, entry in _MODELS.items() if (source == kind).any()]
    for kind, (_, colour) in there:
        colours[source == kind] = (*np.array(colour) / 255, 0.45)
    _image(panel, store, colours, tile, interpolation="nearest")
    _legend(panel, [entry for _, entry in there])


LAYERS: dict[str, Callable[[Any, MaskPyramid, int], None]] = {
    "slide": _slide,
    "uncertainty": _uncertainty,
    "model": _model,
}
"""What can be plotted, and how."""
