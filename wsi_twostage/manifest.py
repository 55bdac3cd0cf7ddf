"""What made a result, and whether an earlier one is of the same making and can be gone on with."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wsi_twostage.drafts import ensure_here
from wsi_twostage.errors import LostSlide, SlideError, StoreError, WriteError
from wsi_twostage.lock import locked, new_holder
from wsi_twostage.mask import MaskPyramid, MaskSpec
from wsi_twostage.mask.layout import read_attributes, remove_unfinished
from wsi_twostage.models.runner import ModelRef
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.slide import Slide

_SAME = ("slide", "model", "tissue", "uncertainty", "precision", "engine")
"""What of a manifest decides the pixels."""


def manifest_of(
    slide: Slide, model: ModelRef, spec: BundleSpec, *, tissue: str, uncertainty: str
) -> dict[str, Any]:
    """Enough to make a result again, and to refuse to mix it with another."""
    return {
        "version": version("wsi-twostage"),
        "slide": {
            "path": slide.path,
            "fingerprint": slide.fingerprint,
            "mpp": slide.mpp,
            "mpp_source": slide.mpp_source,
            "reader": slide.reader,
            "origin": list(slide.origin),
            "bounds": list(slide.bounds),
        },
        "model": {"name": spec.name, "path": model.path, "sha256": model.sha256},
        "tissue": _file(Path(tissue)) if Path(tissue).is_file() else tissue,
        "uncertainty": uncertainty,
        "precision": model.precision,
        "engine": model.engine,
    }


def identity_of(manifest: Mapping[str, Any]) -> str:
    """16 hexadecimal digits, the same for what comes down to the same pixels."""
    said = "\n".join(_identity(manifest, name) for name in _SAME)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _file(path: Path) -> dict[str, str]:
    return {"path": str(path.absolute()), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@contextmanager
def writing(
    path: Path,
    spec: MaskSpec,
    manifest: Mapping[str, Any],
    *,
    overwrite: bool = False,
    before_overwriting: Callable[[], None] = lambda: None,
    instead: str = "give --overwrite or another --output",
) -> Iterator[MaskPyramid]:
    """What an earlier run of the same left at ``path``, or a new store; nobody else writes to it meanwhile.

    Where another result is there, ``instead`` says what would work; or it is overwritten, unless
    ``before_overwriting`` raises.

    Raises
    ------
    StoreError
        Another run is at work there; or something else is there: another slide, another model, other
        parameters, or no result of ours.
    WriteError, LostSlide
        What it is written to, or from, went away meanwhile.
    """
    ensure_here(path)
    path = path.absolute()
    if os.path.exists(path) and read_attributes(path) is not None:
        before = (read_attributes(path) or {}).get("manifest", {})
        with locked(path, before.get("held_by")):
            if overwrite:
                before_overwriting()
            elif not manifest["model"]["sha256"]:
                raise StoreError(f"{path} holds another result (now a model in memory); {instead}")
            else:
                _ensure_same(path, spec, before, manifest, instead)
    try:
        if overwrite or not path.exists():
            MaskPyramid.create(path, spec, manifest=manifest, overwrite=overwrite)
        mask = MaskPyramid.left(path)
    except OSError as error:
        raise WriteError.of(path, error) from error
    holder = new_holder()

    def release() -> None:
        """Where the file system has no locks, another run may have taken it."""
        if mask.manifest.get("held_by") == holder:
            mask.note(held_by=None)

    with locked(path, mask.manifest.get("held_by")):
        _ensure_same(path, spec, mask.manifest, manifest, instead)  # again: it was nobody's for a moment
        try:
            told = mask.manifest
            slide = {**told["slide"], "path": manifest["slide"]["path"]}  # where it is now
            mask.note(held_by=holder, slide=slide)
            yield mask
            remove_unfinished(mask.path)
            release()
        except Exception as error:
            with suppress(OSError, StoreError):
                release()
            if isinstance(error, OSError):
                raise WriteError.of(path, error) from error
            if isinstance(error, SlideError):
                raise LostSlide(f"{error}") from error
            if isinstance(error, StoreError):  # it was there when the run began
                raise WriteError(f"{error}") from error
            raise


def _ensure_same(
    path: Path, spec: MaskSpec, before: Mapping[str, Any], now: Mapping[str, Any], instead: str
) -> None:
    """Two manifests come down to the same pixels."""
    differ = [name for name in _SAME if _identity(before, name) != _identity(now, name)]
    if MaskPyramid.left(path).spec != spec or differ:
        said = "; ".join(f"{name} {_identity(before, name)}, now {_identity(now, name)}" for name in differ)
        raise StoreError(f"{path} holds another result ({said or 'another grid'}); {instead}")


def _identity(manifest: Mapping[str, Any], name: str) -> str:
    """What a part of a manifest comes down to: content, not paths."""
    value = manifest.get(name)
    if name == "slide" and isinstance(value, Mapping):
        return f"{str(value.get('fingerprint'))[:16]} at {value.get('mpp')} um/px"
    if isinstance(value, Mapping):
        return str(value.get("sha256"))[:16] or "in memory"
    return str(value)
