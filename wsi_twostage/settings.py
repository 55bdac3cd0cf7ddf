"""Settings: how a run is made, checked before anything is opened."""

import math
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

from distributed import Client

from wsi_twostage import cluster
from wsi_twostage.audit import LEAST
from wsi_twostage.errors import ConfigError, did_you_mean, similar_file
from wsi_twostage.tissue import TISSUES
from wsi_twostage.uncertainty import ensure_uncertainty
from wsi_twostage.watchdog import PATIENCE_S


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run is made; what is refined is said by the rule."""

    mpp: float | None = None
    """Of the slide's level 0, in um per pixel; wins over the file."""
    reader: str = "auto"
    """Or ``tiff``, ``openslide``, ``zarr``, ``image``."""
    tissue: str = "otsu"
    """``otsu``, ``none`` to take every tile for tissue, or a file that says it (`tissue_file`)."""
    uncertainty: str = "entropy"
    """Or ``margin``, ``expected_gain``, ``paper``."""
    device: str = "auto"
    """Or ``cpu``, ``cuda``, ``cuda:1``, ..."""
    precision: str = "fp32"
    """Or ``bf16``, ``fp16``."""
    engine: str = "torch"
    """Or ``openvino``, on a CPU."""
    workers: int | None = None
    """Threads on this machine; None: the cores that it may use."""
    processes: int | None = None
    """Over which those threads are spread; None: they run in this one."""
    scheduler: str | None = None
    """Address or file of a running Dask scheduler."""
    patience: float = PATIENCE_S
    """Seconds for a window, before a worker process counts as hanging."""
    audit: int | None = None
    """Tiles of a random sample from which the gap that is left is estimated (`audit`); they are refined."""
    until: float | None = None
    """When the run ends, complete or not, in seconds of `time.time`."""
    overwrite: bool = False
    """Replace a result of ours; nothing else is ever replaced."""

    def __post_init__(self) -> None:
        ensure_uncertainty(self.uncertainty)
        if self.tissue not in TISSUES and not os.path.isfile(self.tissue):
            near = did_you_mean(self.tissue, TISSUES) or similar_file(self.tissue)
            raise ConfigError(
                f"tissue={self.tissue!r}; use {', '.join(TISSUES)} or a mask image or GeoJSON{near}"
            )
        for name, count in (("workers", self.workers), ("processes", self.processes)):
            if count is not None and count < 1:
                raise ConfigError(f"{name}={count}; at least 1")
        if self.scheduler is not None and (self.workers or self.processes):
            raise ConfigError("a scheduler has workers of its own; leave workers and processes away")
        if not self.patience > 0:
            raise ConfigError(f"patience={self.patience:g}; more than 0 s")
        if self.until is not None and math.isnan(self.until):
            raise ConfigError("a run cannot end at nan; give seconds")
        if self.audit is not None and self.audit < LEAST:
            raise ConfigError(f"audit={self.audit} tiles say nothing; at least {LEAST}, better 50")

    def connect(self, client: Client | None = None) -> AbstractContextManager[Client]:
        """The cluster that these say, or ``client``."""
        return cluster.connect(
            workers=self.workers, processes=self.processes, scheduler=self.scheduler, client=client
        )
