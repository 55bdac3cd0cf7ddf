"""Line 3 of Algorithm 1 over a slide: Model 2 on the chosen tiles, one shard a task."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.answers import to_labels
from wsi_twostage.mask import Shard
from wsi_twostage.models.compiled import Compiled
from wsi_twostage.models.runner import Runner, runner
from wsi_twostage.models.spec import CONTEXT_STRIDE, BundleSpec
from wsi_twostage.shards import coarse_labels, parts_of, put, restore_shard
from wsi_twostage.tiles import Box, Tile, Window
from wsi_twostage.work import Clock, Done, WindowShape, Work, give_up, through_windows


def refine_shard(work: Work, shard: Shard, chosen: tuple[Tile, ...]) -> Done:
    """Put Model 2's labels of the ``chosen`` tiles into one shard.

    Each has a window of its own, so that what Model 2 says of a tile does not depend on what else is refined:
    the gap to the reference that was counted for a choice of tiles is that of the mask with this choice.
    """
    model, spec, grid, clock = runner(work.model), work.spec, work.mask.spec.tiles, Clock()
    own = work.mask.box(shard)
    fresh: dict[Box, NDArray[np.uint8]] = {}
    done: list[Tile] = []
    costs: list[float] = []
    unreadable: list[Tile] = []
    for window, answer in through_windows(
        work,
        chosen,
        **shape(spec),
        predict=lambda w: predict_fine(work, model, w, clock),
    ):
        (tile,) = window.tiles
        if answer is None:  # Model 1's answer stays
            unreadable.append(tile)
            continue
        box = grid.box(tile)
        fresh[box] = answer[box.relative_to(window.box).slices]
        costs.append(clock.read + clock.network - sum(costs))
        done.append(tile)
    with clock.of("write"), work.watched(f"writing {shard}"):
        work.ensure_sound()
        without = [tile for tile in chosen if grid.box(tile) not in fresh]
        first = coarse_labels(work.mask, spec, own, (*done, *without))
        # Model 1's where there is no answer: a worker may have died after it wrote one, and not told
        put(work, shard, parts_of(first, own, map(grid.box, without)) | fresh)
    return Done(
        tuple(done),
        np.array(
            [(part != first[box.relative_to(own).slices]).mean() for box, part in fresh.items()], np.float32
        ),
        tuple(unreadable),
        clock,
        tuple(round(1000 * cost, 1) for cost in costs),
    )


def give_up_shard(work: Work, shard: Shard, tiles: tuple[Tile, ...]) -> Done:
    """In the place of a job that ends its workers: Model 1's answer, whatever they wrote before they died."""
    return replace(give_up(work, shard, tiles), clock=restore_shard(work, shard, tiles))


def shape(spec: BundleSpec) -> WindowShape:
    """Of the windows that Model 2 sees."""
    return WindowShape(limit=1, halo=spec.halo)


def predict_fine(work: Work, model: Runner | Compiled, window: Window, clock: Clock) -> NDArray[np.uint8]:
    """Model 2 on a window with its halo and the context around it -> labels of the core (H, W)."""
    spec, box = model.spec, window.box
    with clock.of("read"):
        fine = work.fine.read(box.grow(spec.halo))
        around = work.around.read(box.coarser(CONTEXT_STRIDE).grow(spec.context_halo))
    with clock.of("network"):
        core = slice(spec.halo, -spec.halo or None)
        labels = model.within_memory(
            fine, lambda: to_labels(model.f2(fine, around)[:, core, core], spec.decisions[1])
        )
    clock.megapixels += fine.shape[0] * fine.shape[1] / 1e6
    return labels
