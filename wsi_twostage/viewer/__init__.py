"""A result in the browser: the slide, and on it the mask, its outlines, the uncertainty and its sources.

`Scene` is what is looked at, `Pictures` makes its tiles, `Refiner` runs Model 2 on a part of it, and `Viewer`
serves them to a page on this machine.
"""

from wsi_twostage.viewer.pictures import Pictures
from wsi_twostage.viewer.pyramid import Pyramid
from wsi_twostage.viewer.refiner import Refiner
from wsi_twostage.viewer.scene import Scene
from wsi_twostage.viewer.viewer import Viewer, open_viewer

__all__ = ["Pictures", "Pyramid", "Refiner", "Scene", "Viewer", "open_viewer"]
