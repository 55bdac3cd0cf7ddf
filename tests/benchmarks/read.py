"""How fast slides are read: megapixels a second, as ratios to OpenSlide and to the bare decoder.

    python tests/benchmarks/read.py SLIDE... [--mpp 0.25] [--seconds 0.3] [--turns 15]

Reads of 512 and 1024 px of level 0, by one and two threads, in rows from left to right as a pipeline makes
them: `aligned` to the file's tiles (the nearest whole number of them), and `unaligned`, shifted by a third of
a tile. The readers take short turns over the slide's tissue, so that whatever else the machine does meets all
of them; speeds and ratios are the medians of the turns, a ratio being one within a turn. `bare` decodes the
tiles of an aligned read, whose bytes are in memory already, and keeps nothing. Rivals that are not installed
are left out: cuCIM, pyvips.
"""

import argparse
import importlib.util
import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import tifffile
import zarr
from numpy.typing import NDArray

from wsi_twostage.memory import keep_freed_memory
from wsi_twostage.slide import Slide, open_slide
from wsi_twostage.slide import tiff as native
from wsi_twostage.slide.contents import FileKey
from wsi_twostage.tiles import Box
from wsi_twostage.tissue import tissue_mask

Reader = Callable[[Box], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slides", nargs="+", type=Path)
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each turn, about")
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command does
    for path in arguments.slides:
        measure(open_slide(path, arguments.mpp, reader="tiff"), arguments.seconds, arguments.turns)


def measure(slide: Slide, seconds: float, turns: int) -> None:
    """One table."""
    readers = rivals(slide)
    print(f"\n{Path(slide.path).name}: {slide.compression}, tiles of {slide.levels[0].tile[0]} px; Mpx/s\n")
    names, ratios = (
        list(readers),
        ("ours / OpenSlide", "ours / bare", "ours / one thread", "bare / one thread"),
    )
    print(f"| read | threads | {' | '.join((*names, *ratios))} |")
    print(f"|---|---|{'---|' * (len(names) + len(ratios))}")
    for side, aligned in itertools.product((512, 1024), (True, False)):
        boxes = {(name, n): Boxes(boxes_of(slide, side, aligned)) for name in names for n in (1, 2)}
        speeds: dict[tuple[str, int], list[float]] = {key: [] for key in boxes}
        for _, threads, (name, reader) in itertools.product(range(turns), (1, 2), readers.items()):
            if aligned or name != "bare":
                key = name, threads
                speeds[key].append(speed(reader, boxes[key], seconds, threads))

        def ratio(one: tuple[str, int], other: tuple[str, int]) -> str:
            pairs = list(zip(speeds[one], speeds[other], strict=True))  # noqa: B023
            return f"{statistics.median(a / b for a, b in pairs):.2f}" if pairs else ""

        for threads in (1, 2):
            found = [speeds[name, threads] for name in names]
            shown = [f"{statistics.median(values):.0f}" if values else "" for values in found]
            shown += [ratio(("ours", threads), ("OpenSlide", threads))]
            shown += [ratio(("ours", threads), ("bare", threads)) if aligned else ""]
            shown += [ratio((name, 2), (name, 1)) if threads == 2 else "" for name in ("ours", "bare")]
            kind = f"{side} px, {'aligned' if aligned else 'unaligned'}"
            print(f"| {kind} | {threads} | {' | '.join(shown)} |", flush=True)


def speed(reader: Reader, boxes: "Boxes", seconds: float, threads: int) -> float:
    """Megapixels a second, by so many threads that take the next box each."""
    end, done = time.perf_counter() + seconds, []

    def work() -> None:
        while time.perf_counter() < end:
            box = boxes.next()
            reader(box)
            done.append(box.area)

    native.CUT_TILES.clear()
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(work) for _ in range(threads)]:
            job.result()
    return sum(done) / 1e6 / (time.perf_counter() - start)


class Boxes:
    """Boxes row by row, for ever; each turn goes on where the one before ended."""

    def __init__(self, boxes: list[Box]) -> None:
        self._boxes, self._count, self._lock = boxes, 0, threading.Lock()

    def next(self) -> Box:
        with self._lock:
            place = self._count % len(self._boxes)
            if not place:
                native.CUT_TILES.clear()  # what the round before has kept
            self._count += 1
            return self._boxes[place]


def boxes_of(slide: Slide, side: int, aligned: bool) -> list[Box]:
    """Boxes of tissue."""
    tile = slide.levels[0].tile[0]
    side = max(round(side / tile), 1) * tile if aligned else side
    shift = 0 if aligned else tile // 3
    tissue = tissue_of(slide)
    found = [
        Box(top, left, side, side)
        for top in range(shift, slide.height - side, side)
        for left in range(shift, slide.width - side, side)
        if tissue[top // 32 : (top + side) // 32, left // 32 : (left + side) // 32].mean() > 0.5
    ]
    if not found:
        raise SystemExit(f"{slide.path}: no tissue to read")
    return found


def tissue_of(slide: Slide) -> NDArray[np.bool_]:
    """At 1/32 of the resolution."""
    if slide.path not in _TISSUE:
        view = slide.view(32)
        _TISSUE[slide.path] = tissue_mask(view.read(Box(0, 0, view.height, view.width)))
    return _TISSUE[slide.path]


_TISSUE: dict[str, NDArray[np.bool_]] = {}


def rivals(slide: Slide) -> dict[str, Reader]:
    """Whatever can read level 0 of the slide, by name; each gives (H, W, 3) or (H, W, 4) uint8."""
    view = slide.view(1)
    other = openslide.OpenSlide(slide.path)
    store = zarr.open(tifffile.imread(slide.path, aszarr=True, series=0, level=0, maxworkers=1), mode="r")
    found: dict[str, Reader] = {
        "ours": view.read,
        "OpenSlide": lambda b: np.asarray(other.read_region((b.left, b.top), 0, (b.width, b.height))),
        "tifffile zarr": lambda b: store[b.slices],  # type: ignore[index]
        "bare": bare(slide),
    }
    if importlib.util.find_spec("cucim"):
        from cucim import CuImage

        image = CuImage(slide.path)
        found["cuCIM"] = lambda b: np.asarray(image.read_region((b.left, b.top), (b.width, b.height), 0))
    if importlib.util.find_spec("pyvips"):
        import pyvips

        region = pyvips.Region.new(pyvips.Image.tiffload(slide.path))
        found["pyvips"] = lambda b: region.fetch(b.left, b.top, b.width, b.height)
    return found


def bare(slide: Slide) -> Reader:
    """The codec alone on the tiles of an aligned box: JPEG as we call it, the others as tifffile does."""
    file = native._open(FileKey.of(slide.path))
    stored, (height, width) = file.levels[0], slide.levels[0].tile
    across = -(-slide.width // width)
    data: dict[int, bytes] = {}

    def read(box: Box) -> None:
        for row in range(box.top // height, -(-box.bottom // height)):
            for col in range(box.left // width, -(-box.right // width)):
                index = row * across + col
                if index not in data:
                    data[index] = os.pread(
                        file.descriptor, int(stored.counts[index]), int(stored.offsets[index])
                    )
                if stored.jpeg is not None:
                    stored.jpeg(data[index])
                else:
                    stored.decode(data[index], index, _fullsize=True, **stored.tables)

    return read


if __name__ == "__main__":
    main()
