"""Where a file that is made of a result may be written: never over anything that was not given up."""

import os
from pathlib import Path

from wsi_twostage.errors import SlideError, StoreError
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.mask.layout import ensure_in_no_zarr
from wsi_twostage.pictures import slide_of


def ensure_target(path: Path, mask: MaskPyramid | None = None, *, overwrite: bool) -> None:
    """A path is free, or a file that the user gave up; of ``mask`` neither the slide nor a part.

    Raises
    ------
    StoreError
        It is not.
    """
    if mask is not None:
        place, result, slide = map(_real, (path, mask.path, mask.manifest["slide"]["path"]))
        if place == result or result in place.parents:
            raise StoreError(f"{path} is a part of the result; give another --output")
        if place == slide:
            raise StoreError(f"{path} is the slide; give another --output")
    ensure_in_no_zarr(path)
    if path.name == "-":
        raise StoreError("- is no file, and nothing is written to stdout; name a file by --output")
    if path.is_dir():
        raise StoreError(f"{path} is a folder; name a file in it by --output")
    if path.exists() and not path.is_file():
        raise StoreError(f"{path} is a device or a pipe; name a file by --output")
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise StoreError(f"{path} exists; give --overwrite or another --output")
    if mask is not None and path.exists() and _is_slide(path, mask):
        raise StoreError(f"{path} is the slide, moved; give another --output")


def _real(path: Path | str) -> Path:
    """As `Path.resolve`, which raises for a link that leads to itself."""
    return Path(os.path.realpath(path))


def _is_slide(path: Path, mask: MaskPyramid) -> bool:
    try:
        slide_of(mask, path)
    except (SlideError, StoreError):  # none, or another one
        return False
    return True
