"""Which results a report is of: stores, folders of them, and summaries of batches."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_twostage.batch import name_of
from wsi_twostage.errors import ConfigError, similar_file
from wsi_twostage.mask.layout import OURS, read_attributes
from wsi_twostage.summary import is_summary

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Found:
    """A result, or a slide of a batch that has none."""

    name: str
    """Of the slide."""
    path: Path | None
    """Of the store."""
    status: str = ""
    """As a batch's summary says it; empty: there was none."""
    error: str = ""


def find(inputs: Sequence[Path]) -> list[Found]:
    """What is behind results, folders and ``summary.json``, each result once.

    Raises
    ------
    ConfigError
        An input is none of these, or there is no result in it.
    """
    seen: dict[Path, Found] = {}
    lost: list[Found] = []
    for given in inputs:
        for found in _expand(given):
            if found.path is None:
                lost.append(found)
            else:
                seen.setdefault(found.path.resolve(), found)
    if not seen and not lost:
        raise ConfigError(f"{inputs[0]}: the summary of a batch without slides")
    return [*seen.values(), *lost]


def _expand(given: Path) -> Iterator[Found]:
    if _is_result(given):
        yield Found(_slide_of(given), given)
    elif given.is_dir():
        place = given / SUMMARY
        rows = _read(place) if place.is_file() else []
        listed = list(_lines(place, rows)) if is_summary(rows) else []
        known = {found.path.resolve() for found in listed if found.path}
        results = sorted(filter(_is_result, given.iterdir()))
        others = [Found(_slide_of(path), path) for path in results if path.resolve() not in known]
        if not listed and not others:
            raise ConfigError(
                f"{given}: a folder without results; give results of wsi-seg, or a folder of them"
            )
        yield from (*listed, *others)
    elif given.is_file() and given.suffix == ".json":
        yield from _lines(given, _read(given))
    else:
        what = "is not a result of wsi-seg, a folder of results or a summary.json"
        raise ConfigError(f"{given}: {what if given.exists() else f'does not exist{similar_file(given)}'}")


def _slide_of(result: Path) -> str:
    """The slide's name, of a result that was not renamed."""
    return result.name.removesuffix(".zarr").removesuffix(".seg.ome")


def _is_result(path: Path) -> bool:
    """Also one that is damaged, which is to be said."""
    return read_attributes(path) is not None or (path.suffix == ".zarr" and os.path.isdir(path / OURS))


def _read(path: Path) -> Any:
    """What a file holds that may be a batch's summary."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _no_summary(path, error) from error


def _no_summary(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path}: cannot be read as the summary of a batch ({error!r})")


def _lines(path: Path, rows: Any) -> Iterator[Found]:
    """Of a batch's summary; relative outputs are looked for beside it before they are from here."""
    try:
        told = [(str(r["slide"]), str(r["output"]), str(r["status"]), str(r["error"])) for r in rows]
    except (KeyError, TypeError) as error:
        raise _no_summary(path, error) from error
    for slide, output, status, reason in told:
        named = Path(output)
        ends = [path.parent / Path(*named.parts[i:]) for i in range(len(named.parts))]
        places = [named, *ends] if named.is_absolute() else [*ends, named]
        store = next(filter(_is_result, places), None)
        if store is None and not reason and status != "skipped":
            status, reason = "failed", f"its result, {output}, is not there"
        yield Found(name_of(slide), store, status, reason)
