"""Would three rungs beat two? A quarter of the resolution, half of it where that is unsure, then all of it.

    python tests/benchmarks/ladder.py DATA FIRST SECOND

FIRST and SECOND are bundles with the same Model 2 and tiles, whose Model 1 works at a quarter and at half of
the resolution. The slide of `canvas.py` is run by both with `--refine none` and once with `--refine all`. The
time of a mixture is added up from these runs: what does not depend on the networks, Model 1 of FIRST on all
tiles, that of SECOND on a share of them, Model 2 on a share of those. A row for each share of the two-stage
run with SECOND, and the ladder with the best two shares that cost no more, chosen in hindsight. Times are
relative to Model 2 everywhere without stage 1.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from canvas import make
from measure import run

from wsi_twostage.curves.curve import highest
from wsi_twostage.curves.slides import cells_of
from wsi_twostage.dice import dice

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/")
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made, labels = make(Path(folder), arguments.data, arguments.second)
        tissue = ("--tissue", str(made.tissue))
        quarter, half, full = (
            run(made.slide, Path(folder) / f"{i}.zarr", *tissue, "--model", str(model), "--refine", rule)
            for i, (model, rule) in enumerate(
                ((arguments.first, "none"), (arguments.second, "none"), (arguments.second, "all"))
            )
        )
        low = cells_of(quarter.store, half.store, labels > 0, full.store)
        high = cells_of(half.store, full.store, labels > 0, full.store)
    counts = np.stack([low.counts[:, 0, 0], high.counts[:, 0, 0], high.counts[:, 1, 0]], 1)  # (tiles, 3, 3)
    seconds = [r.result["seconds"] for r in (quarter, half, full)]
    fixed = seconds[1]["total"] - seconds[1]["stage_1"]
    rung = (seconds[0]["stage_1"], seconds[1]["stage_1"], seconds[2]["stage_2"] - seconds[1]["stage_2"])
    whole, best = seconds[2]["total"] - seconds[2]["stage_1"], dice(counts[:, 2].sum(0))

    def ladder(x: float, y: float) -> tuple[float, float]:
        """Cost and Dice of ``x`` of the tiles on the second rung and ``y``, some of these, on the third."""
        up = highest(low.scores, x)
        top = highest(np.where(up, high.scores, -1), y)
        mixed = counts[np.arange(len(counts)), up.astype(int) + top]
        return fixed + rung[0] + x * rung[1] + y * rung[2], dice(mixed.sum(0))

    print(f"{len(counts)} tiles; the three rungs cost {', '.join(f'{s / whole:.1%}' for s in rung)} of the")
    print(f"reference's time, everything else {fixed / whole:.1%}\n")
    print(
        "| two stages: refined | times faster | gap | best ladder: second rung | third | times faster | gap |"
    )
    print("|" + "---|" * 7)
    for share in SHARES[:-2]:
        chosen = highest(high.scores, share)
        cost = fixed + rung[1] + share * rung[2]
        reached = dice(counts[np.arange(len(counts)), 1 + chosen].sum(0))
        found = [(*ladder(x, y)[::-1], x, y) for x in SHARES for y in SHARES if y <= x]
        value, spent, x, y = max(entry for entry in found if entry[1] <= cost)
        print(
            f"| {share:.0%} | {whole / cost:.1f} | {100 * (best - reached):.2f} "
            f"| {x:.0%} | {y:.0%} | {whole / spent:.1f} | {100 * (best - value):.2f} |"
        )


if __name__ == "__main__":
    main()
