"""write_report(): results in, one HTML file out."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from wsi_twostage.drafts import whole_file
from wsi_twostage.errors import Busy, ConfigError, StoreError, WsiError
from wsi_twostage.events import Listener, Note, Started, TilesDone, ignore
from wsi_twostage.mask import MaskPyramid
from wsi_twostage.report.facts import Facts, facts_of
from wsi_twostage.report.inputs import Found, find
from wsi_twostage.report.layers import Detail, scene_of
from wsi_twostage.report.measure import measure
from wsi_twostage.report.page import Section, render, section_of
from wsi_twostage.target import ensure_target


def write_report(
    results: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    slide: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    listener: Listener = ignore,
) -> Path:
    """Write one self-contained HTML file about results.

    Each result is read once, block by block. A slide that is gone costs its close-ups; a result of a batch
    that cannot be read is a row of the table that says so.

    Parameters
    ----------
    results
        Stores, folders of them, and ``summary.json`` of batches; or one of these.
    slide
        Of one result: where its slide is now; None: where it was.

    Raises
    ------
    ConfigError
        There is no input, or one is none of these; or ``slide`` is given for several results.
    SlideError
        ``slide`` cannot be read.
    StoreError
        ``path`` exists and ``overwrite`` is not given; no result could be read; or ``slide`` is another one.
    WriteError
        ``path`` cannot be written.
    """
    path = Path(path)
    _ensure_free(path, overwrite=overwrite)
    given = [results] if isinstance(results, str | os.PathLike) else results
    if not given:
        raise ConfigError("no results were given for a report")
    found = find([Path(result) for result in given])
    detail, sections, lost = Detail.for_batch(len(found)), list[Section](), list[Found]()
    inside = listener if len(found) == 1 else ignore
    if len(found) > 1:
        if slide is not None:
            raise ConfigError(f"--slide is where the slide of one result is; here are {len(found)}")
        listener(Started("slides", len(found)))
    for one in found:
        if one.path is None:
            lost.append(one)
            continue
        try:
            sections.append(_section(one, one.path, slide, detail, len(sections) + 1, inside))
            if len(found) > 1:
                listener(TilesDone("slides", 1, _megapixels(sections[-1])))
        except WsiError as error:
            reason = str(error).removeprefix(f"{one.path.absolute()}: ")
            if len(found) == 1:
                raise
            listener(Note(f"{one.path}: {reason}"))
            status = "stopped" if one.status == "stopped" or isinstance(error, Busy) else "failed"
            lost.append(Found(one.name, None, status, reason))
    if not sections:
        raise StoreError(
            f"none of {len(found)} results can be read; the first: {lost[0].error or lost[0].name}"
        )
    page = render(_told_apart(sections), lost, datetime.now().astimezone())
    with whole_file(path) as draft:
        draft.write_text(page, encoding="utf-8", errors="replace")  # names may be in any encoding
        _ensure_free(path, overwrite=overwrite)  # again: what came meanwhile is not ours
    return path


def _section(
    found: Found,
    path: Path,
    slide: str | os.PathLike[str] | None,
    detail: Detail,
    number: int,
    listener: Listener,
) -> Section:
    """All of one result."""
    store = MaskPyramid.open(path)
    with store.unreplaced("read"), store.readable():
        facts = facts_of(store, measure(store, listener=listener), slide)
        if found.status == "failed":
            facts = replace(facts, failed=found.error or "it does not say why")
        listener(Started("pictures", 1))
        scene = scene_of(store, facts, detail)
        listener(TilesDone("pictures", 1, scene.width * scene.height / 1e6))
    return section_of(facts, scene, number)


def _told_apart(sections: Sequence[Section]) -> list[Section]:
    """With the results' places in the names of slides that share one, or have several results."""
    places = defaultdict[str, list[Path]](list)
    for section in sections:
        places[section.facts.name].append(section.facts.path)

    def named(facts: Facts) -> Facts:
        same = places[facts.name]
        return replace(facts, name=f"{facts.name} ({_short(facts.path, same)})") if len(same) > 1 else facts

    return [replace(section, facts=named(section.facts)) for section in sections]


def _short(path: Path, among: Sequence[Path]) -> str:
    """As much of the end of ``path`` as tells it from the others."""
    parts = range(1, len(path.parts) + 1)
    ends = (path.parts[-n:] for n in parts if sum(p.parts[-n:] == path.parts[-n:] for p in among) == 1)
    return Path(*next(ends, path.parts)).as_posix()


def _megapixels(section: Section) -> float:
    """Of the mask that was read."""
    return section.facts.spec.height * section.facts.spec.width / 1e6


def _ensure_free(path: Path, *, overwrite: bool) -> None:
    """A report may be written there, and replaces nothing else."""
    if path.suffix.lower() not in (".html", ".htm") and not path.is_dir():
        raise StoreError(f"{path}: the name of a report must end in .html")
    ensure_target(path, overwrite=overwrite)
