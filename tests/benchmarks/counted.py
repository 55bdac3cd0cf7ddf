"""Whether the gap that is counted for a choice of tiles is that of the mask with this choice.

    python tests/benchmarks/counted.py ALL.zarr SOME.zarr ...

ALL refined everything, each SOME a part of the same slide. ``counted`` takes the labels of SOME's refined
tiles from ALL, as `wsi-seg calibrate` and an audit do; ``left`` is SOME as it is. Both are 1 - Dice to ALL,
of foreground, in percent; ``tile`` is that of the refined tile which differs most.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.dice import dice, overlap
from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.tiles import Box, Tile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("every", type=Path)
    parser.add_argument("some", type=Path, nargs="+")
    arguments = parser.parse_args()
    every = foreground(MaskPyramid.open(arguments.every))
    print("| | refined | counted | left | tile |\n|---|---|---|---|---|")
    for path in arguments.some:
        store = MaskPyramid.open(path)
        left, table = foreground(store), store.tiles()
        counted, worst, second = left.copy(), 0.0, table["source"] == Source.MODEL_2
        for row, col in zip(table["row"][second].tolist(), table["col"][second].tolist(), strict=True):
            part = store.spec.tiles.box(Tile(row, col)).clip(*store.shape()).slices
            worst = max(worst, gap(left[part], every[part]))
            counted[part] = every[part]
        gaps = " | ".join(f"{100 * value:.2f}" for value in (gap(counted, every), gap(left, every), worst))
        print(f"| {path.name} | {second.mean():.1%} | {gaps} |")


def foreground(store: MaskPyramid) -> NDArray[np.bool_]:
    return store.read(Box(0, 0, *store.shape())) > 0


def gap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 1 - float(dice(overlap(one, other)))


if __name__ == "__main__":
    main()
