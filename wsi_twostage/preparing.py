"""prepare(): the slide, the model and the rule that a run needs, before anything is written."""

import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import ConfigError, SlideError
from wsi_twostage.events import Listener, Note
from wsi_twostage.manifest import manifest_of
from wsi_twostage.mask import MaskPyramid, MaskSpec
from wsi_twostage.models.bundle import ModelBundle
from wsi_twostage.models.runner import ModelRef, refer
from wsi_twostage.models.spec import CONTEXT_STRIDE, BundleSpec
from wsi_twostage.quality import threshold_for, unlike
from wsi_twostage.selection import Rule, TargetGap, Threshold, ensure_rule
from wsi_twostage.settings import Settings
from wsi_twostage.slide import Identity, Slide, View, open_slide
from wsi_twostage.tissue import TISSUES
from wsi_twostage.tissue_file import read_tissue
from wsi_twostage.work import Work

OVERVIEW_MPP = 8.0  # um per pixel, about
LARGEST_OVERVIEW_PX = 2**28  # it is held as a whole; at 8 um a square of 13 cm


class Views(NamedTuple):
    """The slide as the stages see it."""

    fine: View
    coarse: View
    around: View
    overview: View


@dataclass(frozen=True)
class Prepared:
    """A slide and a model that fit, before anything is written."""

    slide: Slide
    model: ModelRef
    spec: BundleSpec
    views: Views
    mask: MaskSpec

    def manifest(self, settings: Settings) -> dict[str, Any]:
        """What made the result, but for the rule."""
        return manifest_of(
            self.slide, self.model, self.spec, tissue=settings.tissue, uncertainty=settings.uncertainty
        )

    def work(self, mask: MaskPyramid, settings: Settings) -> Work:
        """What the tasks need to know."""
        fine, coarse, around, overview = self.views
        return Work(
            fine,
            coarse,
            around,
            overview,
            mask,
            self.model,
            replace(self.spec, calibration=None, card={}),  # their bytes would travel with each task
            # what the store is labelled with: another slide may have come since, while workers were awaited
            Identity(self.slide.path, self.slide.reader, mask.manifest["slide"]["fingerprint"]),
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
) -> Prepared:
    """Open the slide and load the model, which runs here or ``elsewhere``; errors as `segment`."""
    slide = slide if isinstance(slide, Slide) else open_slide(slide, settings.mpp, reader=settings.reader)
    model, spec = model_of(bundle, settings, elsewhere=elsewhere)
    views = views_of(slide, spec)
    return Prepared(slide, model, spec, views, mask_spec(spec, views.fine, views.overview))


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


def resolve(
    rule: Rule | TargetGap | None, spec: BundleSpec, settings: Settings, listener: Listener
) -> tuple[Rule, str]:
    """The rule to follow, and how to say it; None is the bundle's threshold."""
    if rule is None:
        if settings.uncertainty != "entropy":
            raise ConfigError(f"the model's threshold is of entropy; with {settings.uncertainty} give a rule")
        rule = Threshold(spec.threshold)
    if not isinstance(rule, TargetGap):
        ensure_rule(rule)
        return rule, str(rule)
    found = Threshold(threshold_for(spec.calibration, rule.value, uncertainty=settings.uncertainty))
    assert spec.calibration is not None
    basis = f"{spec.calibration.cases} {spec.calibration.unit}"
    if spec.calibration.unit != "slides":
        listener(Note(f"{rule} rests on {basis}, not on slides; wsi-seg calibrate makes it rest on yours"))
    if other := unlike(spec.calibration, asdict(settings)):
        listener(Note(f"{rule} is promised for runs like those of the calibration, but here {other}"))
    return found, f"{found} for {rule}, from {basis}"


def _overview(fine: View) -> int:
    """Fine pixels per overview pixel: the power of two nearest to 8 um per pixel."""
    return int(2 ** max(round(math.log2(OVERVIEW_MPP / fine.mpp)), 0))


def tissue_of_file(tissue: str, slide: Slide, overview: View) -> NDArray[np.bool_] | None:
    """Tissue on the overview's pixels, where a file says it."""
    if tissue in TISSUES:
        return None
    return drawn_on(tissue, slide, overview)


def drawn_on(path: str | os.PathLike[str], slide: Slide, overview: View) -> NDArray[np.bool_]:
    """What a mask image or GeoJSON marks of a slide, on the overview's pixels."""
    full, wanted = (slide.height, slide.width), (overview.height, overview.width)
    return read_tissue(Path(path), full=full, wanted=wanted, downsample=overview.downsample)


def views_of(slide: Slide, spec: BundleSpec) -> Views:
    """At the bundle's mpp, and coarser by whole factors.

    Raises
    ------
    SlideError
        It is larger than any slide, as a damaged header or a wrong scale says.
    """
    fine = slide.view_at(spec.mpp)
    ratios = (spec.ratio, CONTEXT_STRIDE, _overview(fine))
    views = Views(fine, *(slide.view(fine.downsample * ratio) for ratio in ratios))
    if views.overview.height * views.overview.width > LARGEST_OVERVIEW_PX:
        width, height = (size * slide.mpp / 1000 for size in (slide.width, slide.height))
        raise SlideError(
            f"{slide.path}: {slide.width} x {slide.height} px at {slide.mpp:g} um/px are {width:,.0f} x "
            f"{height:,.0f} mm, which no slide is; is the scale right?"
        )
    return views


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
        origin_um=round((fine.mpp - fine.mpp / fine.downsample) / 2, 6),
    )
