"""Whether a run's memory knows the slide's size.

    python tests/benchmarks/memory.py [--sides 10000 100000] [--budget 2%]

Makes square slides of these sides, in px at 0.25 um/px, on which the tiles of a real slide lie in a disc of
some 3 mm, and runs the command on each: the same budget, whatever lies around. A tile is stored once and
listed as often as it occurs, so that the file of a 100,000 px slide is made in a second. Prints seconds and
peak memory of each run beside what `wsi-seg plan` says of them, and the networks' share of the thread time.
"""

import argparse
import struct
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measure import planned, run
from numpy.typing import NDArray

from wsi_twostage.slide import open_slide
from wsi_twostage.slide.resample import shrink
from wsi_twostage.tiles import Box

SAMPLE = Path(__file__).parents[2] / "examples" / "data" / "CMU-1-Small-Region.svs"
TILE = 256
MPP = 0.25
DISC_MM = 3.0
STEP = 4  # between the stored levels
LEVELS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--budget", default="2%")
    arguments = parser.parse_args()
    columns = (
        "side, px",
        "file, MB",
        "tissue tiles",
        "refined",
        "plan, s",
        "run, s",
        "networks",
        "peak, GiB",
    )
    print(f"| {' | '.join(columns)} | bound, GiB |")
    print("|" + "---|" * 9)
    with tempfile.TemporaryDirectory() as folder:
        for side in arguments.sides:
            slide = repeated_slide(Path(folder) / f"{side}.tiff", side)
            options = ("--budget", arguments.budget)
            plan = planned(slide, *options)
            done = run(slide, Path(folder) / f"{side}.zarr", *options)
            told, size = done.result, slide.stat().st_size / 1e6
            print(
                f"| {side} | {size:.1f} | {told['tissue']} | {told['refined']} | {plan['seconds']:.1f} "
                f"| {told['seconds']['total']:.1f} | {told['seconds']['network_share']:.0%} "
                f"| {done.peak_gib:.2f} | {plan['memory_gib']:.2f} |",
                flush=True,
            )


def repeated_slide(path: Path, side: int) -> Path:
    """A BigTIFF (TIFF 6.0, and its 64-bit extension) of three levels whose tiles are listed many times."""
    tissue = open_slide(SAMPLE).view_at(MPP).read(Box(1024, 1024, 4 * TILE * STEP, 4 * TILE * STEP))
    levels = [tissue if n == 0 else shrink(tissue, STEP**n, STEP**n) for n in range(LEVELS)]
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        pointer = 8  # where the place of the next directory is written
        for index, image in enumerate(levels):
            size = -(-side // STEP**index)
            white = zlib.compress(np.full((TILE, TILE, 3), 244, np.uint8).tobytes())
            kinds = [white, *(zlib.compress(tile.tobytes(), 1) for tile in _tiles(image))]
            places = [file.tell() + sum(map(len, kinds[:n])) for n in range(len(kinds))]
            file.write(b"".join(kinds))
            kind = _kinds(size, STEP**index, len(kinds) - 1)
            lists = [np.array(values, "<u8")[kind].ravel() for values in (places, [len(k) for k in kinds])]
            at = [file.tell(), file.tell() + lists[0].nbytes]
            file.write(b"".join(values.tobytes() for values in lists))
            directory = file.tell()
            file.write(_directory(size, index > 0, at, kind.size))
            file.seek(pointer)
            file.write(struct.pack("<Q", directory))
            file.seek(0, 2)
            pointer = file.tell() - 8
    return path


def _tiles(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Whole tiles of an image; one that is too small is repeated to a tile."""
    repeats = max(-(-TILE // image.shape[0]), 1)
    image = np.tile(image, (repeats, repeats, 1))
    rows, cols = image.shape[0] // TILE, image.shape[1] // TILE
    return [
        np.ascontiguousarray(image[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE])
        for r in range(rows)
        for c in range(cols)
    ]


def _kinds(size: int, downsample: int, kinds: int) -> NDArray[np.intp]:
    """Which tile lies where: 0 is glass; in the disc in the middle the others in turn."""
    count = -(-size // TILE)
    centre = (np.arange(count) + 0.5) * TILE - size / 2
    radius = DISC_MM * 1000 / 2 / MPP / downsample
    inside = centre[:, None] ** 2 + centre[None] ** 2 <= radius**2
    row, col = np.indices((count, count))
    side = int(np.sqrt(kinds))
    return np.where(inside, 1 + row % side * side + col % side, 0)


def _directory(size: int, reduced: bool, lists: Sequence[int], tiles: int) -> bytes:
    """One image file directory with the offsets and byte counts at ``lists``."""
    short, long, rational, long8 = 3, 4, 5, 16
    resolution = struct.pack("<LL", round(1e7 / MPP), 1000)  # pixels per centimetre
    entries = [
        (254, long, 1, int(reduced)),
        (256, long, 1, size),
        (257, long, 1, size),
        (258, short, 3, 8 | 8 << 16 | 8 << 32),
        (259, short, 1, 8),  # deflate
        (262, short, 1, 2),  # RGB
        (277, short, 1, 3),
        (282, rational, 1, int.from_bytes(resolution, "little")),
        (283, rational, 1, int.from_bytes(resolution, "little")),
        (284, short, 1, 1),
        (296, short, 1, 3),  # centimetres
        (322, long, 1, TILE),
        (323, long, 1, TILE),
        (324, long8, tiles, lists[0]),
        (325, long8, tiles, lists[1]),
    ]
    packed = b"".join(struct.pack("<HHQQ", *entry) for entry in entries)
    return struct.pack("<Q", len(entries)) + packed + struct.pack("<Q", 0)


if __name__ == "__main__":
    main()
