"""What a run gives back: the mask, what was refined, and where the time went."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from wsi_twostage.errors import ConfigError
from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.work import Clock

if TYPE_CHECKING:
    from wsi_twostage.export import Exported, Options

STATUSES = ("ok", "done", "empty", "partial", "stopped", "skipped", "failed")
"""How a slide's run ends; ``failed`` is one without a result, ``skipped`` one that was not begun."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Tiles of a slide."""

    tiles: int
    tissue: int
    refined: int
    unreadable: int
    crashed: int = 0
    """That ended their worker each time."""
    changed: int = 0
    """Pixels of the mask to which Model 2 gave another label than Model 1."""

    @property
    def failed(self) -> int:
        """Tiles that lack an answer which they should have."""
        return self.unreadable + self.crashed

    def as_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Seconds:
    """Wall time of a run, and what its threads did; in seconds, summed over threads but for walls."""

    total: float
    """Wall, from the call to the end."""
    overview: float
    stage_1: float
    selection: float
    stage_2: float
    audit: float
    """Wall times, overview to audit."""
    read: float
    model_1: float
    model_2: float
    write: float
    """Labels, probabilities and levels: made, compressed and written."""
    network_share: float
    """Part of all thread time, over the whole wall time, that went to the networks; 0..1."""

    @classmethod
    def of(cls, total: float, walls: Mapping[str, float], clocks: Mapping[str, Clock], threads: int) -> Self:
        first, second = clocks["stage 1"], clocks["stage 2"]
        return cls(
            total=total,
            overview=walls.get("overview", 0.0),
            stage_1=walls.get("stage 1", 0.0),
            selection=walls.get("selection", 0.0),
            stage_2=walls.get("stage 2", 0.0),
            audit=walls.get("audit", 0.0),
            read=first.read + second.read,
            model_1=first.network,
            model_2=second.network,
            write=first.write + second.write,
            network_share=(first.network + second.network) / (total * threads),
        )

    def as_json(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Result:
    """A run that has ended."""

    store: MaskPyramid
    counts: Counts
    """``tiles``, and of these ``tissue``, ``refined``, ``unreadable`` and ``crashed``; pixels ``changed``."""
    seconds: Seconds
    """``total`` and each step's wall time; what the threads did; ``network_share`` of their time, 0..1."""
    complete: bool = True
    """Whether Model 2 has seen all that the rule gave it; else the same call goes on."""
    before: bool = False
    """Whether all of it was done before."""
    audit: tuple[dict[str, Any], ...] = ()
    """If a sample was asked for: ``name``, ``gap`` (1 - Dice to refining all) and its ``bound``, 0..1."""

    @property
    def status(self) -> str:
        """How it ended.

        ``stopped``: not complete. ``partial``: there are tiles that failed. ``empty``: there is no tissue.
        ``done``: there was nothing left to do. Else ``ok``.
        """
        if not self.complete:
            return "stopped"
        if self.counts.failed or not self.counts.tissue:
            return "partial" if self.counts.failed else "empty"
        return "done" if self.before else "ok"

    @property
    def tiles(self) -> dict[str, NDArray[Any]]:
        """The tile table: one row per tissue tile."""
        return self.store.tiles()

    @property
    def audited(self) -> int:
        """Tiles that Model 2 saw since the audit drew them; fewer than it asked for where few were left."""
        told = self.store.manifest.get("audit")
        if not told:
            return 0
        tiles = self.tiles
        return int(((tiles["round"] == told["round"]) & (tiles["source"] == Source.MODEL_2)).sum())

    def mask(self, mpp: float) -> Any:
        """The labels as a lazy dask array (rows, cols) uint8, at the coarsest level up to ``mpp``.

        Raises
        ------
        ConfigError
            ``mpp`` is not above 0, or not finite.
        """
        if not 0 < mpp < np.inf:
            raise ConfigError(f"mpp={mpp:g}; it must be above 0, and finite")
        finest = self.store.spec.mpp
        level = int(np.clip(np.floor(np.log2(mpp / finest) + 1e-6), 0, self.store.levels - 1))
        return self.store.lazy(level)

    def plot(self, *layers: str, axes: Any = None, side_px: int = 1000) -> list[Any]:
        """Slide with outlines, uncertainty, and which model was where, as matplotlib axes in millimetres.

        As `wsi_twostage.notebook.plot`; needs the extra ``plot``.

        >>> result.plot("slide", "model")[0].figure.savefig("result.png")  # doctest: +SKIP
        """
        from wsi_twostage.notebook import plot

        return plot(self.store, *layers, axes=axes, side_px=side_px)

    def export(
        self,
        target: str | os.PathLike[str] | None = None,
        *,
        to: str | None = None,
        options: "Options | None" = None,
        overwrite: bool = False,
    ) -> "Exported":
        """Write the mask in a format of other programs, as `wsi_twostage.export.export`.

        >>> result.export("cells.geojson")  # doctest: +SKIP
        """
        from wsi_twostage.export import export

        return export(self.store, target, to=to, options=options, overwrite=overwrite)

    def __fspath__(self) -> str:
        """Where the store is: a result can be given wherever its path can."""
        return str(self.store.path)

    def _repr_html_(self) -> str:
        """What Jupyter shows: a small picture and a few facts."""
        from wsi_twostage.notebook import html_of

        counts = self.counts
        share = counts.refined / counts.tissue if counts.tissue else 0.0
        facts = {
            "tissue": f"{counts.tissue:,} of {counts.tiles:,} tiles of {self.store.spec.tile} px",
            "refined": f"{counts.refined:,} tiles, {share:.1%} of the tissue ({self.store.manifest['rule']})",
            "status": self.status,
            "time": f"{self.seconds.total:.1f} s",
        }
        if counts.failed:
            facts["failed"] = f"{counts.failed:,} tiles"
        for one in self.audit:
            facts[f"estimated gap, {one['name']}"] = f"{one['gap']:.4f}, at most {one['bound']:.4f}"
        return html_of(self.store, facts)

    def _repr_png_(self) -> bytes:
        """For front ends that show no HTML."""
        from wsi_twostage.notebook import png_of

        return png_of(self.store)
