"""Which results a report is of: stores, folders of them, and summaries of batches."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_twostage.batch import name_of
from wsi_twostage.errors import ConfigError, similar_file
from wsi_twostage.mask.layout import read_attributes

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
    return [*seen.values(), *lost]


def _expand(given: Path) -> Iterator[Found]:
    if read_attributes(given) is not None:
        yield Found(given.name.removesuffix(".zarr").removesuffix(".seg.ome"), given)
    elif given.is_dir():
        listed = list(_summary(given / SUMMARY)) if (given / SUMMARY).is_file() else []
        known = {found.path.resolve() for found in listed if found.path}
        results = sorted(path for path in given.iterdir() if read_attributes(path) is not None)
        others = [found for path in results if path.resolve() not in known for found in _expand(path)]
        if not listed and not others:
            raise ConfigError(
                f"{given}: a folder without results; give results of wsi-seg, or a folder of them"
            )
        yield from (*listed, *others)
    elif given.is_file() and given.suffix == ".json":
        yield from _summary(given)
    else:
        what = "is not a result of wsi-seg, a folder of results or a summary.json"
        raise ConfigError(f"{given}: {what if given.exists() else f'does not exist{similar_file(given)}'}")


def _summary(path: Path) -> Iterator[Found]:
    """Lines of a batch's summary; outputs are looked for where they are named, then beside the summary."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        told = [(str(r["slide"]), str(r["output"]), str(r["status"]), str(r["error"])) for r in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read as the summary of a batch ({error!r})") from error
    for slide, output, status, reason in told:
        places = (Path(output), path.parent / output, path.parent / Path(output).name)
        store = next((place for place in places if read_attributes(place) is not None), None)
        if store is None and not reason:
            reason = f"its result, {output}, is not there" if status not in ("skipped",) else ""
        yield Found(name_of(slide), store, status, reason)
