"""What keeps the curve from an aim: the best that could be had if one thing were better, or gone.

    python tests/benchmarks/limits.py DATA [--speed 8] [--gap 0.4] [--model BUNDLE]

The slide of `canvas.py`, refined nowhere and everywhere. Times and masks of any share of the tiles are put
together from these two runs, with one thing changed in each row. Printed are the smallest gap to the
reference at the wanted speed, and the highest speed with the wanted gap; a dash where no share of the tiles
gives it. Times are relative to Model 2 everywhere without stage 1.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from measure import none_and_all
from numpy.typing import NDArray

from wsi_twostage.curves.curve import gains, highest
from wsi_twostage.curves.slides import cells_of
from wsi_twostage.dice import dice
from wsi_twostage.models.header import SHIPPED

SHARES = np.arange(101) / 100


@dataclass(frozen=True, eq=False)
class Way:
    """How a slide could be segmented; times are shares of the reference's."""

    overhead: float  # reading, selecting, writing
    model_1: float
    model_2: float  # of all tiles
    gaps: NDArray[np.float64]  # points of Dice under the reference, for each of SHARES

    @property
    def costs(self) -> NDArray[np.float64]:
        return self.overhead + self.model_1 + SHARES * self.model_2

    def gap_at(self, speed: float) -> str:
        """The smallest one that is at least so fast."""
        reached = self.gaps[self.costs <= 1 / speed]
        return f"{reached.min():.2f}" if len(reached) else "-"

    def speed_at(self, gap: float) -> str:
        """The highest one that is at most so far from the reference."""
        costs = self.costs[self.gaps <= gap]
        return f"{1 / costs.min():.1f}" if len(costs) else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/")
    parser.add_argument("--speed", type=float, default=8, help="times the reference's")
    parser.add_argument("--gap", type=float, default=0.4, help="points of Dice")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    with none_and_all(arguments.data, arguments.model) as (none, every, truth):
        cells = cells_of(none.store, every.store, truth > 0, every.store)
    counts = cells.counts[:, :, 0]  # (tiles, models, 3)
    best = dice(counts[:, 1].sum(0))

    def gaps(order: NDArray[np.float64]) -> NDArray[np.float64]:
        chosen = (highest(order, share)[:, None] for share in SHARES)
        return np.array([100 * (best - dice(np.where(c, counts[:, 1], counts[:, 0]).sum(0))) for c in chosen])

    first, last = none.result["seconds"], every.result["seconds"]
    whole = last["total"] - last["stage_1"]
    ours = Way(
        overhead=(first["total"] - first["stage_1"]) / whole,
        model_1=first["stage_1"] / whole,
        model_2=(last["stage_2"] - first["stage_2"]) / whole,
        gaps=gaps(cells.scores),
    )
    closer = replace(ours, gaps=ours.gaps / 2)
    ways = {
        "as it is": ours,
        "the choice of an oracle": replace(ours, gaps=gaps(gains(counts, best))),
        "nothing but networks": replace(ours, overhead=0),
        "Model 2 for half its price": replace(ours, model_2=ours.model_2 / 2),
        "Model 1 for half its price": replace(ours, model_1=ours.model_1 / 2),
        "Model 1 half as far from the reference": closer,
        "that, and Model 2 for half its price": replace(closer, model_2=ours.model_2 / 2),
        "that, and Model 1 for half its price": replace(closer, model_1=ours.model_1 / 2),
    }
    print(f"{len(counts)} tiles; of the reference's time Model 1 takes {ours.model_1:.1%}, all of Model 2 ")
    print(f"{ours.model_2:.1%}, everything else {ours.overhead:.1%}\n")
    print(f"| | gap at {arguments.speed:g} times the speed | times faster at {arguments.gap:g} points |")
    print("|" + "---|" * 3)
    for name, way in ways.items():
        print(f"| {name} | {way.gap_at(arguments.speed)} | {way.speed_at(arguments.gap)} |")


if __name__ == "__main__":
    main()
