"""segment(): Algorithm 1 on a slide, from the file to the mask pyramid."""

import math
import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from wsi_twostage import cluster
from wsi_twostage.audit import LEAST
from wsi_twostage.errors import ConfigError, did_you_mean, similar_file
from wsi_twostage.events import Listener, Note, ignore
from wsi_twostage.manifest import manifest_of, writing
from wsi_twostage.mask import MaskPyramid, MaskSpec
from wsi_twostage.models.bundle import BundleSpec, ModelBundle
from wsi_twostage.models.runner import ModelRef, refer
from wsi_twostage.models.unet import CONTEXT_STRIDE
from wsi_twostage.quality import threshold_for
from wsi_twostage.result import Result
from wsi_twostage.schedule import begin
from wsi_twostage.selection import Duration, Rule, TargetGap, Threshold
from wsi_twostage.slide import Slide, View, open_slide
from wsi_twostage.tissue_file import read_tissue
from wsi_twostage.uncertainty import UNCERTAINTIES
from wsi_twostage.watchdog import PATIENCE_S
from wsi_twostage.work import Work

OVERVIEW_MPP = 8.0  # um per pixel, about
TISSUES = ("otsu", "none")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run is made; what is refined is said by the rule."""

    mpp: float | None = None
    """Of the slide's level 0, in um per pixel; wins over the file."""
    reader: str = "auto"
    """Or ``tiff``, ``openslide``, ``zarr``, ``image``."""
    tissue: str = "otsu"
    """``otsu``, ``none`` to take every tile for tissue, or a file that says it (`tissue_file`)."""
    uncertainty: str = "entropy"
    """Or ``margin``, ``expected_gain``, ``paper``."""
    device: str = "auto"
    """Or ``cpu``, ``cuda``, ``cuda:1``, ..."""
    precision: str = "fp32"
    """Or ``bf16``, ``fp16``."""
    engine: str = "torch"
    """Or ``openvino``, on a CPU."""
    workers: int | None = None
    """Threads on this machine; None: the cores that it may use."""
    processes: int | None = None
    """Over which those threads are spread; None: they run in this one."""
    scheduler: str | None = None
    """Address or file of a running Dask scheduler."""
    patience: float = PATIENCE_S
    """Seconds for a window, before a worker process counts as hanging."""
    audit: int | None = None
    """Tiles of a random sample from which the gap that is left is estimated (`audit`); they are refined."""
    until: float | None = None
    """When the run ends, complete or not, in seconds of `time.time`."""
    overwrite: bool = False
    """Replace a result of ours; nothing else is ever replaced."""

    def __post_init__(self) -> None:
        if self.uncertainty not in UNCERTAINTIES:
            near = did_you_mean(self.uncertainty, UNCERTAINTIES)
            raise ConfigError(f"uncertainty={self.uncertainty!r}; use {', '.join(UNCERTAINTIES)}{near}")
        if self.tissue not in TISSUES and not Path(self.tissue).is_file():
            near = did_you_mean(self.tissue, TISSUES) or similar_file(self.tissue)
            raise ConfigError(
                f"tissue={self.tissue!r}; use {', '.join(TISSUES)} or a mask image or GeoJSON{near}"
            )
        for name, count in (("workers", self.workers), ("processes", self.processes)):
            if count is not None and count < 1:
                raise ConfigError(f"{name}={count}; at least 1")
        if self.scheduler is not None and (self.workers or self.processes):
            raise ConfigError("a scheduler has workers of its own; leave workers and processes away")
        if self.patience <= 0:
            raise ConfigError(f"patience={self.patience:g}; more than 0 s")
        if self.audit is not None and self.audit < LEAST:
            raise ConfigError(f"audit={self.audit} tiles say nothing; at least {LEAST}, better 50")

    def connect(self, client: Client | None = None) -> AbstractContextManager[Client]:
        """The cluster that these say, or ``client``."""
        return cluster.connect(
            workers=self.workers, processes=self.processes, scheduler=self.scheduler, client=client
        )


