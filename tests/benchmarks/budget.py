"""How well a budget of time is kept, and what it buys.

    python tests/benchmarks/budget.py SLIDE [--mpp 0.25] [--seconds 30 60]

The rival of each budget is its own number: wall time of the whole process over the seconds that were given.
"""

import argparse
import tempfile
from pathlib import Path

from measure import dice_between, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--mpp")
    parser.add_argument("--seconds", type=float, nargs="*", default=[30.0, 60.0])
    arguments = parser.parse_args()
    options = ["--mpp", arguments.mpp] if arguments.mpp else []
    with tempfile.TemporaryDirectory() as folder:
        everything = run(arguments.slide, Path(folder) / "all.zarr", "--refine", "all", *options)
        print(f"{arguments.slide.name}: {everything.result['tissue']} tissue tiles\n")
        print("| --budget | whole process, s | over the budget | refined tiles | Dice to --refine all, % |")
        print("|---|---|---|---|---|")
        for seconds in arguments.seconds:
            some = run(arguments.slide, Path(folder) / "o.zarr", "--budget", f"{seconds:g}s", *options)
            print(
                f"| {seconds:g}s | {some.wall:.1f} | {some.wall / seconds:.3f} | {some.result['refined']} "
                f"| {dice_between(some.store, everything.store):.2f} |",
                flush=True,
            )
        print(f"| (--refine all) | {everything.wall:.1f} | | {everything.result['refined']} | 100 |")


if __name__ == "__main__":
    main()
