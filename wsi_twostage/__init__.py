"""Two-stage segmentation of whole-slide images.

Full resolution only where it changes the answer (Cruz et al., Sensors 2023, 23(6), 3092):

    slide  ->  coarse level  ->  Model 1  ->  probability, uncertainty of each tile
                                                   |  selection (threshold or budget)
    slide  ->  fine tiles    ->  Model 2  <--------+
                                   |
    mask pyramid (OME-Zarr)  <-----+

Names are imported when they are first used, so that ``import wsi_twostage`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_twostage.algorithm import two_stage
    from wsi_twostage.conversion import convert
    from wsi_twostage.errors import BundleError, ConfigError, SlideError, StoreError, WsiError
    from wsi_twostage.further import refine
    from wsi_twostage.mask import MaskPyramid
    from wsi_twostage.models.bundle import ModelBundle, load_bundle
    from wsi_twostage.models.own import bundle_of, pack
    from wsi_twostage.pipeline import segment
    from wsi_twostage.planning import plan
    from wsi_twostage.preview import write_preview
    from wsi_twostage.report import write_report
    from wsi_twostage.result import Result
    from wsi_twostage.selection import ALL, NONE, Fraction, Threshold
    from wsi_twostage.settings import Settings
    from wsi_twostage.slide import Slide, open_slide
    from wsi_twostage.verification import verify

_HOMES = {
    "algorithm": ("two_stage",),
    "conversion": ("convert",),
    "further": ("refine",),
    "errors": ("BundleError", "ConfigError", "SlideError", "StoreError", "WsiError"),
    "mask": ("MaskPyramid",),
    "models.bundle": ("ModelBundle", "load_bundle"),
    "models.own": ("bundle_of", "pack"),
    "pipeline": ("segment",),
    "planning": ("plan",),
    "preview": ("write_preview",),
    "report": ("write_report",),
    "result": ("Result",),
    "selection": ("ALL", "NONE", "Fraction", "Threshold"),
    "settings": ("Settings",),
    "slide": ("Slide", "open_slide"),
    "verification": ("verify",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ALL",
    "NONE",
    "BundleError",
    "ConfigError",
    "Fraction",
    "MaskPyramid",
    "ModelBundle",
    "Result",
    "Settings",
    "Slide",
    "SlideError",
    "StoreError",
    "Threshold",
    "WsiError",
    "bundle_of",
    "convert",
    "load_bundle",
    "open_slide",
    "pack",
    "plan",
    "refine",
    "segment",
    "two_stage",
    "verify",
    "write_preview",
    "write_report",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
