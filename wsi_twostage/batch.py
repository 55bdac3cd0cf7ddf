"""Which slides a batch has, and where their results go."""

import csv
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_twostage.errors import ConfigError
from wsi_twostage.tissue import TISSUES

if TYPE_CHECKING:
    from wsi_twostage.settings import Settings

SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".png", ".jpg", ".jpeg",
)  # fmt: skip
"""What is taken for a slide in a folder, beside OME-Zarr; of DICOM each file is only a part of one."""

COLUMNS = ("wsi", "mpp", "mask", "threshold", "output")
"""Of a CSV manifest; others are passed over."""

_FILES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".dcm", ".geojson", ".json", ".csv", ".parquet", ".npy")
"""Ends of the names of files, which no result is."""

_RESULT = ".seg.ome.zarr"
_PREVIEW = ".preview.png"
_OURS = (_PREVIEW, ".seg.ome.tif", ".seg.ome.tiff", ".seg.png")
"""Ends of the names that pictures of results have, if nobody gave them others."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One slide of a batch, and what of the settings is its own."""

    slide: str
    """A path or a URL."""
    output: Path
    mpp: float | None = None
    tissue: str | None = None
    threshold: float | None = None

    def settings(self, common: "Settings") -> "Settings":
        """Those of the batch, but for what is its own."""
        mpp = common.mpp if self.mpp is None else self.mpp
        return replace(common, mpp=mpp, tissue=self.tissue or common.tissue)


def entries(inputs: Sequence[str], output: Path) -> list[Entry]:
    """The slides behind files, URLs, folders, patterns and CSV manifests, in that order.

    Parameters
    ----------
    output
        Folder for the results; or a name that ends in ``.zarr``, for one slide.

    Raises
    ------
    ConfigError
        Nothing is found, a manifest cannot be read, two results would have one name, or ``output`` is named
        as no folder is.
    """
    if output.suffix.lower() in _FILES and not output.is_dir():
        folder = output.with_name(f"{output.stem.removesuffix('.ome')}.ome.zarr")
        raise ConfigError(
            f"--output {output}: a result is a folder, such as {folder}; `wsi-seg export` makes files of it"
        )
    found = [entry for given in inputs for entry in expand(given, output)]
    if output.suffix == ".zarr":
        if len(found) > 1:
            raise ConfigError(
                f"--output {output} names one result, but {len(found)} slides were given; give a folder"
            )
        return [replace(found[0], output=output)]
    seen: dict[Path, Entry] = {}
    for entry in found:
        if (other := seen.setdefault(entry.output.resolve(), entry)) != entry:
            raise ConfigError(
                f"{other.slide} and {entry.slide} would have one result, {entry.output}; run them apart, or "
                f"name their outputs in a CSV manifest"
            )
    return list(seen.values())


def is_batch(inputs: Sequence[str], found: Sequence[Entry]) -> bool:
    """Whether a summary is wanted: more than one slide, or an input that may have more another time."""
    return len(found) > 1 or found[0].slide != inputs[0]


def expand(given: str, output: Path) -> Iterator[Entry]:
    """The slides behind one input; errors as `entries`."""
    if "://" in given:
        from wsi_twostage.slide.contents import local_path  # readers, as below

        given = local_path(given)
    path = Path(given)
    if path.suffix.lower() == ".csv":
        yield from _manifest(path, output)
    elif "://" in given or os.path.isfile(path) or _is_zarr(path) or _is_result(path):
        yield Entry(given, _target(given, output))
    elif os.path.isdir(path):
        try:
            inside = slides_in(path)
        except OSError as error:
            raise ConfigError(f"{given}: cannot be looked into ({error.strerror})") from error
        if not inside:
            raise ConfigError(f"{given}: a directory without slides ({', '.join(SUFFIXES)}, OME-Zarr)")
        yield from (Entry(slide, _target(slide, output)) for slide in inside)
    elif glob.has_magic(given):
        matching = sorted(name for name in glob.glob(given, recursive=True) if _is_slide(Path(name)))
        if not matching:
            raise ConfigError(f"{given}: no slide matches")
        yield from (Entry(slide, _target(slide, output)) for slide in matching)
    else:
        yield Entry(given, _target(given, output))  # opening it says what is wrong


def slides_in(folder: Path) -> list[str]:
    """What is taken for a slide in a folder, sorted; hidden files are not."""
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(str(path) for path in shown if _is_slide(path))


def _is_slide(path: Path) -> bool:
    """Looks like one, and is no picture of a result; opening it says whether it can be read."""
    if os.path.isdir(path):
        return _is_zarr(path)
    return path.suffix.lower() in SUFFIXES and not path.name.endswith(_OURS)


def _is_result(path: Path) -> bool:
    """A result of ours, by its name; opening it as a slide says what it is."""
    return path.name.endswith(_RESULT) and os.path.isdir(path)


def _is_zarr(path: Path) -> bool:
    """An OME-Zarr that may be a slide; results of ours are not."""
    from wsi_twostage.slide.contents import description_of  # readers, for which --help need not wait

    return not path.name.endswith(_RESULT) and description_of(path) is not None


def _target(slide: str, output: Path) -> Path:
    """Where the result of a slide goes: a.svs, a.ome.tiff and a.ome.zarr are all a."""
    return output / f"{stem_of(slide)}{_RESULT}"


def picture_of(target: Path) -> Path:
    """Where the preview of a result goes."""
    return target.with_name(target.name.removesuffix(".zarr").removesuffix(".seg.ome") + _PREVIEW)


def stem_of(slide: str) -> str:
    """The name of a slide, without what says its format."""
    return Path(name_of(slide)).stem.removesuffix(".ome")


def name_of(slide: str) -> str:
    """The last part of a path or a URL."""
    return slide.rstrip("/").rsplit("/", 1)[-1]


def _manifest(path: Path, output: Path) -> Iterator[Entry]:
    """Rows of a CSV; paths in it are relative to its folder."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            rows = list(reader)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: does not exist") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read as CSV ({error}); save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV ({error})") from error
    if not rows or "wsi" not in rows[0]:
        found = f"; found {', '.join(filter(None, rows[0]))}" if rows else ""
        raise ConfigError(
            f"{path}: no slides; expected a header with {', '.join(COLUMNS)}, of which only wsi is "
            f"needed{found}"
        )
    for number, row in enumerate(rows, 2):
        told = {name: (row.get(name) or "").strip() for name in COLUMNS}
        if not told["wsi"]:
            raise ConfigError(f"{path}, line {number}: no slide in column wsi")

        def place(name: str) -> str:
            text = told[name]  # noqa: B023
            return text if "://" in text or not text else os.path.join(path.parent, text)

        def value(name: str) -> float | None:
            try:
                return float(told[name]) if told[name] else None  # noqa: B023
            except ValueError as error:
                raise ConfigError(f"{path}, line {number}: {name} {told[name]!r} is no number") from error  # noqa: B023

        slide = place("wsi")
        target = Path(place("output")) if told["output"] else _target(slide, output)
        if not any(_inside(target, folder) for folder in (path.parent, output)):
            raise ConfigError(
                f"{path}, line {number}: output {told['output']!r} is neither in the manifest's folder nor "
                f"in {output}; name a folder that holds all of them by --output"
            )
        tissue = told["mask"] if told["mask"] in TISSUES else place("mask")
        yield Entry(slide, target, value("mpp"), tissue or None, value("threshold"))


def _inside(target: Path, folder: Path) -> bool:
    return target.resolve().is_relative_to(folder.resolve())
