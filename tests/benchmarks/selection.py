"""Which uncertainty finds the tiles worth refining, on a slide with ground truth.

    python tests/benchmarks/selection.py DATA [--budget 5 10 20 40] [--model BUNDLE]

The slide of `canvas.py`, refined everywhere and nowhere. A row for each uncertainty, for an oracle that knows
what each tile would gain, and for chance; a column for each budget: Dice lost to refining everything, in
points, and for the oracle also what it shows can be had.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from canvas import canvas, tile_counts, write
from measure import dice, run

from wsi_twostage.models.bundle import SHIPPED
from wsi_twostage.uncertainty import UNCERTAINTIES, of_bytes, tile_mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/")
    parser.add_argument("--budget", nargs="*", type=float, default=[5, 10, 20, 40], help="percent")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    image, truth = canvas(arguments.data, arguments.model, copies=1)
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "canvas.tiff"
        write(slide, image)
        none, every = (
            run(slide, Path(folder) / f"{rule}.zarr", "--model", str(arguments.model), "--refine", rule).store
            for rule in ("none", "all")
        )
        tiles, counts = tile_counts(every, none, truth)
        step = every.spec.ratio
        boxes = [every.spec.tiles.box(tile).coarser(step) for tile in tiles]
        seen = [none.read_probability(box) for box in boxes]
    orders = {
        name: np.array([tile_mean(of_bytes(name, p), max(p.shape))[0, 0] for p in seen])
        for name in UNCERTAINTIES
    }
    best = dice(counts[:, 1].sum(0))
    change = counts[:, 1] - counts[:, 0]
    orders["oracle"] = 2 * change[:, 0] - best / 100 * change[:, 1]
    orders["random"] = np.random.RandomState(0).rand(len(tiles))
    print(f"{len(tiles)} tiles; refining all {best:.2f}, none {dice(counts[:, 0].sum(0)):.2f}\n")
    print("| | " + " | ".join(f"{budget:g} %" for budget in arguments.budget) + " |")
    print("|" + "---|" * (len(arguments.budget) + 1))
    for name, order in orders.items():
        gaps = []
        for budget in arguments.budget:
            chosen = np.argsort(-order, kind="stable")[: round(budget / 100 * len(tiles))]
            mixed = counts[:, 0].copy()
            mixed[chosen] = counts[chosen, 1]
            gaps.append(f"{best - dice(mixed.sum(0)):.2f}")
        print(f"| {name} | {' | '.join(gaps)} |")


if __name__ == "__main__":
    main()
