"""The curve of bundles on slides with ground truth: whole runs, from the file to the mask pyramid."""

import hashlib
import json
import platform
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_twostage.curves.curve import (
    FRACTIONS,
    Cells,
    Curve,
    Line,
    Point,
    gathered,
    lines_of,
)
from wsi_twostage.curves.truth import Labelled, read_truth
from wsi_twostage.dice import Counts, dice, overlap
from wsi_twostage.drafts import clear
from wsi_twostage.errors import ConfigError
from wsi_twostage.manifest import identity_of
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.models.header import read_spec, sha256_of
from wsi_twostage.models.runner import choose_device
from wsi_twostage.paper.origin import commit, machine
from wsi_twostage.pipeline import segment
from wsi_twostage.preparing import prepare
from wsi_twostage.selection import Fraction
from wsi_twostage.settings import Settings
from wsi_twostage.tiles import Tile

_OURS = re.compile(r"([0-9a-f]{16}-[0-9.]+-[0-9]+|warm-up)\.zarr")


@dataclass(frozen=True, eq=False)
class _Run:
    """One slide at one share of refined tiles."""

    store: MaskPyramid
    seconds: float
    stage_1: float
    """Seconds of it that went to Model 1."""


class _Seen(NamedTuple):
    """What the masks of a slide are compared with."""

    truth: NDArray[np.bool_]  # (H, W)
    reference: MaskPyramid


def measure_slides(
    models: Sequence[Path],
    slides: Sequence[Labelled],
    *,
    settings: Settings | None = None,
    repeats: int = 3,
    kept: Path | None = None,
    progress: Callable[[str, int], None] = lambda name, runs: None,
) -> Curve:
    """Run every bundle at every share of each slide's tiles; the first one's Model 2 is the reference.

    Seconds are those of whole runs (reading, both networks, writing), after one that does not count. The
    reference does without stage 1: its seconds are those of refining everything but for that.

    Parameters
    ----------
    models
        Bundles of one class at one mpp.
    kept
        Folder of the runs: a call that was interrupted goes on when it is made again, by the same code on the
        same machine. `forget` removes it. None: one that goes with the call.
    progress
        Called with a bundle's name and the number of runs, all bundles and repeats, that are done.

    Raises
    ------
    ConfigError
        Bundles that cannot be compared, a mask that does not fit its slide, or a slide that cannot be read
        everywhere.
    """
    settings, specs = settings or Settings(), [read_spec(model) for model in models]
    for model, spec in zip(models, specs, strict=True):
        if spec.mpp != specs[0].mpp or len(spec.classes) > 1:
            raise ConfigError(
                f"{model}: {len(spec.classes)} classes at {spec.mpp:g} um/px; the lines of one picture need "
                f"one class and one mpp, here {specs[0].mpp:g}"
            )
    if len({model.stem for model in models}) < len(models):
        raise ConfigError("two bundles of one name; their lines could not be told apart")
    truths = [read_truth(slide, specs[0].mpp, settings) for slide in slides]
    device = torch.device(choose_device(settings.device))
    origin: dict[str, Any] = {"machine": machine(device), "commit": commit()}
    with tempfile.TemporaryDirectory() as place:
        sweep = _Sweep(kept or Path(place), origin, settings, repeats)
        swept = sweep.of(models, slides, progress)
        first = swept[models[0].stem][1.0]
        seen = [_Seen(truth, run.store) for truth, run in zip(truths, first, strict=True)]
        seconds = sum(run.seconds - run.stage_1 for run in first)
        reference_dice = dice(_total(first, seen)[0])
        lines = []
        for name, runs in swept.items():
            lines += _lines(name, runs, seen, seconds=seconds, reference_dice=reference_dice)
    given: dict[str, Any] = {} if settings.mpp is None else {"mpp": settings.mpp}
    if own := sum(slide.tissue is not None for slide in slides):
        given["tissue"] = "file" if own == len(slides) else f"file or {settings.tissue}"
    settings_of = [{"model": model.stem, "sha256": sha256_of(model), **given} for model in models]
    name = slides[0].mask.parent.parent.resolve().name
    return Curve(name, len(slides), reference_dice, lines, settings_of, **origin)


def forget(kept: Path) -> None:
    """Remove the runs that `measure_slides` kept; what somebody else put there stays."""
    clear(kept, _OURS)


