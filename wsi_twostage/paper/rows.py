"""Experiments by name: the rows of Tables 3 and 4, and the same ones in our way."""

from collections.abc import Sequence
from typing import Any

from wsi_twostage.errors import ConfigError, did_you_mean
from wsi_twostage.paper.datasets import DATASETS
from wsi_twostage.paper.experiment import Experiment
from wsi_twostage.paper.networks import ARCHITECTURES

OURS: dict[str, Any] = {
    "network": "default",
    "uncertainty": "entropy",
    "model2": "reference",
    "context": False,
    "halo": 16,
    "upsampling": "bilinear",
    "loss": "bce_dice",
    "labels": "fine",
    "distil": 0.5,
    "learning_rate": 5e-4,
    "schedule": "cosine",
}
"""What differs from the paper in the rows whose name starts with ``ours-``."""

TABLE4: dict[str, dict[str, Any]] = {
    "patches-4": {"patches": 4},
    "patches-64": {"patches": 64},
    "patches-256": {"patches": 256},
    "random": {"selection": "random"},
    "highest": {"selection": "highest"},
    "no-fine-tune": {"model2": "scratch"},
    "no-context": {"context": False},
}
"""What the rows of Table 4 change in DeepLab's row of Table 3."""
OURS_CHANGES = [change for change in TABLE4 if change.startswith("patches-")]
"""What ours can be changed in; its Model 2 is the reference, which the others do not touch."""
ALL_THRESHOLDS = (1.0, 0.75, 0.5, 0.25, 0.0)


def rows(table: int, sets: Sequence[str] = ("bdd", "kitti", "bowl", "ph2")) -> list[str]:
    """Names of the experiments that a table needs, those of Table 4 without what Table 3 has."""
    if table == 3:
        return [f"{architecture}-{data}" for data in sets for architecture in ARCHITECTURES]
    return [f"deeplab-{data}-{change}" for data in sets for change in TABLE4]


def _names() -> list[str]:
    """Of all rows, the paper's and ours."""
    plain = rows(3, tuple(DATASETS))
    ours = plain + [f"deeplab-{data}-{change}" for data in DATASETS for change in OURS_CHANGES]
    return plain + rows(4, tuple(DATASETS)) + [f"ours-{name}" for name in ours]


def row(name: str) -> Experiment:
    """The experiment of a name: ``ARCHITECTURE-DATA``, ``deeplab-DATA-CHANGE``, ``ours-ARCHITECTURE-DATA``.

    Raises
    ------
    ConfigError
        No such row.
    """
    ours = name.startswith("ours-")
    architecture, _, rest = name.removeprefix("ours-").partition("-")
    data, _, change = rest.partition("-")
    changes = ("", *(OURS_CHANGES if ours else TABLE4))
    if architecture not in ARCHITECTURES or data not in DATASETS or change not in changes:
        raise ConfigError(
            f"{name}: no such file, and no row of a table; rows are, for example, unet-bowl, "
            f"deeplab-bowl-patches-4, ours-unet-bowl{did_you_mean(name, _names())}"
        )
    values: dict[str, Any] = {**(OURS if ours else {}), **TABLE4.get(change, {})}
    if architecture == "deeplab" and not change:
        values["thresholds"] = ALL_THRESHOLDS  # Table 4 (3)
    return Experiment(name, data, architecture, **values)