def segment(
    slide: str | os.PathLike[str] | Slide,
    output: str | os.PathLike[str],
    *,
    bundle: ModelBundle | str | os.PathLike[str] | None = None,
    rule: Rule | TargetGap | None = None,
    settings: Settings | None = None,
    listener: Listener = ignore,
    since: float | None = None,
    client: Client | None = None,
    priority: int = 0,
) -> Result:
    """Segment a slide in two stages and write the mask pyramid.

    A run that is stopped (`Settings.until`, `stopping.ASKED`) gives a result that is not ``complete``.

    >>> result = segment("slide.svs", "slide.seg.ome.zarr", rule=Fraction(0.1))  # doctest: +SKIP

    Parameters
    ----------
    output
        Folder of the OME-Zarr store. The call goes on with what an earlier one of the same slide, model and
        parameters left there.
    bundle
        The model; None for the one that ships in the package.
    rule
        What is refined; None for the threshold in the bundle. A target gap becomes the threshold that the
        bundle's calibration promises it for.
    since
        When the clock of a time budget began, in seconds of `time.time`; None: now.
    client
        Of a Dask cluster to use, instead of what the settings say.
    priority
        Of several slides on one cluster, the higher goes first.

    Raises
    ------
    SlideError, BundleError, ConfigError, StoreError
        Before any work is done, and with nothing touched.
    LostSlide, ClusterError, WriteError, DeviceFull
        The slide, the workers or the place for the output went away during the run, or a GPU has no room for
        a tile; what is on disk is valid, and the same call goes on with it. A region that cannot be decoded
        costs its tiles only, and so does one that ends its worker process each time; they are marked in the
        tile table.
    """
    started, settings = time.perf_counter(), settings or Settings()
    since = time.time() if since is None else since
    job = prepare(slide, bundle, settings, elsewhere=cluster.is_elsewhere(client))
    rule, said = resolve(rule, job.spec, settings, listener)
    if job.views.fine.downsample < 1 / 1.1:
        listener(
            Note(f"{job.slide.mpp:g} um/px is coarser than the model's {job.spec.mpp:g}; it is enlarged")
        )
    drawn = tissue_of_file(settings.tissue, job.slide, job.views.overview)
    manifest = {**job.manifest(settings), "rule": said}
    with (
        settings.connect(client) as workers,
        writing(Path(output), job.mask, manifest, overwrite=settings.overwrite) as mask,
        begin(job.work(mask, settings), workers, listener, priority=priority) as run,
    ):
        timed = isinstance(rule, Duration)
        audit = mask.manifest.get("audit") if mask.manifest.get("rule") == said and not timed else None
        mask.note(rule=said, timed=timed, audit=audit, complete=False)
        with run.timed("overview"):
            tiles = run.look(job.views.overview, settings.tissue, drawn)
            run.restore(tiles)
        if not tiles.tissue.any():
            listener(Note("no tissue found; the mask is empty"))
        with run.stoppable():
            with run.timed("stage 1"):  # line 1: p = up(f1(down(x))), and u, h of each tile
                run.coarse(tiles)
            with run.timed("selection"):  # line 2: patches = {(i, j) | g(h(c_ij(p)))}
                tiles.choose(rule)
            with run.timed("stage 2"):  # line 3: c_ij(p) = f2(c_ij(x)) for (i, j) in patches
                run.refine(tiles, until=end_of(rule, since))
            if settings.audit is not None:
                with run.timed("audit"):
                    run.audit(tiles, settings.audit)
        return run.finish(started, tiles)


@dataclass(frozen=True)
class Job:
    """A slide and a model that fit, before anything is written."""

    slide: Slide
    model: ModelRef
    spec: BundleSpec
    views: "Views"
    mask: MaskSpec

    def manifest(self, settings: Settings) -> dict[str, Any]:
        """What made the result, but for the rule."""
        return manifest_of(
            self.slide, self.model, self.spec, tissue=settings.tissue, uncertainty=settings.uncertainty
        )

    def work(self, mask: MaskPyramid, settings: Settings) -> Work:
        """What the tasks need to know."""
        fine, coarse, around, _ = self.views
        return Work(
            fine,
            coarse,
            around,
            mask,
            self.model,
            replace(self.spec, calibration=None, card={}),  # their bytes would travel with each task
            run=mask.manifest["held_by"],
            uncertainty=settings.uncertainty,
            until=settings.until,
            patience=settings.patience,
        )


