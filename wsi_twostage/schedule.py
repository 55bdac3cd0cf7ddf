"""One run on a cluster: which shards each stage works on, in which order, and what they add up to."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from wsi_twostage import cluster
from wsi_twostage.cluster import Call
from wsi_twostage.coarse import coarse_shard
from wsi_twostage.errors import UnreadableRegion
from wsi_twostage.events import Finished, Listener, Note, Started, TilesDone
from wsi_twostage.mask import Shard, Source
from wsi_twostage.pixels import Pixels
from wsi_twostage.refine import reduce_shard, refine_shard
from wsi_twostage.result import Counts, Result, Seconds
from wsi_twostage.selection import Selection
from wsi_twostage.tiles import Box, Tile, TileGrid
from wsi_twostage.tissue import tissue_mask, tissue_tiles
from wsi_twostage.work import Clock, Done, Work

LEAST_HOLE_PX = 16  # of the overview; a hole in the file costs no more around it


def read_around_holes(pixels: Pixels, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Pixels of a box (H, W, 3), black where they cannot be read, and where that is (H, W)."""
    try:
        return pixels.read(box), np.zeros((box.height, box.width), np.bool_)
    except UnreadableRegion:
        rgb = np.zeros((box.height, box.width, 3), np.uint8)
        holes = np.ones((box.height, box.width), np.bool_)
        edge = max(box.height, box.width) // 2
        if edge >= LEAST_HOLE_PX:
            for part in box.parts(edge):
                inner = part.relative_to(box).slices
                rgb[inner], holes[inner] = read_around_holes(pixels, part)
        return rgb, holes


