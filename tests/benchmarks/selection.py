"""Which score finds the tiles worth refining, on a slide with ground truth.

    python tests/benchmarks/selection.py DATA [--budget 5 10 20 40] [--model BUNDLE]

The slide of `canvas.py`, refined everywhere and nowhere. A row for each uncertainty; for a gain predicted by
ridge regression from all of them, the histogram of Model 1's probability and the length of its borders,
fitted with the truth of the other four fifths of the tiles; for an oracle that knows what each tile would
gain; and for chance. A column for each budget: Dice lost to refining everything, in points.
"""

import argparse
from pathlib import Path

import numpy as np
from measure import none_and_all
from numpy.typing import NDArray

from wsi_twostage.curves.curve import gains, highest
from wsi_twostage.curves.slides import cells_of
from wsi_twostage.dice import dice
from wsi_twostage.models.header import SHIPPED
from wsi_twostage.tiles import Tile
from wsi_twostage.uncertainty import UNCERTAINTIES, of_bytes

FOLDS = 5
BINS = 16  # of the histogram


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/")
    parser.add_argument("--budget", nargs="*", type=float, default=[5, 10, 20, 40], help="percent")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    with none_and_all(arguments.data, arguments.model) as (first, second, truth):
        none, every = first.store, second.store
        counts = cells_of(none, every, truth > 0, every).counts[:, :, 0]  # (tiles, models, 3)
        table, grid, step = none.tiles(), none.spec.tiles, none.spec.ratio
        tiles = [Tile(int(row), int(col)) for row, col in zip(table["row"], table["col"], strict=True)]
        seen = [none.read_probability(grid.box(tile).coarser(step)) for tile in tiles]
    orders = {name: np.array([of_bytes(name, p).mean() for p in seen]) for name in UNCERTAINTIES}
    best = dice(counts[:, 1].sum(0))
    gain = gains(counts, best)
    orders["learned"] = _predicted(np.stack([*orders.values(), *_features(seen)], 1), gain)
    orders["oracle"] = gain
    print(f"{len(tiles)} tiles; refining all {100 * best:.2f}, none {100 * dice(counts[:, 0].sum(0)):.2f}\n")
    print("| | " + " | ".join(f"{budget:g} %" for budget in arguments.budget) + " |")
    print("|" + "---|" * (len(arguments.budget) + 1))
    shares = [budget / 100 for budget in arguments.budget]
    chosen = {name: [highest(order, share) for share in shares] for name, order in orders.items()}
    chosen["random"] = [  # what is expected of chance
        np.full(len(tiles), part.mean()) for part in chosen["oracle"]
    ]
    for name, parts in chosen.items():  # how much of each tile is Model 2's
        mixed = [(counts[:, 0] + part[:, None] * (counts[:, 1] - counts[:, 0])).sum(0) for part in parts]
        print(f"| {name} | {' | '.join(f'{100 * (best - dice(found)):.2f}' for found in mixed)} |")


def _features(seen: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """(BINS + 1, tiles)."""
    rows = []
    for p in seen:
        inside = p[0] > 127
        border = (inside[1:] != inside[:-1]).mean() + (inside[:, 1:] != inside[:, :-1]).mean()
        rows.append([*np.histogram(p[0], BINS, (0, 256))[0] / p[0].size, border])
    return np.array(rows).T


def _predicted(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each tile's ``y`` by a ridge regression that has not seen its fold."""
    x = (x - x.mean(0)) / (x.std(0) + 1e-9)
    fold = np.random.RandomState(0).permutation(len(y)) % FOLDS
    found = np.zeros(len(y))
    for k in range(FOLDS):
        a, b = x[fold != k], y[fold != k]
        weights = np.linalg.solve(a.T @ a + 0.1 * len(a) * np.eye(x.shape[1]), a.T @ (b - b.mean()))
        found[fold == k] = x[fold == k] @ weights + b.mean()
    return found


if __name__ == "__main__":
    main()
