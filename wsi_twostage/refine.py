"""Line 3 of Algorithm 1 over a slide: Model 2 on the chosen tiles, one shard a task."""

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.answers import enlarge, to_labels
from wsi_twostage.mask import MaskPyramid, Shard
from wsi_twostage.models.bundle import BundleSpec
from wsi_twostage.models.compiled import Compiled
from wsi_twostage.models.runner import Runner, runner
from wsi_twostage.models.unet import CONTEXT_STRIDE
from wsi_twostage.tiles import Box, Tile, Window, merge
from wsi_twostage.work import Clock, Done, WindowShape, Work, through_windows

LIMIT_PX = 768  # Model 2's windows have at most the pixels of such a square, halo excluded: memory


def first_shard(work: Work, shard: Shard, tissue: tuple[Tile, ...]) -> Clock:
    """Write the labels of one shard: Model 1's answer on ``tissue``."""
    clock = Clock()
    with clock.of("write"):
        spec = runner(work.model).spec
        work.mask.write(shard, coarse_labels(work.mask, spec, work.mask.box(shard), tissue))
    return clock


def restore_shard(work: Work, shard: Shard, tiles: tuple[Tile, ...]) -> None:
    """Put Model 1's answer back on some tiles of a shard."""
    grid, own = work.mask.spec.tiles, work.mask.box(shard)
    labels = work.mask.read(own)
    first = coarse_labels(work.mask, runner(work.model).spec, own, tiles)
    for part in (grid.box(tile).relative_to(own).slices for tile in tiles):
        labels[part] = first[part]
    work.mask.write(shard, labels)


def refine_shard(work: Work, shard: Shard, chosen: tuple[Tile, ...], before: frozenset[Tile]) -> Done:
    """Put Model 2's labels of the ``chosen`` tiles into one shard.

    Tiles of ``before`` are there already. They shape the windows, so that a run which goes on with another
    one's work sees the same windows; a window with none but such tiles is left out.
    """
    model, grid, clock = runner(work.model), work.mask.spec.tiles, Clock()
    own = work.mask.box(shard)
    with clock.of("write"):
        labels = work.mask.read(own)
    done: list[Tile] = []
    costs: list[float] = []
    unreadable: list[Tile] = []
    for window, answer in through_windows(
        chosen,
        grid,
        **shape(model.spec),
        predict=lambda w: predict_fine(work, model, w, clock),
        done=before,
        until=work.until,
    ):
        if answer is None:  # Model 1's answer stays
            unreadable.extend(window.tiles)
            continue
        spent = clock.read + clock.network - sum(costs)
        for tile in window.tiles:
            box = grid.box(tile)
            labels[box.relative_to(own).slices] = answer[box.relative_to(window.box).slices]
            costs.append(spent / len(window.tiles))
            done.append(tile)
    with clock.of("write"):
        if done:
            work.mask.write(shard, labels)
        changed = labels != coarse_labels(work.mask, model.spec, own, tuple(done))
    return Done(
        tuple(done),
        np.array([changed[grid.box(tile).relative_to(own).slices].mean() for tile in done], np.float32),
        tuple(unreadable),
        clock,
        tuple(round(1000 * cost, 1) for cost in costs),
    )


def shape(spec: BundleSpec) -> WindowShape:
    """Of the windows that Model 2 sees."""
    return WindowShape(limit=max(LIMIT_PX**2 // spec.tile**2, 1), halo=spec.halo)


def reduce_shard(work: Work, shard: Shard) -> Clock:
    """Write a shard of a coarser level, once the four under it are there."""
    clock = Clock()
    with clock.of("write"):
        work.mask.reduce(shard)
    return clock


def predict_fine(work: Work, model: Runner | Compiled, window: Window, clock: Clock) -> NDArray[np.uint8]:
    """Model 2 on a window with its halo and the context around it -> labels of the core (H, W)."""
    spec, box = model.spec, window.box
    with clock.of("read"):
        fine = work.fine.read(box.grow(spec.halo))
        around = work.around.read(box.coarser(CONTEXT_STRIDE).grow(spec.context_halo))
    with clock.of("network"):
        core = slice(spec.halo, -spec.halo or None)
        labels = to_labels(model.f2(fine, around)[:, core, core], spec.decisions[1])
    clock.megapixels += fine.shape[0] * fine.shape[1] / 1e6
    return labels


def coarse_labels(
    mask: MaskPyramid, spec: BundleSpec, box: Box, tissue: tuple[Tile, ...]
) -> NDArray[np.uint8]:
    """Model 1's labels of a box of whole tiles, enlarged; background in tiles without tissue."""
    grid = mask.spec.tiles
    labels = np.zeros((box.height, box.width), np.uint8)
    if not tissue:
        return labels
    height, width = -(-grid.height // spec.step), -(-grid.width // spec.step)
    for window in merge(tissue, grid, limit=len(grid), halo=0):
        inside = window.box.clip(grid.height, grid.width)
        at = inside.coarser(spec.step).grow(1).clip(height, width)
        logits = enlarge(mask.read_probability(at), at=at, wanted=inside, ratio=spec.step)
        labels[inside.relative_to(box).slices] = to_labels(logits, spec.decisions[0])
    return labels
