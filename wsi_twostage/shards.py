"""What tasks write to the mask's shards: Model 1's labels, others in their place, and the levels above."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.answers import enlarge, to_labels
from wsi_twostage.mask import MaskPyramid, Shard
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.tiles import Box, Tile, merge
from wsi_twostage.work import Clock, Work


def first_shard(work: Work, shard: Shard, tissue: tuple[Tile, ...]) -> Clock:
    """Write the labels of one shard: Model 1's answer on ``tissue``."""
    clock = Clock()
    with clock.of("write"), work.watched(f"writing {shard}"):
        labels = coarse_labels(work.mask, work.spec, work.mask.box(shard), tissue)
        work.ensure_ours()
        work.mask.write(shard, labels)
    return clock


def restore_shard(work: Work, shard: Shard, tiles: tuple[Tile, ...]) -> Clock:
    """Put Model 1's answer back on some tiles of a shard."""
    clock, own = Clock(), work.mask.box(shard)
    with clock.of("write"), work.watched(f"writing {shard}"):
        first = coarse_labels(work.mask, work.spec, own, tiles)
        put(work, shard, parts_of(first, own, map(work.mask.spec.tiles.box, tiles)))
    return clock


def reduce_shard(work: Work, shard: Shard) -> Clock:
    """Write a shard of a coarser level, once the four under it are there."""
    clock = Clock()
    with clock.of("write"), work.watched(f"writing {shard}"):
        work.ensure_ours()
        work.mask.reduce(shard)
    return clock


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


def parts_of(labels: NDArray[np.uint8], of: Box, boxes: Iterable[Box]) -> dict[Box, NDArray[np.uint8]]:
    """What the labels of a box, (H, W), say of boxes in it."""
    return {box: labels[box.relative_to(of).slices] for box in boxes}


def put(work: Work, shard: Shard, parts: Mapping[Box, NDArray[np.uint8]]) -> None:
    """Put labels (H, W) into boxes of a shard, which is written if that changes it.

    The shard is read now, not when the work on the labels began: what others wrote meanwhile stays.
    """
    own = work.mask.box(shard)
    work.ensure_ours()
    before = work.mask.read(own)
    labels = before.copy()
    for box, part in parts.items():
        labels[box.relative_to(own).slices] = part
    if (labels != before).any():
        work.mask.write(shard, labels)
