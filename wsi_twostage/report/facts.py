"""All that a report says of one result, in numbers and words; read from the store, without HTML."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.audit import Remaining
from wsi_twostage.batch import name_of
from wsi_twostage.errors import StoreError, WsiError
from wsi_twostage.mask import FAILED, MaskPyramid, MaskSpec, Source
from wsi_twostage.models.header import find_bundle, read_spec
from wsi_twostage.models.spec import BundleSpec
from wsi_twostage.pictures import slide_of
from wsi_twostage.report.measure import Measured
from wsi_twostage.slide import Slide

_find_bundle = lru_cache(maxsize=64)(find_bundle)  # results of a batch share a model

Table = Mapping[str, NDArray[Any]]
"""The tile table of a store, column by column."""


@dataclass(frozen=True, slots=True)
class ClassArea:
    """What a class covers."""

    name: str
    colour: tuple[int, int, int]  # red, green, blue
    mm2: float
    share: float  # of the tissue's area
    objects: int


@dataclass(frozen=True, slots=True)
class Audit:
    """A random sample of what the rule left."""

    tiles: int
    """That were asked for."""
    round: int
    left: tuple[Remaining, ...]
    """Empty: the audit was not finished."""

    @property
    def overall(self) -> Remaining | None:
        """Of all classes together; None: not known."""
        return next((part for part in self.left if part.name == "all"), None)


@dataclass(frozen=True, slots=True)
class TileCounts:
    """Tiles of a slide."""

    all: int
    tissue: int
    refined: int
    """Seen by Model 2, for whatever reason."""
    audited: int
    """Of them, those of the audit's random sample."""
    first: int
    """That have Model 1's answer only."""
    unreadable: int
    """Or such that ended their worker."""
    waiting: int
    """Chosen, and not done."""

    @property
    def share(self) -> float:
        """Of the tissue's tiles that Model 2 saw."""
        return self.refined / max(self.tissue, 1)

    @property
    def full(self) -> bool:
        """Whether Model 2 saw all of the tissue."""
        return self.refined == self.tissue


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of one result."""

    path: Path
    name: str
    """Of the slide."""
    spec: MaskSpec
    made: Mapping[str, Any]
    """The store's manifest."""
    table: Table
    counts: TileCounts
    audit: Audit | None
    classes: tuple[ClassArea, ...]
    tissue_mm2: float
    slide: Slide | None
    """None: it is not where it was, or is another one."""
    slide_lost: str
    """Why there is none."""
    model: BundleSpec | None
    """None: its file is not where it was, or is another one."""
    model_path: Path | None
    failed: str = ""
    """Why the batch failed on the slide, whose result here is an earlier one."""

    @property
    def status(self) -> str:
        """One of `result.STATUSES`."""
        if self.failed:
            return "failed"
        if not self.made.get("complete"):
            return "stopped"
        if self.counts.unreadable:
            return "partial"
        return "ok" if self.counts.tissue else "empty"

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """Which rows of the table Model 2 saw because an audit, the last one or an earlier, drew them."""
        rounds = {*self.made.get("audits", ()), self.audit.round if self.audit else -2}
        seen: NDArray[np.bool_] = self.table["source"] == Source.MODEL_2
        return seen & np.isin(self.table["round"], [*rounds])

    @property
    def rules(self) -> tuple[str, ...]:
        """What chose the tiles, one after the other."""
        return (str(self.made.get("rule", "")), *map(str, self.made.get("further", ())))

    @property
    def mean_uncertainty(self) -> float | None:
        """Over the tissue's tiles that Model 1 could read, 0..1."""
        known = self.table["uncertainty"][np.isfinite(self.table["uncertainty"])]
        return float(known.mean()) if len(known) else None

    @property
    def covered(self) -> float | None:
        """Area of all classes over that of the tissue; None without tissue."""
        return sum(part.mm2 for part in self.classes) / self.tissue_mm2 if self.tissue_mm2 else None

    @property
    def tile_seconds(self) -> float | None:
        """Median over the tiles that Model 2 saw."""
        spent = self.table["milliseconds"][np.isfinite(self.table["milliseconds"])]
        return float(np.median(spent)) / 1000 if len(spent) else None

    @property
    def seconds(self) -> Mapping[str, float]:
        """Of the last run on it; empty where it has not ended."""
        return self.made.get("seconds") or {}


def facts_of(store: MaskPyramid, measured: Measured, moved: str | os.PathLike[str] | None = None) -> Facts:
    """Read what a store says of itself; the slide is opened, but not read.

    Raises
    ------
    SlideError, StoreError
        At ``moved``, where the slide is to be by now, is none that can be read, or another one.
    """
    spec, made, table = store.spec, store.manifest, store.tiles()
    audit = _audit(made.get("audit"))
    tissue_mm2 = float(store.read_tissue().sum()) * (spec.overview_downsample * spec.mpp) ** 2 / 1e6
    pixel_mm2 = spec.mpp**2 / 1e6
    classes = tuple(
        ClassArea(
            name, colour, pixels * pixel_mm2, pixels * pixel_mm2 / tissue_mm2 if tissue_mm2 else 0.0, objects
        )
        for name, colour, pixels, objects in zip(
            spec.classes, spec.colours, measured.pixels.tolist(), measured.objects.tolist(), strict=True
        )
    )
    was = str(made["slide"]["path"])
    slide, lost = _slide(store, was) if moved is None else (slide_of(store, moved), "")
    path = _find_bundle(str(made["model"]["path"]), str(made["model"]["sha256"]))
    return Facts(
        path=store.path,
        name=name_of(was),
        spec=spec,
        made=made,
        table=table,
        counts=_counts(table, len(spec.tiles), audit),
        audit=audit,
        classes=classes,
        tissue_mm2=tissue_mm2,
        slide=slide,
        slide_lost=lost,
        model=read_spec(path) if path else None,
        model_path=path,
    )


def _audit(told: Mapping[str, Any] | None) -> Audit | None:
    if not told:
        return None
    parts: Sequence[Mapping[str, Any]] = told.get("left", ())
    left = tuple(Remaining(str(part["name"]), float(part["gap"]), float(part["bound"])) for part in parts)
    return Audit(int(told["tiles"]), int(told["round"]), left)


def _counts(table: Table, tiles: int, audit: Audit | None) -> TileCounts:
    source, numbers = table["source"], table["round"]
    done = np.isin(source, [Source.MODEL_2, *FAILED])
    refined = source == Source.MODEL_2
    return TileCounts(
        all=tiles,
        tissue=len(source),
        refined=int(refined.sum()),
        audited=int((refined & (numbers == audit.round)).sum()) if audit else 0,
        first=int((source == Source.MODEL_1).sum()),
        unreadable=int(np.isin(source, FAILED).sum()),
        waiting=int(((numbers >= 0) & ~done).sum()),
    )


def _slide(store: MaskPyramid, path: str) -> tuple[Slide | None, str]:
    """The slide that made a result, or why it is not to be had."""
    try:
        return slide_of(store), ""
    except StoreError:
        return None, "another file is there now"
    except (WsiError, OSError) as error:
        return None, str(error).removeprefix(f"{path}: ")
