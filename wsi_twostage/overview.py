"""The slide at a glance: its overview, chunk by chunk, and which tiles have tissue."""

from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.crew import Crew
from wsi_twostage.events import Listener, Note, Started, TilesDone
from wsi_twostage.ledger import Ledger
from wsi_twostage.mask import MaskSpec, Shard
from wsi_twostage.pixels import read_around_holes
from wsi_twostage.stopping import Stopped
from wsi_twostage.tiles import Box, Tile
from wsi_twostage.tissue import tissue_mask, tissue_tiles
from wsi_twostage.work import Job, Work


def look(
    work: Work, crew: Crew, listen: Listener, how: str, drawn: NDArray[np.bool_] | None = None
) -> Ledger:
    """Write the overview and where there is tissue; gives the tiles that have some.

    ``how`` finds it, unless it is ``drawn`` already, on the overview's pixels. Raises `Stopped` where not all
    was seen; then all is read again another time.
    """
    mask, tiles = work.mask, work.mask.spec.tiles
    holes = _seen(work, crew, listen)
    mask.finish_overview()
    if how == "none":
        tissue, chosen = np.ones(holes.shape, np.bool_), np.ones((tiles.rows, tiles.cols), np.bool_)
    else:
        if holes.any():
            listen(Note(f"{holes.mean():.2%} of the slide cannot be read; it is black in the overview"))
        # what cannot be seen is not glass: Model 1 will say so
        tissue = tissue_mask(mask.read_overview()) | holes if drawn is None else drawn
        chosen = tissue_tiles(tissue, tiles, mask.spec.overview_downsample) > 0
    work.ensure_sound()
    mask.write_tissue(tissue)
    ledger = Ledger.begin(mask, chosen)
    mask.note(looked=True)
    return ledger


def _seen(work: Work, crew: Crew, listen: Listener) -> NDArray[np.bool_]:
    """Write the finest level of the overview; gives where it cannot be read, (H, W) on its pixels."""
    grid = work.mask.spec.overview(0)
    listen(Started("overview", len(grid)))
    holes, chunks = np.zeros((grid.height, grid.width), np.bool_), [Shard(0, *place) for place in grid]
    calls, to_come = crew.calls(Job(c, look_at, instead=look_away) for c in chunks), set(chunks)
    with closing(crew.run(calls, stop=work.over)) as results:
        for chunk, unseen in results:
            if unseen is None:
                continue
            to_come.remove(chunk)
            box = box_of(work.mask.spec, chunk)
            holes[box.slices] = unseen
            listen(TilesDone("overview", 1, box.area / 1e6))
    if to_come:
        raise Stopped
    return holes


def look_at(work: Work, chunk: Shard) -> NDArray[np.bool_] | bool | None:
    """Write a chunk of the overview; gives where it cannot be read, (H, W), or that this is nowhere.

    None: the run is to stop, and nothing was done.
    """
    if work.over():
        return None
    box = box_of(work.mask.spec, chunk)
    with work.watched(f"{box} of the overview"):
        rgb, holes = read_around_holes(work.overview, box)
        work.ensure_sound()
        work.mask.write_overview(box, rgb)
    return holes if holes.any() else False


def look_away(work: Work, chunk: Shard) -> bool:
    """In the place of `look_at` where that ends its workers: black, and nothing of it can be read."""
    box = box_of(work.mask.spec, chunk)
    with work.watched(f"{box} of the overview"):
        work.ensure_sound()
        work.mask.write_overview(box, np.zeros((box.height, box.width, 3), np.uint8))
    return True


def box_of(spec: MaskSpec, chunk: Shard) -> Box:
    """A chunk of the overview, in the pixels of its level."""
    return spec.overview(chunk.level).box(Tile(chunk.row, chunk.col))
