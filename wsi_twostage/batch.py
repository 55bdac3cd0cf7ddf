"""Which slides a batch has, where their results go, and its summary."""

import csv
import glob
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_twostage.drafts import draft_of, whole_file
from wsi_twostage.errors import ConfigError, WriteError
from wsi_twostage.tissue import TISSUES

if TYPE_CHECKING:
    from wsi_twostage.settings import Settings

SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".png", ".jpg", ".jpeg",
)  # fmt: skip
"""What is taken for a slide in a folder, beside OME-Zarr; of DICOM each file is only a part of one."""

COLUMNS = ("wsi", "mpp", "mask", "threshold", "output")
"""Of a CSV manifest; others are passed over."""

WRITING = 20
"""Times what writing the summary took, until it is written again while slides end."""

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
        raise ConfigError(
            f"--output {output}: a result is a folder, {output.stem}.ome.zarr; `wsi-seg export` makes "
            f"{output.suffix} of it"
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


@dataclass(frozen=True, slots=True)
class Line:
    """How one slide of a batch ended."""

    slide: str
    output: str
    status: str
    """One of `result.STATUSES`."""
    error: str = ""
    tissue: int = 0
    refined: int = 0
    unreadable: int = 0
    crashed: int = 0
    seconds: float = 0.0


class Summary:
    """Of a batch, written as its slides end; of many that end at once not each time.

    What it says of other results, which earlier batches made, stays.
    """

    def __init__(self, folder: Path, entries: Sequence[Entry]) -> None:
        self._folder, self._entries, self._lines = folder, entries, dict[Entry, Line]()
        self._written = self._took = 0.0
        ours = {os.path.abspath(entry.output) for entry in entries}
        before = _lines_of(folder / "summary.json")
        self._before = [line for line in before if os.path.abspath(line.output) not in ours]

    def ensure_ours(self) -> None:
        """Raise ConfigError if a file of another kind has the name of a summary; it would be replaced."""
        for name, is_ours in (("summary.csv", _is_csv), ("summary.json", _is_json)):
            place = self._folder / name
            if place.exists() and not is_ours(place):
                raise ConfigError(
                    f"{place}: no summary of wsi-seg, and one would replace it; rename it, or give another "
                    f"--output"
                )

    def ensure_writable(self) -> None:
        """Raise WriteError if it cannot be written; what is there stays."""
        place = self._folder / "summary.csv"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with draft_of(place):
                pass
        except OSError as error:
            raise WriteError.of(place, error) from error

    def add(self, entry: Entry, line: Line) -> None:
        """How a slide ended; on disk at once, unless that took too much of the time."""
        self._lines[entry] = line
        if time.perf_counter() - self._written >= WRITING * self._took:
            self.write()

    def write(self) -> Path:
        """All there is; gives the place of the first file, and raises as `write_summary`."""
        start = time.perf_counter()
        lines = [self._lines[entry] for entry in self._entries if entry in self._lines]
        place = write_summary(self._folder, [*self._before, *lines])
        self._written = time.perf_counter()
        self._took = self._written - start
        return place


def _is_csv(path: Path) -> bool:
    """Whether a file is the table of a summary."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            return file.readline().startswith("slide,output,status,")
    except (OSError, ValueError):
        return False


def _lines_of(path: Path) -> list[Line]:
    """Of a summary; none where there is none, or one of another version."""
    try:
        return [Line(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _is_json(path: Path) -> bool:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(rows, list) and all(isinstance(row, dict) and "status" in row for row in rows)


def write_summary(folder: Path, lines: Iterable[Line]) -> Path:
    """``summary.json`` and ``summary.csv``, each whole or as it was; gives the first.

    Raises
    ------
    WriteError
        The folder cannot be written to.
    """
    rows: list[dict[str, Any]] = [{name: getattr(line, name) for name in Line.__slots__} for line in lines]
    with (
        whole_file(folder / "summary.csv") as draft,
        draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,  # whatever the names
    ):
        writer = csv.DictWriter(file, Line.__slots__)
        writer.writeheader()
        writer.writerows(rows)
    with whole_file(place := folder / "summary.json") as draft:
        draft.write_text(json.dumps(rows, indent=2) + "\n")
    return place
