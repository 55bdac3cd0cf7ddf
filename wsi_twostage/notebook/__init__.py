"""A result as a notebook shows it: a small picture with a few facts, and plots with axes in millimetres."""

from wsi_twostage.notebook.drawing import drawn
from wsi_twostage.notebook.plot import LAYERS, plot
from wsi_twostage.notebook.summary import html_of, png_of

__all__ = ["LAYERS", "drawn", "html_of", "plot", "png_of"]