def prepare(
    slide: str | os.PathLike[str] | Slide,
    bundle: ModelBundle | str | os.PathLike[str] | None,
    settings: Settings,
    *,
    elsewhere: bool = False,
) -> Job:
    """Open the slide and load the model, which runs here or ``elsewhere``; errors as `segment`."""
    slide = slide if isinstance(slide, Slide) else open_slide(slide, settings.mpp, reader=settings.reader)
    model, spec = model_of(bundle, settings, elsewhere=elsewhere)
    views = views_of(slide, spec)
    return Job(slide, model, spec, views, mask_spec(spec, views.fine, views.overview))


def model_of(
    bundle: ModelBundle | str | os.PathLike[str] | None, settings: Settings, *, elsewhere: bool = False
) -> tuple[ModelRef, BundleSpec]:
    """What the settings make of a bundle; errors as `segment`."""
    elsewhere = elsewhere or settings.scheduler is not None
    if isinstance(bundle, ModelBundle) and (elsewhere or settings.processes):
        raise ConfigError("a bundle in memory cannot reach workers in other processes; pack it into a file")
    return refer(
        bundle,
        device=settings.device,
        precision=settings.precision,
        engine=settings.engine,
        elsewhere=elsewhere,
    )


def end_of(rule: Rule | None, since: float) -> float | None:
    """When a budget of time is over, in seconds of `time.time`."""
    return since + rule.value if isinstance(rule, Duration) else None


def resolve(
    rule: Rule | TargetGap | None, spec: BundleSpec, settings: Settings, listener: Listener
) -> tuple[Rule, str]:
    """The rule to follow, and how to say it; None is the bundle's threshold."""
    if rule is None:
        if settings.uncertainty != "entropy":
            raise ConfigError(f"the model's threshold is of entropy; with {settings.uncertainty} give a rule")
        rule = Threshold(spec.threshold)
    if not isinstance(rule, TargetGap):
        return rule, str(rule)
    found = Threshold(threshold_for(spec.calibration, rule.value, uncertainty=settings.uncertainty))
    assert spec.calibration is not None
    basis = f"{spec.calibration.cases} {spec.calibration.unit}"
    if spec.calibration.unit != "slides":
        listener(Note(f"{rule} rests on {basis}, not on slides; wsi-seg calibrate makes it rest on yours"))
    return found, f"{found} for {rule}, from {basis}"


def _overview(fine: View) -> int:
    """Fine pixels per overview pixel: the power of two nearest to 8 um per pixel."""
    return int(2 ** max(round(math.log2(OVERVIEW_MPP / fine.mpp)), 0))


def tissue_of_file(tissue: str, slide: Slide, overview: View) -> NDArray[np.bool_] | None:
    """Tissue on the overview's pixels, where a file says it."""
    if tissue in TISSUES:
        return None
    full, wanted = (slide.height, slide.width), (overview.height, overview.width)
    return read_tissue(Path(tissue), full=full, wanted=wanted)


class Views(NamedTuple):
    """The slide as the stages see it."""

    fine: View
    coarse: View
    around: View
    overview: View


def views_of(slide: Slide, spec: BundleSpec) -> Views:
    """At the bundle's mpp, and coarser by whole factors."""
    fine = slide.view_at(spec.mpp)
    ratios = (spec.ratio, CONTEXT_STRIDE, _overview(fine))
    return Views(fine, *(slide.view(fine.downsample * ratio) for ratio in ratios))


def mask_spec(spec: BundleSpec, fine: View, overview: View) -> MaskSpec:
    """What the result will be."""
    return MaskSpec(
        height=fine.height,
        width=fine.width,
        mpp=fine.mpp,
        ratio=spec.step,
        tile=spec.tile,
        classes=spec.classes,
        colours=spec.colours,
        overview_downsample=_overview(fine),
        overview_height=overview.height,
        overview_width=overview.width,
    )
