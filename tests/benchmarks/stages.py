"""Where the time of a slide goes, and what refining only some tiles saves.

    python tests/benchmarks/stages.py SLIDE [--mpp 0.25] [--budget 10%] [--precision fp32] [--repeat 1]

The rival is `--refine all` with the same model on the same machine, run in turn with the two-stage run.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from measure import Run, dice_between, planned, run

ROWS = ("overview", "stage_1", "selection", "stage_2", "read", "model_1", "model_2", "write")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--mpp")
    parser.add_argument("--budget", default="10%")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    options = ["--precision", arguments.precision] + (["--mpp", arguments.mpp] if arguments.mpp else [])
    with tempfile.TemporaryDirectory() as folder:
        pairs = [
            (
                run(arguments.slide, Path(folder) / "some.zarr", "--budget", arguments.budget, *options),
                run(arguments.slide, Path(folder) / "all.zarr", "--refine", "all", *options),
            )
            for _ in range(arguments.repeat)
        ]
        plans = [
            planned(arguments.slide, *rule, *options)["seconds"]
            for rule in (("--budget", arguments.budget), ("--refine", "all"))
        ]
        report(arguments.slide.name, arguments.budget, pairs, plans)


def report(name: str, budget: str, pairs: list[tuple[Run, Run]], plans: list[float]) -> None:
    """One column for each kind of run, medians over the repeats; ``plans`` are the seconds foretold."""
    some, everything = ([pair[i] for pair in pairs] for i in (0, 1))

    def median(runs: list[Run], key: str) -> float:
        return statistics.median(r.result["seconds"][key] for r in runs)

    def row(label: str, values: tuple[str, str]) -> None:
        print(f"| {label} | {values[0]} | {values[1]} |")

    print(f"{name}: {some[0].result['tissue']} tissue tiles, {len(pairs)} runs of each\n")
    row("", (f"--budget {budget}", "--refine all"))
    print("|---|---|---|")
    row("refined tiles", tuple(str(runs[0].result["refined"]) for runs in (some, everything)))  # type: ignore[arg-type]
    walls = [statistics.median(r.wall for r in runs) for runs in (some, everything)]
    row("whole process, s", (f"{walls[0]:.1f}", f"{walls[1]:.1f}"))
    row("as `wsi-seg plan` foretold, s", (f"{plans[0]:.1f}", f"{plans[1]:.1f}"))
    for key in ROWS:
        kind = "threads" if key in ("read", "model_1", "model_2", "write") else "wall"
        row(f"{key} ({kind}), s", (f"{median(some, key):.2f}", f"{median(everything, key):.2f}"))
    shares = [f"{median(runs, 'network_share'):.0%}" for runs in (some, everything)]
    row("networks' share of the thread time", (shares[0], shares[1]))
    row(
        "peak memory, GiB",
        (f"{max(r.peak_gib for r in some):.2f}", f"{max(r.peak_gib for r in everything):.2f}"),
    )
    ratios = [b.wall / a.wall for a, b in pairs]
    print(f"\nspeed-up over --refine all: {statistics.median(ratios):.2f}x (each pair: {ratios_of(ratios)})")
    print(f"Dice to --refine all: {dice_between(pairs[0][0].store, pairs[0][1].store):.2f} %")


def ratios_of(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    main()
