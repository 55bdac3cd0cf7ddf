"""A slide as an OME-Zarr image pyramid."""

from wsi_twostage.conversion.convert import convert

__all__ = ["convert"]