@dataclass(frozen=True, eq=False)
class _Sweep:
    """Runs at every share, kept in a folder by what comes down to the same pixels in the same time."""

    folder: Path
    origin: Mapping[str, Any]
    settings: Settings
    repeats: int

    def of(
        self, models: Sequence[Path], slides: Sequence[Labelled], progress: Callable[[str, int], None]
    ) -> dict[str, dict[float, list[_Run]]]:
        """Of each model's name every share on every slide, the median of the repeats' seconds.

        All models are run in each repeat, so that a slower hour is one of all of them.
        """
        made_of = {key: self._made_of(*key) for key in product(models, slides)}

        def places(model: Path, slide: Labelled, fraction: float) -> list[Path]:
            """Of the repeats."""
            name = f"{made_of[model, slide]}-{fraction}"
            return [self.folder / f"{name}-{repeat}.zarr" for repeat in range(self.repeats)]

        done = 0
        for repeat, model in product(range(self.repeats), models):
            warm = False
            for slide, fraction in product(slides, FRACTIONS):
                place = places(model, slide, fraction)[repeat]
                if not _is_complete(place):
                    if not warm:
                        self._run(model, slides[0], self.folder / "warm-up.zarr", FRACTIONS[1])
                        warm = True
                    self._run(model, slide, place, fraction)
                _read([place])  # now, and not when all are measured
                done += 1
                progress(model.stem, done)
        return {
            model.stem: {f: [_read(places(model, slide, f)) for slide in slides] for f in FRACTIONS}
            for model in models
        }

    def _made_of(self, model: Path, slide: Labelled) -> str:
        settings = slide.settings(self.settings)
        pixels = identity_of(prepare(slide.slide, model, settings).manifest(settings))
        return hashlib.sha256(json.dumps([pixels, self.origin, platform.node()]).encode()).hexdigest()[:16]

    def _run(self, model: Path, slide: Labelled, place: Path, fraction: float) -> None:
        settings = slide.settings(self.settings)
        settings = replace(settings, overwrite=True)  # half a run says nothing of its time
        segment(slide.slide, place, bundle=model, rule=Fraction(fraction), settings=settings)


def _is_complete(place: Path) -> bool:
    return place.exists() and bool(MaskPyramid.left(place).manifest.get("complete"))


def _read(places: Sequence[Path]) -> _Run:
    """The repeats of a run as one."""
    stores = [MaskPyramid.open(place) for place in places]
    for store in stores:
        if lost := store.failed:
            told = store.manifest
            raise ConfigError(
                f"{told['slide']['path']}: {lost} of its {told['counts']['tissue']} tissue tiles have "
                f"no answer; Dice over time is of slides that can be read everywhere"
            )
    seconds = [store.manifest["seconds"] for store in stores]
    total, stage_1 = (median(s[key] for s in seconds) for key in ("total", "stage_1"))
    return _Run(stores[0], total, stage_1)


def _lines(
    name: str,
    runs: Mapping[float, Sequence[_Run]],
    seen: Sequence[_Seen],
    *,
    seconds: float,
    reference_dice: float,
) -> list[Line]:
    """As the runs had it, and with the tiles of an oracle and of chance put together from the runs' ends."""
    costs = [sum(run.seconds for run in runs[f]) / seconds for f in FRACTIONS]
    totals = [_total(runs[f], seen) for f in FRACTIONS]
    points = [
        Point(f, round(cost, 4), round(dice(to_truth), 5), round(dice(to_reference), 5))
        for f, cost, (to_truth, to_reference) in zip(FRACTIONS, costs, totals, strict=True)
    ]
    parts = [
        cells_of(none.store, every.store, s.truth, s.reference)
        for none, every, s in zip(runs[0.0], runs[1.0], seen, strict=True)
    ]
    cells = gathered(parts)
    _, *rivals = lines_of(
        name,
        cells,
        costs,
        reference_dice=reference_dice,
        rest=totals[-1] - cells.counts[:, 1].sum(0),  # what lies outside of the tissue's tiles
        within=np.repeat(np.arange(len(parts)), [len(part.scores) for part in parts]),
    )
    return [Line(name, points), *rivals]


def _total(runs: Sequence[_Run], seen: Sequence[_Seen]) -> Counts:
    """(2 targets, 3): what the masks share with truth and reference, shard by shard."""
    found = np.zeros((2, 3))
    for run, s in zip(runs, seen, strict=True):
        for box in map(run.store.box, run.store.shards()):
            found += _shared(run.store.read(box), s.truth[box.slices], s.reference.read(box))
    return found


def cells_of(
    none: MaskPyramid, every: MaskPyramid, truth: NDArray[np.bool_], reference: MaskPyramid
) -> Cells:
    """The tissue tiles, as Model 1 alone and as Model 2 everywhere have them."""
    table, grid = none.tiles(), none.spec.tiles
    boxes = [grid.box(Tile(int(row), int(col))) for row, col in zip(table["row"], table["col"], strict=True)]
    counts = np.zeros((len(boxes), 2, 2, 3))
    for i, box in enumerate(boxes):
        right = reference.read(box)
        for m, store in enumerate((none, every)):
            counts[i, m] = _shared(store.read(box), truth[box.slices], right)
    return Cells(table["uncertainty"], counts)


def _shared(labels: NDArray[np.uint8], truth: NDArray[np.bool_], reference: NDArray[np.uint8]) -> Counts:
    return np.stack([overlap(labels > 0, truth), overlap(labels > 0, reference > 0)])
