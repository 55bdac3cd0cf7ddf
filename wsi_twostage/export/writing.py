"""export(): a result in a format of other programs; the file appears whole or not at all."""

import gzip
import io
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from wsi_twostage.drafts import whole_file
from wsi_twostage.errors import ConfigError, did_you_mean
from wsi_twostage.events import Finished, Listener, Note, ignore
from wsi_twostage.export import dicom_seg, geojson, images, objects, simplify, table
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.target import ensure_target

SUFFIXES = {
    "geojson": (".geojson", ".geojson.gz", ".json", ".json.gz"),
    "csv": (".csv", ".csv.gz"),
    "parquet": (".parquet",),
    "ome-tiff": (".ome.tif", ".ome.tiff"),
    "png": (".png",),
    "dicom-seg": (".dcm",),
}
"""Formats, and the names that their files end in, the usual one first."""

OBJECTS = ("geojson", "csv", "parquet")
"""Formats of objects; the others are of pixels."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is written; each is for some formats only."""

    split: bool = False
    """Objects: cut touching nuclei apart."""
    min_area_um2: float = 0.0
    """Objects: leave out what is smaller."""
    kind: str = ""
    """GeoJSON: "detection" (the default) or "annotation"."""
    simplify_px: float = 0.0
    """GeoJSON: outlines may run this far beside the pixels' edges; in pixels of the mask."""
    gzip: bool = False
    """GeoJSON and CSV: compress."""
    mpp: float | None = None
    """PNG and DICOM: write the level that is nearest."""
    overlay: bool = False
    """PNG: outlines on the slide, instead of the mask."""
    slide: str | None = None
    """PNG with ``overlay``, and DICOM: where the slide is now; None: where it was."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    bytes: int
    objects: int | None
    """None for formats of pixels."""


def export(
    result: MaskPyramid | str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    to: str | None = None,
    options: Options | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    listener: Listener = ignore,
) -> Exported:
    """Write a result's mask as ``to``: geojson, csv, parquet, ome-tiff, png or dicom-seg.

    >>> export("slide.seg.ome.zarr", "cells.geojson")  # doctest: +SKIP

    Parameters
    ----------
    target
        The new file; by default beside the result, with its name and the format's suffix.
    to
        By default what the target's name ends in.
    workers
        Threads for objects; as many as the process may use cores, up to 8, if None.

    Raises
    ------
    ConfigError
        An unknown format, an option that is not for it, a picture that would be too large, a package that is
        not installed, or a slide that is no DICOM.
    StoreError
        No result, a damaged one, or a target that exists (without ``overwrite``).
    WriteError
        The target cannot be written; what was there is as before.
    """
    options = options or Options()
    to = to or _format_of(target)
    _ensure_fits(to, options)
    _ensure_named(target, to, options)
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers}; it must be 1 or more")
    mask = result if isinstance(result, MaskPyramid) else MaskPyramid.open(result)
    path = Path(target) if target is not None else _beside(mask.path, to, compressed=options.gzip)
    if to in ("geojson", "csv") and path.name.lower().endswith(".gz"):
        options = replace(options, gzip=True)
    if not mask.manifest.get("complete"):
        listener(Note(f"{mask.path.name} is not finished: where Model 2 is to come, this is Model 1's mask"))
    if lost := mask.failed:
        listener(Note(f"{lost} tiles have no answer of Model 2; there the mask is Model 1's, or empty"))
    since = time.perf_counter()
    count: int | None = None
    with _new_file(path, mask, overwrite=overwrite) as new:
        if to in OBJECTS:
            count = _write_objects(new, mask, to, options, workers, listener)
        else:
            _write_pixels(new, mask, to, options, listener)
    listener(Finished("export", time.perf_counter() - since))
    return Exported(path, path.stat().st_size, count)


def _write_objects(
    path: Path, mask: MaskPyramid, to: str, options: Options, workers: int | None, listener: Listener
) -> int:
    about = objects.About.of(mask)
    batches = objects.objects(
        mask, split=options.split, min_area_um2=options.min_area_um2, workers=workers, listener=listener
    )
    with _opened(path, compressed=options.gzip) as file:
        if to == "csv":
            return table.write_csv(file, batches, about)
        if to == "parquet":
            return table.write_parquet(file, batches, about)
        kind = options.kind or "detection"
        return geojson.write_geojson(file, batches, about, kind=kind, simplify_px=options.simplify_px)


def _write_pixels(path: Path, mask: MaskPyramid, to: str, options: Options, listener: Listener) -> None:
    if to == "ome-tiff":
        images.write_ome_tiff(path, mask, listener)
    elif to == "png":
        level = images.level_at(mask, options.mpp)
        images.write_png(path, mask, level, listener, overlay=options.overlay, slide=options.slide)
    else:
        source = dicom_seg.source_of(mask, options.slide)
        level = images.level_at(mask, options.mpp, usual_px=images.MOST_PX)
        dicom_seg.write_dicom_seg(path, mask, level, source, listener)


def _format_of(target: str | os.PathLike[str] | None) -> str:
    """What a name ends in."""
    name = "" if target is None else Path(target).name.lower()
    for to, suffixes in SUFFIXES.items():
        if name.endswith(suffixes):
            return to
    if not name:
        raise ConfigError(f"--to is missing; use {', '.join(SUFFIXES)}")
    raise ConfigError(f"--to is missing, and {name} does not say it; use {', '.join(SUFFIXES)}")


def _ensure_named(target: str | os.PathLike[str] | None, to: str, options: Options) -> None:
    """A file's name says what is in it, or nothing; readers go by it."""
    name = "" if target is None else Path(target).name.lower()
    others = [other for other, suffixes in SUFFIXES.items() if other != to and name.endswith(suffixes)]
    if others:
        raise ConfigError(f"--to {to}, but {name} is named like {others[0]}; give one of them")
    if name and options.gzip and not name.endswith(".gz"):
        raise ConfigError(f"--gzip, but {name} does not end in .gz; call it {name}.gz")


