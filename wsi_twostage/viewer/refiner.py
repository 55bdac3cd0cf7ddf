"""Refiner: Model 2 on the part of a slide that is looked at, in the background, one part at a time."""

import json
import logging
import os
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsi_twostage import stopping
from wsi_twostage.errors import StoreError, WsiError
from wsi_twostage.events import Event, Note, Started, TilesDone
from wsi_twostage.lock import locked
from wsi_twostage.mask import Source
from wsi_twostage.tiles import Box
from wsi_twostage.viewer.scene import Scene

_INSET_PX = 2  # of the overview: what a region only touches there is not meant


@dataclass(frozen=True, slots=True)
class Progress:
    """What the last refinement is at, or how it ended."""

    busy: bool = False
    done: int = 0  # tiles
    total: int = 0  # tiles; 0: not known yet
    text: str = ""
    """How it ended."""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """What refines, if not what a run takes by itself."""

    bundle: Path | None = None
    """Where the model is now; None: where it was."""
    device: str = "auto"
    workers: int | None = None


class Refiner:
    """Runs `refine` on regions of a scene's store."""

    def __init__(self, scene: Scene, tools: Tools | None = None) -> None:
        self.scene, self.tools = scene, tools or Tools()
        self.progress = Progress()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, box: Box) -> None:
        """Begin with the tiles that a box touches; in fine pixels.

        Raises
        ------
        StoreError
            One is at work already, here or in another process; or there is nothing to be refined.
        """
        with self._turn:
            if self.progress.busy:
                raise StoreError("Model 2 is at work already; wait for it, or stop it")
            if self.scene.slide is None:
                raise StoreError("the slide is not here, so that Model 2 cannot look at it")
            shown = self.scene.shown(box)
            if not shown.left:
                raise StoreError("no tile here is left to be refined")
            store = self.scene.store
            if not os.access(store.path, os.W_OK):
                raise StoreError(f"{store.path} cannot be written to, so that nothing can be refined")
            with locked(store.path, store.manifest.get("held_by")):
                pass  # somebody else's run would refuse ours only after the model is loaded
            stopping.ASKED.clear()
            self.progress = Progress(busy=True)
            self._thread = threading.Thread(target=self._run, args=(shown.tiles,), name="refine", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask it to end after the windows at work; what is left can be refined later."""
        if self.progress.busy:
            stopping.ASKED.set()

    def wait(self) -> None:
        """Until it has ended, if one is at work."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, tiles: Box) -> None:
        began, before = time.perf_counter(), self.scene.ledger.columns["source"] == Source.MODEL_2
        try:
            self._refine(tiles)
            self.scene.look()
            columns = self.scene.ledger.columns
            new = (columns["source"] == Source.MODEL_2) & ~before
            changed = float(np.nanmean(columns["disagreement"][new])) if new.any() else 0.0
            stopped = "Stopped. " if stopping.ASKED.is_set() else ""
            count = f"{new.sum()} {'tile' if new.sum() == 1 else 'tiles'}"
            spent = time.perf_counter() - began
            text = (
                f"{stopped}{count} refined in {spent:.0f} s; {100 * changed:.1f} % of their pixels changed."
            )
            self.progress = Progress(text=text)
        except WsiError as error:
            self.progress = Progress(text=str(error), failed=True)
        except Exception as error:  # nobody waits for this thread: the page has to be told
            logging.getLogger(__name__).exception("refining failed")
            self.progress = Progress(text=f"{type(error).__name__}: {error}", failed=True)
        finally:
            stopping.ASKED.clear()

    def _refine(self, tiles: Box) -> None:
        from wsi_twostage.further import refine  # torch; a page that only looks does not wait for it
        from wsi_twostage.settings import Settings

        slide = self.scene.slide
        assert slide is not None
        with tempfile.TemporaryDirectory() as folder:
            last = f"{tiles.bottom - 1},{tiles.right - 1}"
            region = Path(folder) / f"tiles {tiles.top},{tiles.left} to {last}.geojson"
            region.write_text(json.dumps(self._region(tiles)), encoding="utf-8")
            refine(
                self.scene.store.path,
                region=region,
                slide=slide.path,
                bundle=self.tools.bundle,
                settings=Settings(device=self.tools.device, workers=self.tools.workers),
                listener=self._listen,
            )

    def _listen(self, event: Event) -> None:
        if isinstance(event, Started):
            self.progress = replace(self.progress, done=0, total=event.total)
        elif isinstance(event, TilesDone):
            self.progress = replace(self.progress, done=self.progress.done + event.tiles)
        elif isinstance(event, Note):
            logging.getLogger(__name__).info(event.text)

    def _region(self, tiles: Box) -> dict[str, object]:
        """A GeoJSON polygon, in pixels of the slide's level 0, that touches these tiles and no others."""
        spec, slide = self.scene.store.spec, self.scene.slide
        assert slide is not None
        box = tiles.times(spec.tile).clip(spec.height, spec.width)
        inset = min(_INSET_PX * spec.overview_downsample, spec.tile / 4, box.height / 4, box.width / 4)
        scale = spec.mpp / slide.mpp
        top, left = (box.top + inset) * scale, (box.left + inset) * scale
        bottom = (box.bottom - (0 if box.bottom == spec.height else inset)) * scale
        right = (box.right - (0 if box.right == spec.width else inset)) * scale
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        return {"type": "Polygon", "coordinates": [ring]}
