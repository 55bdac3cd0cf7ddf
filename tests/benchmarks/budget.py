"""How well a budget of time is kept, and what it buys.

    python tests/benchmarks/budget.py SLIDE [--mpp 0.25] [--seconds 30 60] [--audit 40]

The rival of each budget is its own number: wall time of the whole process over the seconds that were given.
Each is spent alone, and with an audit in it, whose estimate and bound stand beside what it estimates.
"""

import argparse
import tempfile
from itertools import product
from pathlib import Path

from measure import dice_between, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--mpp")
    parser.add_argument("--seconds", type=float, nargs="*", default=[30.0, 60.0])
    parser.add_argument("--audit", type=int, default=40, help="tiles")
    arguments = parser.parse_args()
    options = ["--mpp", arguments.mpp] if arguments.mpp else []
    with tempfile.TemporaryDirectory() as folder:
        everything = run(arguments.slide, Path(folder) / "all.zarr", "--refine", "all", *options)
        print(f"{arguments.slide.name}: {everything.result['tissue']} tissue tiles\n")
        print(
            "| --budget | --audit | whole process, s | over the budget | refined tiles "
            "| Dice to --refine all, % | at least, says the audit |"
        )
        print("|---|---|---|---|---|---|---|")
        for seconds, audit in product(arguments.seconds, (None, arguments.audit)):
            rule = ["--budget", f"{seconds:g}s", *(["--audit", str(audit)] if audit else [])]
            some = run(arguments.slide, Path(folder) / "o.zarr", *rule, *options)
            said = [f"{100 * (1 - part['bound']):.2f} (about {100 * (1 - part['gap']):.2f})"
                    for part in some.result["left"] if part["name"] == "all"]  # fmt: skip
            print(
                f"| {seconds:g}s | {audit or ''} | {some.wall:.1f} | {some.wall / seconds:.3f} "
                f"| {some.result['refined']} | {dice_between(some.store, everything.store):.2f} "
                f"| {''.join(said)} |",
                flush=True,
            )
        print(f"| (--refine all) | | {everything.wall:.1f} | | {everything.result['refined']} | 100 | |")


if __name__ == "__main__":
    main()
