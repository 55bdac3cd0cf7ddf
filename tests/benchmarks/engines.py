"""What runs the networks fastest on a CPU: torch or OpenVINO, in 32 or in 16 bits.

    python tests/benchmarks/engines.py SLIDE [--mpp 0.25] [--refine all] [--repeat 1] [--tissue FILE]
        [--truth MASK.tif]

Whole runs of the command, in turn; the rival is torch in 32 bits, whose mask the others are compared with.
With the truth, masks are compared with that, too.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from measure import Run, dice_between, dice_to_truth, run

WAYS = (("torch", "fp32"), ("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--mpp")
    parser.add_argument("--refine", default="all")
    parser.add_argument("--tissue", default="otsu", help="as of wsi-seg")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--truth", type=Path, help="TIFF of the slide's size; foreground is not 0")
    arguments = parser.parse_args()
    options = ["--refine", arguments.refine, "--tissue", arguments.tissue]
    options += ["--mpp", arguments.mpp] if arguments.mpp else []
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[tuple[str, str], list[Run]] = {way: [] for way in WAYS}
        for _ in range(arguments.repeat):
            for engine, precision in WAYS:
                place = Path(folder) / f"{engine}-{precision}.zarr"
                more = ["--engine", engine, "--precision", precision]
                runs[engine, precision].append(run(arguments.slide, place, *more, *options))
        report(runs, arguments.truth)


def report(runs: dict[tuple[str, str], list[Run]], truth: Path | None) -> None:
    """One row for each way, medians over the repeats."""
    rival = runs[WAYS[0]]
    dices = "Dice to the first" + (" | to the truth" if truth else "")
    print(f"| engine | precision | whole process, s | times faster | {dices} | networks | peak, GiB |")
    print(f"|---|---|---|---|---|---|---|{'---|' if truth else ''}")
    for (engine, precision), done in runs.items():
        wall, first = (statistics.median(r.wall for r in some) for some in (done, rival))
        share = statistics.median(r.result["seconds"]["network_share"] for r in done)
        true = f" | {dice_to_truth(done[0].store, truth):.3f} %" if truth else ""
        print(
            f"| {engine} | {precision} | {wall:.1f} | {first / wall:.2f} "
            f"| {dice_between(done[0].store, rival[0].store):.3f} %{true} | {share:.0%} "
            f"| {max(r.peak_gib for r in done):.2f} |"
        )


if __name__ == "__main__":
    main()
