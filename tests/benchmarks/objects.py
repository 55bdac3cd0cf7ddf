"""How long and how much memory an export of a million objects takes; prints a table.

python tests/benchmarks/objects.py [--side 40960] [--formats geojson csv ...] [--split]

The mask is made on the spot: blotches of the size of nuclei, about 2,500 in a shard, moved at random from
shard to shard, so that the borders cut many. Time is also given as a multiple of reading the mask alone.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from wsi_twostage.mask import SHARD, MaskPyramid, MaskSpec, Source

MPP = 0.25
RATIO = 4
DENSITY = 0.2  # of the pixels are nucleus
SIGMA_PX = 5.7  # of the blur that makes blotches of noise

CHILD = """
import sys
from wsi_twostage.export import Options, export
print(export(sys.argv[1], sys.argv[2], options=Options(split="--split" in sys.argv)).objects)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=20 * SHARD)
    parser.add_argument("--formats", nargs="*", default=["geojson", "geojson.gz", "csv", "parquet"])
    parser.add_argument("--split", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mask = synthetic(Path(folder) / "synthetic.seg.ome.zarr", arguments.side)
        read = reading(mask)
        print(f"{arguments.side} x {arguments.side} px; reading the mask takes {read:.1f} s\n")
        print("| to | objects | file, MB | time, s | times reading | peak, GiB |")
        print("|---|---|---|---|---|---|")
        for name in arguments.formats:
            target = Path(folder) / f"out.{name}"
            flags = ["--split"] if arguments.split else []
            count, seconds, peak = measured([str(mask.path), str(target), *flags])
            print(
                f"| {name}{' '.join(['', *flags])} | {count} | {target.stat().st_size / 1e6:.0f} "
                f"| {seconds:.1f} | {seconds / read:.1f} | {peak:.2f} |",
                flush=True,
            )
            target.unlink()


def synthetic(path: Path, side: int) -> MaskPyramid:
    """A finished store, without levels."""
    small = -(-side // 64)
    spec = MaskSpec(side, side, MPP, RATIO, 512, ("nucleus",), ((255, 200, 0),), 64.0, small, small)
    slide = {"path": "none.svs", "fingerprint": "synthetic", "mpp": MPP}
    told = {"slide": slide, "uncertainty": "entropy", "model": {"name": "none", "sha256": ""}}
    mask = MaskPyramid.create(path, spec, manifest=told)
    generator = np.random.default_rng(0)
    nuclei = blotches(generator)
    for shard in mask.shards():
        box = mask.box(shard)
        moved = np.roll(nuclei, generator.integers(0, SHARD, 2), axis=(0, 1))[: box.height, : box.width]
        mask.write(shard, moved)
        coarse = box.coarser(RATIO)
        mask.write_probability(coarse, 40 + 160 * moved[None, ::RATIO, ::RATIO])
    mask.write_source(np.full((spec.tiles.rows, spec.tiles.cols), Source.MODEL_1, np.uint8))
    mask.note(whole=True, complete=True)
    return mask


def blotches(generator: np.random.Generator) -> NDArray[np.uint8]:
    """A shard of them; its ends fit together."""
    noise = gaussian_filter(generator.standard_normal((SHARD, SHARD)), SIGMA_PX, mode="wrap")
    return np.asarray(noise > np.quantile(noise, 1 - DENSITY), np.uint8)


def reading(mask: MaskPyramid) -> float:
    since = time.perf_counter()
    for shard in mask.shards():
        mask.read(mask.box(shard))
    return time.perf_counter() - since


def measured(arguments: list[str]) -> tuple[int, float, float]:
    """Objects, seconds and GiB of a process of its own."""
    since = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the export to {arguments[1]} ended with {process.returncode}")
    return int(printed), time.perf_counter() - since, usage.ru_maxrss / 2**20


if __name__ == "__main__":
    main()
