"""The objects of a result's mask, in batches, each object once; and what is measured of them."""

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from wsi_twostage.events import Listener, Started, TilesDone, ignore
from wsi_twostage.export.components import Block, Cells, Found, Framed, find, framed, merge
from wsi_twostage.export.parts import Components
from wsi_twostage.export.split import DEPTH_UM, HALO, split_keys
from wsi_twostage.mask import SHARD, MaskPyramid, Source
from wsi_twostage.tiles import Box, TileGrid
from wsi_twostage.uncertainty import of_bytes

MOST_WORKERS = 8
"""Threads, each of which holds up to 400 MB; more would wait for each other."""

_IDS = uuid.UUID("5d0f6c0e-8d2c-5f6e-9d1b-2f0f3f9b5a11")
_SOURCES = ("model_1", "model_2", "both")


@dataclass(frozen=True, slots=True)
class About:
    """What turns an object's pixels into places on the slide, and its label into a class."""

    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    width: int  # pixels of the mask
    mpp: float  # um per pixel of the mask
    downsample: float  # pixels of the slide's level 0 per pixel of the mask, along one side
    shift: tuple[float, float]
    """What is added to level-0 positions, (row, col): QuPath may count from another corner than `Slide`."""
    slide: str
    """The slide's fingerprint."""

    @classmethod
    def of(cls, mask: MaskPyramid) -> Self:
        spec, made_from = mask.spec, mask.manifest["slide"]
        origin, bounds = (made_from.get(name, (0, 0)) for name in ("origin", "bounds"))
        return cls(
            classes=spec.classes,
            colours=spec.colours,
            width=spec.width,
            mpp=spec.mpp,
            downsample=spec.mpp / made_from["mpp"],
            shift=(origin[0] - bounds[0], origin[1] - bounds[1]),
            slide=str(made_from["fingerprint"]),
        )

    def positions(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """(m, 2) as (y, x) in pixels of the mask -> (m, 2) as (x, y) in pixels of the slide's level 0."""
        moved = points[:, ::-1].astype(np.float64) * self.downsample + self.shift[::-1]
        return np.asarray(np.round(moved, 3))


def objects(
    mask: MaskPyramid,
    *,
    split: bool = False,
    min_area_um2: float = 0.0,
    workers: int | None = None,
    block: int = SHARD,
    listener: Listener = ignore,
    stage: str = "export",
) -> Iterator[Components]:
    """All objects of the finest level, in batches; 4-connected pixels of one class, each object whole and
    once.

    Blocks of ``block`` px, a whole number of tiles, are read and labelled on ``workers`` threads; what is
    held does not grow with the slide, but for objects that go on in the next row of blocks. The order of the
    batches, and of the objects in each, is the same whatever the number of threads. The ``listener`` hears
    of the blocks as of a ``stage``.
    """
    spec = mask.spec
    blocks = TileGrid(spec.height, spec.width, block)
    tiles, name = mask.read_source(), mask.manifest["uncertainty"]
    least = min_area_um2 / spec.mpp**2 - 1e-9

    def look(box: Box) -> Block:
        return _look(mask, box, tiles, name, split=split)

    def parts(each: Framed) -> Found:
        return find(each, spec.width)

    def told(found: Iterable[Found]) -> Iterator[Found]:
        for each in found:
            listener(TilesDone(stage, 1, each.box.area / 1e6))
            yield each

    listener(Started(stage, len(blocks)))
    threads = min(CPU_COUNT, MOST_WORKERS) if workers is None else workers
    with ThreadPoolExecutor(threads) as pool:
        seen = in_turn(pool, look, map(blocks.box, blocks), threads + 1)
        found = in_turn(pool, parts, framed(seen, spec.height, spec.width), threads + 1)
        for batch in merge(told(found), spec.height, spec.width):
            kept = batch.where(batch.table["area"] >= least) if least > 1 else batch
            if len(kept.table):
                yield kept


T = TypeVar("T")
R = TypeVar("R")


def in_turn(pool: Executor, task: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Results in the order of the items, of which no more than ``ahead`` are begun and not yet taken."""
    begun: deque[Future[R]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(task, item))
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()


def _look(mask: MaskPyramid, box: Box, tiles: NDArray[np.uint8], name: str, *, split: bool) -> Block:
    """One block of the mask and what is known of its tiles and pixels."""
    spec = mask.spec
    labels = mask.read(box)
    keys: NDArray[np.integer] = labels
    if split:
        keys = np.zeros(labels.shape, np.int64)
        if labels.any():
            around = box.grow(HALO).clip(spec.height, spec.width)
            depth = DEPTH_UM / spec.mpp
            keys = split_keys(mask.read(around), around, spec.width, depth)[box.relative_to(around).slices]
    probability = mask.read_probability(box.coarser(spec.ratio))
    uncertainty = of_bytes(name, probability) * probability.any(0) if labels.any() else probability[0]
    sources = np.left_shift(1, tiles[box.coarser(spec.tile).slices], dtype=np.uint8)
    return Block(box, labels, keys, Cells(uncertainty, spec.ratio), Cells(sources, spec.tile))


def measures(found: Components, about: About) -> dict[str, NDArray[Any]]:
    """One column each, in the order of a table of objects."""
    table = found.table
    area = table["area"]
    centre = (
        np.stack([table["rows"], table["cols"]], axis=1) / area[:, None] + 0.5
    )  # of pixels, not of corners
    low, high = (
        about.positions(np.stack([table[row], table[col]], axis=1))
        for row, col in (("top", "left"), ("bottom", "right"))
    )
    at = about.positions(centre)
    um = at * (about.mpp / about.downsample)
    by_model_2 = (table["sources"] & 1 << Source.MODEL_2) > 0
    only = table["sources"] == 1 << Source.MODEL_2
    source = np.where(only, _SOURCES[1], np.where(by_model_2, _SOURCES[2], _SOURCES[0]))
    return {
        "id": np.array([_id(about, first) for first in table["first"].tolist()], np.str_),
        "class": np.array(about.classes)[table["label"] - 1],
        "area_um2": np.round(area * about.mpp**2, 4),
        "perimeter_um": np.round(table["perimeter"] * about.mpp, 4),
        "centroid_x_um": np.round(um[:, 0], 4),
        "centroid_y_um": np.round(um[:, 1], 4),
        "uncertainty": np.round(table["uncertainty"] / area, 4),
        "source": source,
        "centroid_x_px": at[:, 0],
        "centroid_y_px": at[:, 1],
        "left_px": low[:, 0],
        "top_px": low[:, 1],
        "right_px": high[:, 0],
        "bottom_px": high[:, 1],
    }


def _id(about: About, first: int) -> str:
    """Of an object of a slide, by its first pixel: the same whenever it is exported."""
    row, col = divmod(first, about.width)
    return str(uuid.uuid5(_IDS, f"{about.slide} {about.mpp:.9g} {row} {col}"))
