"""Whether what separates two results on the canvas is more than the choice of its patches.

    python tests/benchmarks/paired.py DATA nuclei-he half-heavy.safetensors --refined 0 10

Each bundle segments the canvas (canvas.py) with each share of the tiles refined. Printed are the pooled Dice
to the truth and how far it is below Model 2 everywhere and below the first result, each with its standard
deviation: the patches are drawn again 2,000 times, with repetition, the same ones for all results (a paired
bootstrap).
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from canvas import held_out_of, make, places
from numpy.typing import NDArray

from wsi_twostage.dice import dices
from wsi_twostage.memory import keep_freed_memory
from wsi_twostage.models.header import SHIPPED, locate
from wsi_twostage.pipeline import segment
from wsi_twostage.selection import ALL, Fraction, Rule
from wsi_twostage.settings import Settings

DRAWS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/")
    parser.add_argument("models", type=locate, nargs="+", help="bundles that share a Model 2")
    parser.add_argument("--refined", type=float, nargs="+", default=[0, 10], help="in percent")
    arguments = parser.parse_args()
    keep_freed_memory()
    cells = places(len(held_out_of(SHIPPED)))
    results: dict[str, NDArray[np.int64]] = {}
    with TemporaryDirectory() as folder:
        made, truth = make(Path(folder), arguments.data)
        settings = made.settings(Settings())

        def counted(model: Path, rule: Rule) -> NDArray[np.int64]:
            """Pixels of each patch that are in both, found, and true: (patches, 3)."""
            output = Path(folder, f"{len(results)}.zarr")
            result = segment(made.slide, output, bundle=model, rule=rule, settings=settings)
            found, true = np.asarray(result.store.lazy(0)) > 0, truth > 0
            return np.array([[np.sum(part[cell]) for part in (found & true, found, true)] for cell in cells])

        results["reference"] = counted(arguments.models[0], ALL)
        for model in arguments.models:
            for share in arguments.refined:
                results[f"{model.stem}, {share:g}%"] = counted(model, Fraction(share / 100))
    print(table(results))


def table(results: dict[str, NDArray[np.int64]]) -> str:
    """Markdown; the first result is the reference, the second what the others are compared with."""
    reference, first, *_ = results.values()
    drawn = np.random.default_rng(0).integers(0, len(reference), (DRAWS, len(reference)))

    def below(other: NDArray[np.int64], one: NDArray[np.int64]) -> str:
        spread = float(np.std(pooled(other[drawn]) - pooled(one[drawn])))
        return f"{pooled(other) - pooled(one):.2f} ± {spread:.2f}"

    rows = [
        f"| {name} | {pooled(one):.2f} | {below(reference, one)} | {below(first, one)} |"
        for name, one in results.items()
    ]
    head = [f"| | Dice | below the reference | below {list(results)[1]} |", "|---|---|---|---|"]
    return "\n".join([*head, *rows])


def pooled(counted: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dice in percent, over the last axis but one."""
    return 100 * dices(counted.sum(-2))


if __name__ == "__main__":
    main()
