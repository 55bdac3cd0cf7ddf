"""The result on disk: an OME-Zarr label pyramid, the overview it lies on, and what led to it."""

from wsi_twostage.mask.reduce import majority
from wsi_twostage.mask.spec import CHUNK, FAILED, SHARD, MaskSpec, Shard, Source
from wsi_twostage.mask.store import MaskPyramid

__all__ = ["CHUNK", "FAILED", "SHARD", "MaskPyramid", "MaskSpec", "Shard", "Source", "majority"]
