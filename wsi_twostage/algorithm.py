"""Algorithm 1 of the paper on an image in memory, line by line; `pipeline` gives the same on a slide."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.answers import enlarge, to_labels, to_probability
from wsi_twostage.errors import ConfigError
from wsi_twostage.models.bundle import ModelBundle
from wsi_twostage.models.runner import refer, runner
from wsi_twostage.models.spec import CONTEXT_STRIDE, STRIDE
from wsi_twostage.pixels import Image
from wsi_twostage.selection import Rule, Selection, select
from wsi_twostage.tiles import Box, TileGrid
from wsi_twostage.uncertainty import of_bytes, tile_mean


@dataclass(frozen=True, eq=False)
class TwoStage:
    """What the two stages give for an image."""

    labels: NDArray[np.uint8]  # (H, W)
    probability: NDArray[np.uint8]  # (C, h, w), 255 times Model 1's probability on its own grid
    scores: NDArray[np.float32]  # (rows, cols): uncertainty of each tile
    selection: Selection


def two_stage(
    image: NDArray[np.uint8],
    bundle: ModelBundle,
    rule: Rule,
    *,
    tissue: NDArray[np.bool_] | None = None,
    uncertainty: str = "entropy",
) -> TwoStage:
    """Segment an image (H, W, 3) at the bundle's mpp.

    Parameters
    ----------
    tissue
        (rows, cols): the tiles to look at; all, if None.

    Raises
    ------
    ConfigError
        An image, tissue, rule or uncertainty that is none.
    """
    _ensure_rgb(image)
    spec, model = bundle.spec, runner(refer(bundle, device="cpu", precision="fp32")[0])
    x = Image(image)
    grid = TileGrid(x.height, x.width, spec.tile)
    tissue = np.ones((grid.rows, grid.cols), np.bool_) if tissue is None else tissue
    if tissue.shape != (grid.rows, grid.cols):
        raise ConfigError(f"tissue of {tissue.shape} tiles; expected {grid.rows, grid.cols}")

    # line 1: p = up(f1(down(x)))
    small, halo = x.coarser(spec.ratio), spec.coarse_halo
    smaller, wide = x.coarser(CONTEXT_STRIDE), spec.context_halo
    even = Box(0, 0, -(-small.height // STRIDE) * STRIDE, -(-small.width // STRIDE) * STRIDE)
    answer = to_probability(model.f1(small.read(even.grow(halo))), spec.temperature)
    rows, cols = -(-x.height // spec.step), -(-x.width // spec.step)
    p = answer[:, halo * spec.scale :, halo * spec.scale :][:, :rows, :cols]
    seen = _per_pixel(tissue, spec.tile // spec.step, rows, cols)
    p = p * seen
    everywhere = Box(0, 0, x.height, x.width)
    base = enlarge(p, at=Box(0, 0, rows, cols), wanted=everywhere, ratio=spec.step)
    labels = to_labels(base, spec.decisions[0]) * _per_pixel(tissue, spec.tile, x.height, x.width)

    # line 2: patches = {(i, j) | g(h(c_ij(p)))}
    u = of_bytes(uncertainty, p) * seen
    h = tile_mean(u, spec.tile // spec.step)
    patches = select(h, tissue, rule)

    # line 3: c_ij(p) = f2(c_ij(x)) for (i, j) in patches
    for tile in grid:
        if patches.chosen[tile]:
            box = Box(tile.row * spec.tile, tile.col * spec.tile, spec.tile, spec.tile)
            around = smaller.read(box.coarser(CONTEXT_STRIDE).grow(wide))
            logits = model.f2(x.read(box.grow(spec.halo)), around)
            core = logits[:, spec.halo : spec.halo + spec.tile, spec.halo : spec.halo + spec.tile]
            inside = grid.box(tile)
            labels[inside.slices] = to_labels(core, spec.decisions[1])[: inside.height, : inside.width]
    return TwoStage(labels, p, h, patches)


def _ensure_rgb(image: NDArray[np.uint8]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ConfigError(f"an image of {image.dtype}, {image.shape}; expected uint8, (H, W, 3)")


def _per_pixel(tiles: NDArray[np.bool_], tile: int, height: int, width: int) -> NDArray[np.bool_]:
    """Each tile's value for all of its pixels, (height, width)."""
    return np.repeat(np.repeat(tiles, tile, axis=0), tile, axis=1)[:height, :width]