def read_overview(
    pixels: Pixels, grid: TileGrid, each: Callable[[Box, NDArray[np.uint8]], None] = lambda box, rgb: None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """All of a coarse level (H, W, 3), 1 / 1000 of the slide, and where it cannot be read (H, W).

    ``each`` is called with every box of ``grid`` and its pixels.
    """
    rgb = np.empty((grid.height, grid.width, 3), np.uint8)
    holes = np.zeros(rgb.shape[:2], np.bool_)
    for box in map(grid.box, grid):
        rgb[box.slices], holes[box.slices] = read_around_holes(pixels, box)
        each(box, rgb[box.slices])
    return rgb, holes


class Run:
    """The three stages of a run; each returns what the next one needs."""

    def __init__(self, work: Work, client: Client, listener: Listener) -> None:
        self.work, self.mask, self.client, self.listen = work, work.mask, client, listener
        self.grid = work.mask.spec.tiles
        self.clocks = {"stage 1": Clock(), "stage 2": Clock()}
        self.walls: dict[str, float] = {}
        self.threads = cluster.threads(client)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note the wall time of a stage."""
        start = time.perf_counter()
        yield
        self.walls[stage] = time.perf_counter() - start
        self.listen(Finished(stage, self.walls[stage]))

    def look(self, overview: Pixels, how: str, drawn: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Write the overview; tiles with tissue, (rows, cols).

        ``how`` finds it, unless it is ``drawn`` already, on the overview's pixels.
        """
        grid = self.mask.spec.overview(0)
        self.listen(Started("overview", len(grid)))

        def write(box: Box, seen: NDArray[np.uint8]) -> None:
            self.mask.write_overview(box, seen)
            self.listen(TilesDone("overview", 1, box.area / 1e6))

        rgb, holes = read_overview(overview, grid, write)
        self.mask.finish_overview()
        if how == "none":
            self.mask.write_tissue(np.ones(rgb.shape[:2], np.bool_))
            return np.ones((self.grid.rows, self.grid.cols), np.bool_)
        if holes.any():
            self.listen(Note(f"{holes.mean():.2%} of the slide cannot be read; it is black in the overview"))
        # what cannot be seen is not glass: Model 1 will say so
        tissue = tissue_mask(rgb) | holes if drawn is None else drawn
        self.mask.write_tissue(tissue)
        return tissue_tiles(tissue, self.grid, self.mask.spec.overview_downsample) > 0

    def coarse(self, tissue: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Line 1: uncertainty of each tile, and which tiles Model 1 could read, (rows, cols) each."""
        self.listen(Started("stage 1", int(tissue.sum())))
        calls = [
            Call(coarse_shard, (self.work, shard, tiles))
            for shard in self.mask.shards()
            if (tiles := chosen_tiles(self.grid, self.mask.box(shard), tissue))
        ]
        calls.sort(key=lambda call: -len(call.arguments[2]))  # the long ones first: no straggler at the end
        h, readable = np.zeros(tissue.shape, np.float32), np.zeros(tissue.shape, np.bool_)
        with closing(cluster.run(self.client, calls)) as results:
            for done in results:
                _put(h, done.tiles, done.values)
                _put(readable, done.tiles, True)
                self._tell("stage 1", done)
        return h, readable

    def refine(self, tissue: NDArray[np.bool_], patches: Selection) -> NDArray[np.float32]:
        """Line 3: labels of all shards and levels; disagreement of each refined tile, else NaN."""
        self.listen(Started("stage 2", int(patches.chosen.sum())))
        calls = []
        for shard in self.mask.shards():
            box = self.mask.box(shard)
            if tiles := chosen_tiles(self.grid, box, tissue):
                chosen = chosen_tiles(self.grid, box, patches.chosen)
                calls.append(Call(_refine_and_name, (self.work, shard, tiles, chosen)))
        calls.sort(key=lambda call: -len(call.arguments[3]))
        missing = self._children_to_come({call.arguments[1] for call in calls})
        disagreement = np.full(tissue.shape, np.nan, np.float32)

        def parents(result: tuple[Shard, Done | Clock]) -> Iterable[Call]:
            """A parent is reduced as soon as its last child is written."""
            parent = self.mask.parent(result[0])
            if parent is not None:
                missing[parent] -= 1
                if not missing[parent]:
                    yield Call(_reduce_and_name, (self.work, parent))

        with closing(cluster.run(self.client, calls, then=parents)) as results:
            for _, done in results:
                if isinstance(done, Clock):
                    self.clocks["stage 2"].add(done)
                else:
                    _put(disagreement, done.tiles, done.values)
                    self._tell("stage 2", done)
        return disagreement

    def finish(
        self,
        started: float,
        tissue: NDArray[np.bool_],
        readable: NDArray[np.bool_],
        patches: Selection,
        h: NDArray[np.float32],
        disagreement: NDArray[np.float32],
    ) -> Result:
        """Write the tile table and add up."""
        refined = ~np.isnan(disagreement)
        source = np.full(tissue.shape, Source.BACKGROUND, np.uint8)
        source[tissue] = Source.MODEL_1
        source[refined] = Source.MODEL_2
        source[(tissue & ~readable) | (patches.chosen & ~refined)] = Source.UNREADABLE
        rank = np.full(tissue.size, -1, np.int32)
        rank[patches.order] = np.arange(len(patches.order))
        rows, cols = np.nonzero(tissue)
        self.mask.write_source(source)
        self.mask.write_tiles(
            {
                "row": rows.astype(np.int32),
                "col": cols.astype(np.int32),
                "uncertainty": h[tissue],
                "rank": rank.reshape(tissue.shape)[tissue],
                "disagreement": disagreement[tissue],
                "source": source[tissue],
            }
        )
        counts = Counts(
            tiles=tissue.size,
            tissue=int(tissue.sum()),
            refined=int(refined.sum()),
            unreadable=int((source == Source.UNREADABLE).sum()),
        )
        seconds = Seconds.of(time.perf_counter() - started, self.walls, self.clocks, self.threads)
        return Result(self.mask, counts, seconds)

    def _children_to_come(self, written: set[Shard]) -> dict[Shard, int]:
        """How many children of each parent will be written; empty shards never are."""
        missing: dict[Shard, int] = {}
        for _ in range(self.mask.levels - 1):
            parents = {parent for shard in written if (parent := self.mask.parent(shard))}
            missing |= {parent: len(written.intersection(self.mask.children(parent))) for parent in parents}
            written = parents
        return missing

    def _tell(self, stage: str, done: Done) -> None:
        self.clocks[stage].add(done.clock)
        self.listen(TilesDone(stage, len(done.tiles), done.clock.megapixels))
        if done.unreadable:
            first = done.unreadable[0]
            self.listen(
                Note(
                    f"{stage}: {len(done.unreadable)} tiles cannot be read, "
                    f"the first at row {first.row}, col {first.col} of the tiles"
                )
            )


def chosen_tiles(grid: TileGrid, box: Box, chosen: NDArray[np.bool_]) -> tuple[Tile, ...]:
    """The chosen tiles of a box of whole tiles."""
    top, left = box.top // grid.tile, box.left // grid.tile
    part = chosen[top : -(-box.bottom // grid.tile), left : -(-box.right // grid.tile)]
    return tuple(Tile(int(row) + top, int(col) + left) for row, col in np.argwhere(part))


def _refine_and_name(
    work: Work, shard: Shard, tissue: tuple[Tile, ...], chosen: tuple[Tile, ...]
) -> tuple[Shard, Done]:
    return shard, refine_shard(work, shard, tissue, chosen)


def _reduce_and_name(work: Work, shard: Shard) -> tuple[Shard, Clock]:
    return shard, reduce_shard(work, shard)


def _put(array: NDArray[Any], tiles: tuple[Tile, ...], values: object) -> None:
    if tiles:
        rows, cols = zip(*tiles, strict=True)
        array[rows, cols] = values
