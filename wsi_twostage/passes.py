"""Passes: the windows that a network would go through, and how long that takes."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.batches import tiles_of_shards
from wsi_twostage.cluster import a_thread_for_a_window
from wsi_twostage.mask import MaskSpec
from wsi_twostage.slide import View
from wsi_twostage.tiles import Box, merge
from wsi_twostage.work import WindowShape


@dataclass(frozen=True, slots=True)
class Stage:
    """One of the networks in a run."""

    view: View
    tiles: int
    windows: int
    megapixels: float
    """Through the network, halos included."""
    decoded_megapixels: float
    """Of the stored level that its pixels come from."""
    seconds: float
    """Estimated, of wall time."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Windows of a network over some tiles."""

    view: View
    tiles: int
    boxes: tuple[Box, ...]
    """Without their halos."""
    megapixels: tuple[float, ...]
    """Through the network, of each; with its halo."""

    def pace(self, predict: Callable[[Box], None], workers: int) -> float:
        """Seconds per megapixel while all workers are at work, measured on the largest window."""
        if not self.boxes:
            return 0.0
        number = int(np.argmax(self.megapixels))
        return seconds_of(lambda: predict(self.boxes[number]), workers) / self.megapixels[number] / workers

    def takes(self, pace: float) -> float:
        """Seconds of all windows."""
        return pace * sum(self.megapixels)

    def stage(self, pace: float) -> Stage:
        """For people: rounded."""
        through = sum(self.megapixels)
        return Stage(
            self.view,
            self.tiles,
            len(self.boxes),
            megapixels=round(through, 1),
            decoded_megapixels=round(through * float(np.prod(self.view.scale)), 1),
            seconds=round(self.takes(pace), 1),
        )


def passes_of(
    result: MaskSpec, view: View, tiles: NDArray[np.bool_], ratio: int, **shape: Unpack[WindowShape]
) -> Passes:
    """Of a network whose pixels are ``ratio`` fine ones, over the tiles that are set, (rows, cols)."""
    windows = [
        window.box
        for chosen in tiles_of_shards(result, tiles).values()
        for window in merge(chosen, result.tiles, **shape)
    ]
    through = tuple(box.grow(shape["halo"]).area / ratio**2 / 1e6 for box in windows)
    return Passes(view, int(tiles.sum()), tuple(windows), through)


def scattered(count: int) -> NDArray[np.intp]:
    """An order of so many tiles of which each beginning lies evenly over all (by the golden ratio)."""
    return np.argsort(np.arange(count) * (np.sqrt(5) - 1) / 2 % 1, kind="stable")


def seconds_of(work: Callable[[], None], workers: int) -> float:
    """Seconds of one call while each worker makes one, as in a run: the second time of two."""
    with a_thread_for_a_window(), ThreadPoolExecutor(workers) as pool:
        for _ in range(2):
            start = time.perf_counter()
            for job in [pool.submit(work) for _ in range(workers)]:
                job.result()
            took = time.perf_counter() - start
    return took
