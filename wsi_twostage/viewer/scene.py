"""Scene: a result and its slide as they are looked at, and what is to be said of them."""

import math
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from wsi_twostage.errors import SlideError, StoreError
from wsi_twostage.ledger import Ledger
from wsi_twostage.mask import FAILED, MaskPyramid, MaskSpec, Source
from wsi_twostage.mask.layout import OURS
from wsi_twostage.pictures import slide_of
from wsi_twostage.slide import Slide
from wsi_twostage.tiles import Box, Tile
from wsi_twostage.viewer import paint
from wsi_twostage.viewer.pyramid import Pyramid

SOURCE_NAMES = {
    Source.BACKGROUND: "no tissue",
    Source.MODEL_1: "Model 1",
    Source.MODEL_2: "Model 2",
    Source.UNREADABLE: "unreadable",
    Source.PENDING: "not seen yet",
    Source.CRASHED: "ended its worker",
}
_TELLING = ("zarr.json", "tiles/source/c/0")
"""Of what only we write: the manifest, and the column of the table with which a tile counts as done."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The tiles that a part of the slide touches."""

    tiles: Box
    """In tiles."""
    left: int
    """How many of them have tissue and only Model 1's answer."""


class Scene:
    """A store, the slide that it was made from if it is there, and the tile table as it is now.

    Another process may refine while it is looked at; `look` sees it.
    """

    def __init__(self, store: MaskPyramid, slide: Slide | None = None, notes: tuple[str, ...] = ()) -> None:
        self.store, self.slide, self.notes = store, slide, notes
        manifest = store.manifest
        self._fingerprint = manifest["slide"]["fingerprint"]
        self.uncertainty = str(manifest["uncertainty"])
        """Its name."""
        spec = store.spec
        self.pyramids = {
            "slide": _slide_pyramid(spec, slide),
            "mask": (fine := Pyramid.of(spec.height, spec.width)),
            "outlines": fine,
            "uncertainty": Pyramid.of(spec.coarse.height, spec.coarse.width, spec.ratio),
            "source": fine,
        }
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] = ()
        self._revision = 0
        self._ledger: Ledger | None = None
        self.look()

    @classmethod
    def open(cls, output: str | os.PathLike[str], slide: str | os.PathLike[str] | None = None) -> Self:
        """Open a result and its slide; reads no pixels.

        Parameters
        ----------
        slide
            Where it is now; None: where it was. Is it not there, or another, the overview in the store stands
            in, and a note says so.

        Raises
        ------
        StoreError
            There is no whole mask; or ``slide`` is not the one that made it.
        SlideError
            ``slide`` was given and cannot be read.
        """
        store = MaskPyramid.open(output)
        try:
            return cls(store, slide_of(store, slide))
        except (SlideError, StoreError) as error:
            if slide is not None:
                raise
            return cls(store, None, (f"{error}; its overview is shown. --slide says where it is now.",))

    @property
    def ledger(self) -> Ledger:
        """The tile table as it was at the last `look`."""
        assert self._ledger is not None
        return self._ledger

    def look(self) -> int:
        """Read the tile table if the result has changed; gives the revision, which counts the changes.

        Raises
        ------
        StoreError
            The result is gone, damaged, or another one by now.
        """
        with self._lock, self.store.readable():
            stamp = _stamp(self.store.path)
            if stamp != self._stamp:
                self._ensure_same()
                self._ledger, self._stamp = Ledger.read(self.store), stamp
                self._revision += 1
            return self._revision

    def _ensure_same(self) -> None:
        """What lies there now is of the slide that is shown, of this shape, and of this uncertainty."""
        now = MaskPyramid.left(self.store.path)
        told = now.manifest["slide"]["fingerprint"], str(now.manifest["uncertainty"])
        if now.spec != self.store.spec or told != (self._fingerprint, self.uncertainty):
            raise StoreError(f"{now.path} is another result by now; start wsi-seg view again")

    def facts(self) -> dict[str, Any]:
        """What a page needs to begin with, for JSON."""
        revision, spec, manifest = self.look(), self.store.spec, self.store.manifest
        source = self.ledger.columns["source"]
        return {
            "revision": revision,
            "name": os.path.basename(str(manifest["slide"]["path"]).rstrip("/")),
            "notes": list(self.notes),
            "height": spec.height,
            "width": spec.width,
            "mpp": spec.mpp,
            "tile": spec.tile,
            "slide": None if self.slide is None else [self.slide.height, self.slide.width, self.slide.mpp],
            "pyramids": {name: _as_json(pyramid) for name, pyramid in self.pyramids.items()},
            "classes": [list(pair) for pair in zip(spec.classes, spec.colours, strict=True)],
            "counts": {
                "tissue": len(source),
                "refined": int((source == Source.MODEL_2).sum()),
                "unreadable": int(np.isin(source, FAILED).sum()),
            },
            "model": manifest["model"]["name"],
            "rule": manifest.get("rule"),
            "complete": bool(manifest.get("complete")),
            "sources": [
                [SOURCE_NAMES[kind], paint.SOURCES[kind]]
                for kind in (Source.MODEL_1, Source.MODEL_2, *FAILED)
                if kind not in FAILED or (source == kind).any()
            ],
            "uncertainty": {"kind": self.uncertainty, "highest": self.highest, "scale": paint.heat_scale()},
        }

    @property
    def highest(self) -> float:
        """The uncertainty of the most uncertain tile."""
        return float(np.nan_to_num(self.ledger.columns["uncertainty"]).max(initial=0.0))

    def tile(self, tile: Tile) -> dict[str, Any] | None:
        """A tile's row of the tile table, for JSON; None where there is no such tile."""
        grid = self.store.spec.tiles
        if not (0 <= tile.row < grid.rows and 0 <= tile.col < grid.cols):
            return None
        columns = self.ledger.columns
        found = np.flatnonzero((columns["row"] == tile.row) & (columns["col"] == tile.col))
        told: dict[str, Any] = {"row": tile.row, "col": tile.col, "source": SOURCE_NAMES[Source.BACKGROUND]}
        for name, column in columns.items():
            for value in column[found]:
                told[name] = _number(value.item())
        if found.size:
            told["source"] = SOURCE_NAMES[Source(told["source"])]
        return told

    def shown(self, box: Box) -> Shown:
        """The tiles that a box touches; in fine pixels."""
        grid = self.store.spec.tiles
        tiles = box.clip(grid.height, grid.width).coarser(grid.tile)
        refinable = self.ledger.having(Source.MODEL_1) & self.ledger.seen
        return Shown(tiles, int(refinable[tiles.slices].sum()))


def _slide_pyramid(spec: MaskSpec, slide: Slide | None) -> Pyramid:
    """Of the slide; of the overview, where there is none."""
    if slide is None:
        return Pyramid.of(spec.overview_height, spec.overview_width, spec.overview_downsample)
    return Pyramid.of(slide.height, slide.width, slide.mpp / spec.mpp)


def _stamp(store: Path) -> tuple[int, ...]:
    """When a result was changed last, in ns; a file that is not there was changed at 0."""
    files = [store / OURS / name for name in _TELLING]
    return tuple(file.stat().st_mtime_ns if file.is_file() else 0 for file in files)


def _as_json(pyramid: Pyramid) -> dict[str, float]:
    return {name: getattr(pyramid, name) for name in ("height", "width", "size", "levels")}


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
