"""plan(): what a run would do and cost, from the overview and a measurement of a few seconds."""

import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from wsi_twostage import coarse, fine
from wsi_twostage.answers import enlarge, to_labels
from wsi_twostage.batches import tiles_of_shards
from wsi_twostage.cluster import a_thread_for_a_window
from wsi_twostage.errors import UnreadableRegion
from wsi_twostage.mask import MaskSpec, majority
from wsi_twostage.models.bundle import ModelBundle
from wsi_twostage.models.runner import runner
from wsi_twostage.models.spec import CONTEXT_STRIDE, BundleSpec
from wsi_twostage.overview import read_overview
from wsi_twostage.preparing import mask_spec, model_of, resolve, tissue_of_file, views_of
from wsi_twostage.selection import Duration, Fraction, Rule, TargetGap, Threshold, TileCount
from wsi_twostage.settings import Settings
from wsi_twostage.slide import Slide, View, open_slide
from wsi_twostage.tiles import Box, merge
from wsi_twostage.tissue import tissue_mask, tissue_tiles
from wsi_twostage.work import WindowShape

SLACK_GIB = 0.75  # the store, the scheduler, tables of tiles, and holes between windows of unlike sizes
_OUTPUT_BYTES_PX = 0.12  # of the store, per fine pixel of tissue; measured on H&E
_LARGE_MPX = 200  # decoded for Model 1 alone, from a level that is finer than it needs: worth a note


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
    slide = slide if isinstance(slide, Slide) else open_slide(slide, settings.mpp, reader=settings.reader)
    model, spec = model_of(bundle, settings)
    followed, said = resolve(rule, spec, settings, lambda event: None)
    views = views_of(slide, spec)
    result = mask_spec(spec, views.fine, views.overview)
    workers = settings.workers or CPU_COUNT
    start = time.perf_counter()
    tissue = _tissue(views.overview, result, slide, settings)
    looked = time.perf_counter() - start
    net, count = runner(model), int(tissue.sum())

    def first(box: Box) -> None:
        net.f1(_read(views.coarse, box.coarser(spec.ratio).grow(spec.coarse_halo)))

    def second(box: Box) -> None:
        around = box.coarser(CONTEXT_STRIDE).grow(spec.context_halo)
        net.f2(_read(views.fine, box.grow(spec.halo)), _read(views.around, around))

    def refining(tiles: int) -> Stage:
        """Of so many that lie as scattered as a rule leaves them; which ones is not known yet."""
        some = np.zeros_like(tissue)
        some.ravel()[np.flatnonzero(tissue)[np.linspace(0, count - 1, tiles).astype(np.intp)]] = tiles > 0
        return _stage(result, views.fine, some, fine.shape(spec), 1, second, workers)

    stage_1 = _stage(result, views.coarse, tissue, coarse.shape(spec), spec.ratio, first, workers)
    writing = _time(lambda: _label(spec, result.channels), workers) * count / workers
    if isinstance(followed, Duration):
        left = followed.value - looked - stage_1.seconds - writing
        refined, why = count, "as many as there is time for"
        while refined and (takes := refining(refined).seconds) > left:  # fewer are more scattered, and dearer
            refined = int(refined * max(left, 0) / takes)
        if left < 0:
            notes.append(f"{followed} is over before Model 1 has seen all, which is done all the same")
    else:
        refined, why = _refined(followed, spec, count, settings.uncertainty)
    if settings.audit is not None:
        refined, why = min(refined + settings.audit, count), f"{why}; {settings.audit} for the audit"
    stage_2 = refining(refined)
    if stage_1.decoded_megapixels > _LARGE_MPX and max(views.coarse.scale) > 1.5:
        notes.append(
            f"no stored level near {views.coarse.mpp:.3g} um/px: Model 1's pixels are averaged from level "
            f"{views.coarse.level.index}, {stage_1.decoded_megapixels:.0f} Mpx to decode; "
            f"wsi-seg convert makes the levels once"
        )
    if not tissue.any():
        notes.append("no tissue found; the mask would be empty")
    shard = 2**22 * (1 + result.channels / spec.step**2) * workers
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Plan(
        slide,
        tiles=tissue.size,
        tissue=count,
        stage_1=stage_1,
        stage_2=stage_2,
        rule=said,
        refined_from=why,
        workers=workers,
        memory_gib=round((peak + 2 * shard) / 2**30 + SLACK_GIB, 2),
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
        rgb, holes = read_overview(overview, result.overview(0))
        found = tissue_mask(rgb) | holes
    return tissue_tiles(found, result.tiles, result.overview_downsample) > 0


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


def _stage(
    result: MaskSpec,
    view: View,
    tiles: NDArray[np.bool_],
    shape: WindowShape,
    ratio: int,
    predict: Callable[[Box], None],
    workers: int,
) -> Stage:
    """Windows of a network, and how long they take: as on one window per worker at a time."""
    windows = [
        window
        for chosen in tiles_of_shards(result, tiles).values()
        for window in merge(chosen, result.tiles, **shape)
    ]
    seen = [w.box.grow(shape["halo"]).area / ratio**2 / 1e6 for w in windows]
    decoded = sum(seen) * float(np.prod(view.scale))
    seconds = 0.0
    if windows:
        largest = max(windows, key=lambda w: w.box.area).box
        took = _time(lambda: predict(largest), workers)
        seconds = took * sum(seen) / max(seen) / workers
    return Stage(
        view, int(tiles.sum()), len(windows), round(sum(seen), 1), round(decoded, 1), round(seconds, 1)
    )


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


def _time(work: Callable[[], None], workers: int) -> float:
    """Seconds of one call while each worker makes one, as in a run: the second time of two."""
    with a_thread_for_a_window(), ThreadPoolExecutor(workers) as pool:
        for _ in range(2):
            start = time.perf_counter()
            for job in [pool.submit(work) for _ in range(workers)]:
                job.result()
            took = time.perf_counter() - start
    return took
