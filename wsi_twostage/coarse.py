"""Line 1 of Algorithm 1 over a slide: Model 1 on the coarse level, one shard a task."""

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.answers import to_probability
from wsi_twostage.mask import Shard
from wsi_twostage.models.compiled import Compiled
from wsi_twostage.models.runner import Runner, runner
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.pixels import Pixels
from wsi_twostage.tiles import Tile, Window
from wsi_twostage.uncertainty import of_bytes, tile_mean
from wsi_twostage.work import Clock, Done, WindowShape, Work, through_windows

LIMIT_PX = 1024  # Model 1's windows have at most the pixels of such a square, halo excluded: memory


def coarse_shard(work: Work, shard: Shard, tissue: tuple[Tile, ...]) -> Done:
    """Write Model 1's probability under one shard and tell the uncertainty of its ``tissue`` tiles."""
    model, spec, grid, clock = runner(work.model), work.spec, work.mask.spec.tiles, Clock()
    own = work.mask.box(shard).coarser(spec.step)
    fresh: dict[Tile, NDArray[np.uint8]] = {}
    values: list[float] = []
    unreadable: list[Tile] = []
    for window, answer in through_windows(
        work, tissue, **shape(spec), predict=lambda w: predict_coarse(work.coarse, model, w, clock)
    ):
        if answer is None:
            unreadable.extend(window.tiles)
            continue
        for tile in window.tiles:
            cell = grid.box(tile).coarser(spec.step)
            fresh[tile] = answer[:, *cell.relative_to(window.box.coarser(spec.step)).slices]
            values.append(tile_mean(of_bytes(work.uncertainty, fresh[tile]), grid.tile)[0, 0])
    if len(fresh) + len(unreadable) < len(tissue):  # stopped: all of them are written, or none
        return Done((), np.zeros(0, np.float32), (), clock)
    with clock.of("write"), work.watched(f"writing {shard}"):
        work.ensure_sound()
        probability = work.mask.read_probability(own)
        for tile, p in fresh.items():
            probability[:, *grid.box(tile).coarser(spec.step).relative_to(own).slices] = p
        work.mask.write_probability(own, probability)
    return Done(tuple(fresh), np.asarray(values, np.float32), tuple(unreadable), clock)


def shape(spec: BundleSpec) -> WindowShape:
    """Of the windows that Model 1 sees."""
    limit = max((LIMIT_PX * spec.ratio // spec.tile) ** 2, 1)
    return WindowShape(limit=limit, halo=spec.coarse_halo * spec.ratio)


def predict_coarse(
    coarse: Pixels, model: Runner | Compiled, window: Window, clock: Clock
) -> NDArray[np.uint8]:
    """Model 1 on a window with its halo -> 255 times the probability of its core, (C, h, w)."""
    spec = model.spec
    with clock.of("read"):
        rgb = coarse.read(window.box.coarser(spec.ratio).grow(spec.coarse_halo))
    with clock.of("network"):
        p = model.within_memory(rgb, lambda: to_probability(model.f1(rgb), spec.temperature))
    clock.megapixels += rgb.shape[0] * rgb.shape[1] / 1e6
    halo, core = spec.coarse_halo * spec.scale, window.box.coarser(spec.step)
    return p[:, halo : halo + core.height, halo : halo + core.width]
