"""What a training run is: one TOML file, checked before anything is read."""

import math
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin

from wsi_twostage.errors import ConfigError, did_you_mean, similar_file
from wsi_twostage.models.spec import STRIDE, NetSpec
from wsi_twostage.training.augment import Augmentation

SEEDS = 1 << 32  # numpy takes no larger one


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Folders below the data root, and how they are split."""

    folders: tuple[str, ...]
    colour_only: tuple[str, ...] = ()
    seed: int = 0
    test: float = 0.2
    validation: float = 0.08

    def __post_init__(self) -> None:
        if not self.folders or len(set(self.folders)) < len(self.folders):
            raise ConfigError(f"folders={list(self.folders)}; expected one or more, each once")
        if min(self.test, self.validation) < 0 or not self.test + self.validation < 1:
            raise ConfigError(
                f"test={self.test} and validation={self.validation}; expected shares below 1 together"
            )
        if not 0 <= self.seed < SEEDS:
            raise ConfigError(f"seed={self.seed}; expected 0 to {SEEDS - 1}")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that decides the weights; two runs of one config on one machine give the same ones."""

    name: str
    data: DataConfig
    coarse: NetSpec
    fine: NetSpec
    augmentation: Augmentation = field(default_factory=Augmentation)
    context: bool = True
    ratio: int = 4
    mpp: float = 0.25
    """Of the images, in um per pixel."""
    side: int = 256
    """Edge of Model 2's crops, in px."""
    margin: int = 16
    """Model 1 sees this many coarse px more on each side."""
    image_side: int = 512
    batch: int = 32
    steps: int = 10000
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 300
    average: float = 0.999
    """Decay of the averaged weights that are kept."""
    dice_weight: float = 1.0
    coarse_dice_weight: float = 0.3
    bf16: bool = True
    """Networks in bfloat16 while training; on a CPU that pays with AMX or AVX512_BF16."""
    blend: float = 1.0
    """Share of this run's weights in what it leaves; the rest is what it started from (WiSE-FT)."""
    keep_norms: bool = False
    """Leave the batch norms' statistics as they are: for short runs with small batches."""
    distil: float = 0.5
    """Share of Model 2's answer in Model 1's target."""
    seed: int = 0
    card: dict[str, Any] = field(default_factory=dict, repr=False)
    """What else the bundle's card says: data, licence, history; not in what tells checkpoints apart."""
    label: str = field(default="nucleus", repr=False)
    """Name of the class; not in what tells checkpoints apart."""

    def __post_init__(self) -> None:
        for key, sound, wanted in (
            ("steps", self.steps >= 0, "0 or more"),
            ("batch", self.batch >= 1, "1 or more"),
            ("side", self.side >= 1, "1 px or more"),
            ("image_side", self.image_side >= 1, "1 px or more"),
            ("margin", self.margin >= 0, "0 px or more"),
            ("warmup", self.warmup >= 0, "0 or more"),
            ("ratio", self.ratio >= 1 and self.ratio & (self.ratio - 1) == 0, "a power of two"),
            ("mpp", 0 < self.mpp < math.inf, "a number above 0"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
            ("average", 0 <= self.average <= 1, "a number within 0..1"),
            ("blend", 0 <= self.blend <= 1, "a number within 0..1"),
            ("distil", 0 <= self.distil <= 1, "a number within 0..1"),
            ("seed", 0 <= self.seed < SEEDS, f"0 to {SEEDS - 1}"),
            ("label", self.label, "the name of a class"),
        ):
            if not sound:
                raise ConfigError(f"{key}={getattr(self, key)!r}; expected {wanted}")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A run, and runs that go on from it.

    The runs of one step start from the same weights, differ in seed or augmentation, and end in the mean
    of their weights (Wortsman et al., Model soups, ICML 2022).
    """

    first: TrainConfig
    then: tuple[tuple[TrainConfig, ...], ...] = ()
    student: TrainConfig | None = None
    """A Model 1 of its own, taught by the Model 2 of the runs before; their Model 1 stays as its context."""

    @property
    def runs(self) -> tuple[tuple[TrainConfig, ...], ...]:
        """All steps, each with its runs."""
        return ((self.first,), *self.then)


def read_recipe(path: Path) -> Recipe:
    """Read and check a TOML file: one run, and what changes after it in ``[[then]]`` and ``[student]``.

    Raises
    ------
    ConfigError
        Not TOML, an unknown key, or a value of the wrong kind.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = similar_file(path) if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{path}: cannot be read ({error.strerror}){hint}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from error
    later, student = content.pop("then", []), content.pop("student", None)
    steps = []
    if not isinstance(later, list) or not all(isinstance(table, dict) for table in later):
        raise ConfigError(f"{path}: then={later!r}; expected tables, [[then]]")
    if not isinstance(student, dict | None):
        raise ConfigError(f"{path}: student={student!r}; expected a table, [student]")
    for i, table in enumerate(later, 1):
        where = f"{path}: [[then]] {i}"
        shared = {key: value for key, value in table.items() if key != "branches"}
        branches = table.get("branches", [{}])
        if not branches or not all(isinstance(branch, dict) for branch in branches):
            raise ConfigError(f"{where}: branches={branches!r}; expected one or more tables")
        steps.append(tuple(_config({**content, **shared, **branch}, where) for branch in branches))
    last = None if student is None else _config({**content, **student}, f"{path}: [student]")
    return Recipe(_config(content, str(path)), tuple(steps), last)


def _config(content: dict[str, Any], where: str) -> TrainConfig:
    parts = {"data": DataConfig, "coarse": NetSpec, "fine": NetSpec, "augmentation": Augmentation}
    made = {
        key: _make(parts[key], value, f"{where}: [{key}]") for key, value in content.items() if key in parts
    }
    config: TrainConfig = _make(TrainConfig, {**content, **made}, where)
    if (config.side + 2 * config.margin * config.ratio) % (STRIDE * config.ratio) or config.side % STRIDE:
        raise ConfigError(
            f"{where}: side={config.side} and margin={config.margin} give crops that do not fit networks of "
            f"stride {STRIDE}; side=256 and margin=16 do"
        )
    return config


def _make(kind: Any, table: object, where: str) -> Any:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table, got {table!r}")
    known = {f.name: f.type for f in fields(kind)}
    if unknown := sorted(set(table) - set(known)):
        near = did_you_mean(unknown[0], known)
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}{near}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    if wrong := [key for key, value in values.items() if not _fits(value, known[key])]:
        raise ConfigError(f"{where}: {wrong[0]}={table[wrong[0]]!r} is of the wrong kind")
    try:
        return kind(**values)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of a field's kind; a whole number is a number, too, and a bool is none."""
    plain = get_origin(kind) or kind
    if plain is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(kind)[0]) for item in value)
    if isinstance(value, bool):
        return plain is bool
    return isinstance(value, (int, float) if plain is float else plain)
