"""plan(): what a run would do and cost, from the overview and a measurement of a few seconds."""

import os
import time
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from wsi_twostage import coarse, fine
from wsi_twostage.answers import enlarge, to_labels
from wsi_twostage.errors import UnreadableRegion
from wsi_twostage.events import ignore
from wsi_twostage.mask import MaskSpec, majority
from wsi_twostage.memory import peak_memory
from wsi_twostage.models.bundle import ModelBundle
from wsi_twostage.models.runner import runner
from wsi_twostage.models.spec import CONTEXT_STRIDE, BundleSpec
from wsi_twostage.passes import Passes, Stage, passes_of, scattered, seconds_of
from wsi_twostage.pixels import read_around_holes
from wsi_twostage.preparing import prepare, resolve, tissue_of_file
from wsi_twostage.selection import Duration, Fraction, Rule, TargetGap, Threshold, TileCount
from wsi_twostage.settings import Settings
from wsi_twostage.slide import Slide, View
from wsi_twostage.tiles import Box, TileGrid
from wsi_twostage.tissue import tissue_mask, tissue_tiles

SLACK_GIB = 0.75  # the store, the scheduler, tables of tiles, and holes between windows of unlike sizes
_OUTPUT_BYTES_PX = 0.12  # of the store, per fine pixel of tissue; measured on H&E
_STEPS = 128  # of a budget of time: so finely the share is found that it leaves time for
_LARGE_MPX = 200  # decoded for Model 1 alone, from a level that is finer than it needs: worth a note


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do; see `plan`."""

    slide: Slide
    tiles: int
    tissue: int
    stage_1: Stage
    stage_2: Stage
    rule: str
    refined_from: str
    """Why so many tiles would be refined."""
    workers: int
    memory_gib: float
    """Bound of the resident memory: of the model, the workers, and the largest window, which a small slide
    has not; of several slides the largest says it."""
    output_mib: float
    seconds: float
    notes: tuple[str, ...]


def plan(
    slide: str | os.PathLike[str] | Slide,
    *,
    bundle: ModelBundle | str | os.PathLike[str] | None = None,
    rule: Rule | TargetGap | None = None,
    settings: Settings | None = None,
) -> Plan:
    """Look at the overview, time each network on one window per worker, and add up; nothing is written.

    Of a budget of time: as many tiles as that leaves time for.

    Parameters and errors are those of `segment`.
    """
    settings, notes = settings or Settings(), list[str]()
    ready = prepare(slide, bundle, settings)
    slide, spec, views, result = ready.slide, ready.spec, ready.views, ready.mask
    followed, said = resolve(rule, spec, settings, ignore)
    workers = settings.workers or CPU_COUNT
    start = time.perf_counter()
    tissue = _tissue(views.overview, result, slide, settings)
    looked = time.perf_counter() - start
    net, count = runner(ready.model), int(tissue.sum())

    def first(box: Box) -> None:
        net.f1(_read(views.coarse, box.coarser(spec.ratio).grow(spec.coarse_halo)))

    def second(box: Box) -> None:
        around = box.coarser(CONTEXT_STRIDE).grow(spec.context_halo)
        net.f2(_read(views.fine, box.grow(spec.halo)), _read(views.around, around))

    order = np.flatnonzero(tissue)[scattered(count)]

    def refining(tiles: int) -> Passes:
        """Of so many that lie as scattered as a rule leaves them; which ones is not known yet."""
        some = np.zeros_like(tissue)
        some.ravel()[order[:tiles]] = True
        return passes_of(result, views.fine, some, 1, **fine.shape(spec))

    seen = passes_of(result, views.coarse, tissue, spec.ratio, **coarse.shape(spec))
    stage_1 = seen.stage(seen.pace(first, workers))
    writing = seconds_of(lambda: _label(spec, result.channels), workers) * count / workers
    pace = None
    if isinstance(followed, Duration):
        left = followed.value - looked - stage_1.seconds - writing
        pace = every = refining(count).pace(second, workers)
        shares = [step * count // _STEPS for step in range(_STEPS + 1)]
        fitting = bisect_right(shares[1:], left, key=lambda tiles: refining(tiles).takes(every))
        refined, why = shares[fitting], "as many as there is time for"
        if left < 0:
            notes.append(f"{followed} is over before Model 1 has seen all, which is done all the same")
    else:
        refined, why = _refined(followed, spec, count, settings.uncertainty)
    if settings.audit is not None:
        refined, why = min(refined + settings.audit, count), f"{why}; {settings.audit} for the audit"
    chosen = refining(refined)
    stage_2 = chosen.stage(chosen.pace(second, workers) if pace is None else pace)
    if stage_1.decoded_megapixels > _LARGE_MPX and max(views.coarse.scale) > 1.5:
        notes.append(
            f"no stored level near {views.coarse.mpp:.3g} um/px: Model 1's pixels are averaged from level "
            f"{views.coarse.level.index}, {stage_1.decoded_megapixels:.0f} Mpx to decode; "
            f"wsi-seg convert makes the levels once"
        )
    if not tissue.any():
        notes.append("no tissue found; the mask would be empty")
    shard = 2**22 * (1 + result.channels / spec.step**2) * workers
    return Plan(
        slide,
        tiles=tissue.size,
        tissue=count,
        stage_1=stage_1,
        stage_2=stage_2,
        rule=said,
        refined_from=why,
        workers=workers,
        memory_gib=round((peak_memory() + 2 * shard) / 2**30 + SLACK_GIB, 2),
        output_mib=round(_OUTPUT_BYTES_PX * count * spec.tile**2 / 2**20, 1),
        seconds=round(looked + stage_1.seconds + stage_2.seconds + writing, 1),
        notes=tuple(notes),
    )


def _tissue(overview: View, result: MaskSpec, slide: Slide, settings: Settings) -> NDArray[np.bool_]:
    """Tiles with tissue, as a run finds them."""
    if settings.tissue == "none":
        return np.ones((result.tiles.rows, result.tiles.cols), np.bool_)
    found = tissue_of_file(settings.tissue, slide, overview)
    if found is None:
        rgb, holes = _read_overview(overview, result.overview(0))
        found = tissue_mask(rgb) | holes
    return tissue_tiles(found, result.tiles, result.overview_downsample) > 0


def _read_overview(pixels: View, grid: TileGrid) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """All of a coarse level (H, W, 3), 1 / 1000 of the slide, and where it cannot be read (H, W)."""
    rgb = np.empty((grid.height, grid.width, 3), np.uint8)
    holes = np.zeros(rgb.shape[:2], np.bool_)
    for box in map(grid.box, grid):
        rgb[box.slices], holes[box.slices] = read_around_holes(pixels, box)
    return rgb, holes


def _refined(
    rule: Fraction | TileCount | Threshold, spec: BundleSpec, count: int, uncertainty: str
) -> tuple[int, str]:
    """Of so many tiles of tissue those that the rule would choose, and how that is known."""
    if isinstance(rule, Fraction):
        return round(rule.value * count), "as the rule says"
    if isinstance(rule, TileCount):
        return min(rule.value, count), "as the rule says"
    known = spec.calibration
    if known is None:
        return count, "at most: this model carries no calibration"
    if known.uncertainty != uncertainty:
        return count, f"at most: this model's calibration is of {known.uncertainty}, not of {uncertainty}"
    share = float(np.interp(rule.value, known.threshold, known.refined))
    return round(
        share * count
    ), f"as on the {known.cases} {known.unit} of the model's calibration, on average"


def _label(spec: BundleSpec, channels: int) -> None:
    """Model 1's answer as the mask, on one tile and its next level: what a run does beside the networks."""
    side = spec.tile // spec.step
    p = np.random.default_rng(0).integers(0, 256, (channels, side + 2, side + 2), np.uint8)
    wanted = Box(spec.step, spec.step, spec.tile, spec.tile)
    logits = enlarge(p, at=Box(0, 0, side + 2, side + 2), wanted=wanted, ratio=spec.step)
    majority(to_labels(logits, spec.decisions[0]))


def _read(view: View, box: Box) -> NDArray[np.uint8]:
    """Pixels to time a network on; black ones take as long where a slide has a hole."""
    try:
        return view.read(box)
    except UnreadableRegion:
        return np.zeros((box.height, box.width, 3), np.uint8)
