"""In which order tiles are best refined: by their gain alone, or by their gain per second.

    python tests/benchmarks/order.py RESULT...

RESULT is a store made with `--refine all`: its tile table says what Model 2 changed on each tile. A tile
beside one that is refined already shares its halo and so costs less; `per second` ranks by uncertainty over a
cost that falls by so many percent with each such neighbour, and `best` knows the changes. Each order is cut
into the batches and windows of a run, and the table says which part of all changes is found by the time that
a part of all pixels has gone through Model 2.
"""

import argparse
import heapq
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.batches import batches, tiles_of_shards
from wsi_twostage.fine import shape
from wsi_twostage.mask import MaskPyramid, MaskSpec
from wsi_twostage.models.header import SHIPPED, read_spec
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.selection import ALL, Selection, select
from wsi_twostage.tiles import merge

SPENT = 0.1, 0.2, 0.3, 0.5, 0.7
SHARED = 0.05, 0.1, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+", type=Path)
    for path in parser.parse_args().results:
        measure(MaskPyramid.open(path), read_spec(SHIPPED), path.name)


def measure(mask: MaskPyramid, spec: BundleSpec, name: str) -> None:
    """One table."""
    columns = mask.tiles()
    places = columns["row"], columns["col"]
    scores = np.zeros((mask.spec.tiles.rows, mask.spec.tiles.cols), np.float32)
    changes, tissue = scores.copy(), np.zeros(scores.shape, np.bool_)
    scores[places], changes[places], tissue[places] = (
        np.nan_to_num(columns["uncertainty"]),
        np.nan_to_num(columns["disagreement"]),
        True,
    )
    orders = {"uncertainty": select(scores, tissue, ALL)}
    orders |= {f"per second, {shared:.0%}": per_second(scores, tissue, shared) for shared in SHARED}
    orders["random"] = select(np.random.default_rng(0).random(scores.shape, np.float32), tissue, ALL)
    orders["best"] = select(changes, tissue, ALL)
    everything = list(spent_and_found(orders["uncertainty"], changes, mask.spec, spec))[-1][0]
    per_px = everything / tissue.sum() / spec.tile**2
    print(f"\n{name}: {tissue.sum()} tiles, {per_px:.2f} px through Model 2 per px of them\n")
    print(f"| order | {' | '.join(f'{part:.0%} spent' for part in SPENT)} |")
    print(f"|---|{'---|' * len(SPENT)}")
    for order, selection in orders.items():
        spent, found = np.array([(0, 0), *spent_and_found(selection, changes, mask.spec, spec)]).T
        at = np.interp(np.multiply(SPENT, everything), spent, found / changes.sum())
        print(f"| {order} | {' | '.join(f'{part:.1%}' for part in at)} |")


def per_second(scores: NDArray[np.float32], tissue: NDArray[np.bool_], shared: float) -> Selection:
    """Greedy: the next tile is the one with the highest score for its cost, which neighbours lower."""
    cost = np.ones(scores.shape)
    waiting = [(-float(scores[tile]), 1.0, tile) for tile in zip(*np.nonzero(tissue), strict=True)]
    heapq.heapify(waiting)
    left, order = tissue.copy(), []
    while waiting:
        _, then, (row, col) = heapq.heappop(waiting)
        if not left[row, col] or then != cost[row, col]:
            continue
        left[row, col] = False
        order.append(row * scores.shape[1] + col)
        for tile in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
            if all(0 <= at < size for at, size in zip(tile, scores.shape, strict=True)) and left[tile]:
                cost[tile] -= shared
                heapq.heappush(waiting, (-float(scores[tile] / cost[tile]), float(cost[tile]), tile))
    return Selection(tissue, np.array(order))


def spent_and_found(
    selection: Selection, changes: NDArray[np.float32], mask: MaskSpec, spec: BundleSpec
) -> Iterator[tuple[int, float]]:
    """After each batch: pixels that went through Model 2, and changes that came of it."""
    spent, found = 0, 0.0
    for batch in batches(selection):
        for tiles in tiles_of_shards(mask, batch).values():
            windows = merge(tiles, mask.tiles, **shape(spec))
            spent += sum(window.box.grow(spec.halo).area for window in windows)
        found += float(changes[batch].sum())
        yield spent, found


if __name__ == "__main__":
    main()
