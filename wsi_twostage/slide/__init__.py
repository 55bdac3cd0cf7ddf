"""Whole slides as lazy pixels with a physical scale.

A reader (`tiff`, `openslide_reader`, `ome_zarr`, `plain_image`) lists the stored levels and reads boxes of
them; a `View` shows the slide at any downsample, made from the next finer stored level; a `Slide` gives views
by um per pixel.
"""

from wsi_twostage.slide.contents import Level
from wsi_twostage.slide.identity import Identity
from wsi_twostage.slide.slide import Slide, open_slide
from wsi_twostage.slide.view import View
from wsi_twostage.slide.zarr_view import SlideStore

__all__ = ["Identity", "Level", "Slide", "SlideStore", "View", "open_slide"]