def _beside(result: Path, to: str, *, compressed: bool) -> Path:
    """slide.seg.ome.zarr -> slide.seg.geojson, in the same folder."""
    name = result.name.removesuffix(".zarr").removesuffix(".ome")
    return result.with_name(name + SUFFIXES[to][0] + (".gz" if compressed else ""))


def _ensure_fits(to: str, options: Options) -> None:
    """The format is known, its packages are there, and the options are its own and make sense."""
    if to not in SUFFIXES:
        raise ConfigError(f"--to {to} is unknown; use {', '.join(SUFFIXES)}{did_you_mean(to, SUFFIXES)}")
    of_objects, text = OBJECTS, ("geojson", "csv")
    for given, name, formats in (
        (options.split, "--split", of_objects),
        (options.min_area_um2, "--min-area", of_objects),
        (options.kind, "--as", ("geojson",)),
        (options.simplify_px, "--simplify", ("geojson",)),
        (options.gzip, "--gzip", text),
        (options.mpp is not None, "--mpp", ("png", "dicom-seg")),
        (options.overlay, "--overlay", ("png",)),
        (options.slide is not None, "--slide", ("png", "dicom-seg")),
    ):
        if given and to not in formats:
            raise ConfigError(f"{name} is for --to {' and '.join(formats)}, not for {to}")
    if options.slide is not None and to == "png" and not options.overlay:
        raise ConfigError("--slide is for a PNG with --overlay; without it the slide is not drawn")
    if options.kind not in ("", *geojson.KINDS):
        near = did_you_mean(options.kind, geojson.KINDS)
        raise ConfigError(f"--as {options.kind} is unknown; use {' or '.join(geojson.KINDS)}{near}")
    for number, name in ((options.min_area_um2, "--min-area"), (options.simplify_px, "--simplify")):
        if not (number >= 0 and math.isfinite(number)):
            raise ConfigError(f"{name} {number:g}; it must be 0 or more")
    if options.simplify_px:
        simplify.ensure_simplify()
    {"parquet": table.ensure_parquet, "dicom-seg": dicom_seg.ensure_dicom}.get(to, lambda: None)()


@contextmanager
def _new_file(path: Path, mask: MaskPyramid, *, overwrite: bool) -> Iterator[Path]:
    """A file beside ``path`` to fill; it takes the place of ``path`` only when the block succeeds.

    Raises
    ------
    StoreError
        Something is there that must not be replaced, or the result was.
    WriteError
        The system does not let it be written.
    """
    ensure_target(path, mask, overwrite=overwrite)
    with whole_file(path) as new:
        with mask.unreplaced("exported"):
            yield new
        ensure_target(path, mask, overwrite=overwrite)  # again: a block takes time


@contextmanager
def _opened(path: Path, *, compressed: bool) -> Iterator[BinaryIO]:
    """A file to write to; gzip without name and time, so that the same objects give the same bytes."""
    with open(path, "wb") as file:
        if not compressed:
            yield file
            return
        with (
            gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
            io.BufferedWriter(packed, 2**20) as buffered,
        ):
            yield buffered
