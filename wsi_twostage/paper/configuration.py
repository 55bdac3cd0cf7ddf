"""Experiments as users name and change them: a row, a TOML file, KEY=VALUE."""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from wsi_twostage.errors import ConfigError, did_you_mean
from wsi_twostage.paper.experiment import Experiment
from wsi_twostage.paper.rows import row


def is_experiment(config: str) -> bool:
    """Whether a configuration is an experiment, by name or file, and not the recipe of a bundle."""
    path = Path(config)
    if not path.is_file():
        return path.suffix != ".toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False  # whoever reads it next says what is wrong
    return bool({"row", "architecture"} & content.keys()) or isinstance(content.get("data"), str)


def read_experiment(config: str, changes: Sequence[str] = ()) -> Experiment:
    """A row by name, or a TOML file: the fields of `Experiment`, and ``row``, the one it starts from.

    Parameters
    ----------
    changes
        ``key=value`` with values as in TOML; a bare word is text.

    Raises
    ------
    ConfigError
        No such row or file, or a value that does not fit.
    """
    path = Path(config)
    if path.is_file():
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not a TOML file ({error})") from error
        base = asdict(row(str(content.pop("row")))) if "row" in content else {}
        experiment = _make({**base, "name": path.stem, **content}, str(path))
    else:
        experiment = row(config)
    return _make({**asdict(experiment), **dict(_change(text) for text in changes)}, experiment.name)


def _make(content: dict[str, Any], where: str) -> Experiment:
    kinds = {f.name: f.type for f in fields(Experiment)}
    if unknown := sorted(set(content) - set(kinds)):
        near = did_you_mean(unknown[0], kinds)
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(kinds)}{near}")
    values = {}
    for key, value in content.items():
        if key == "thresholds":
            listed = value if isinstance(value, list | tuple) else [value]
            fits = all(isinstance(v, int | float) and not isinstance(v, bool) for v in listed)
            value = tuple(float(v) for v in listed) if fits else value
        else:
            kind: Any = kinds[key]
            fits = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                fits, value = True, float(value)
        if not fits:
            raise ConfigError(f"{where}: {key}={value!r} is of the wrong kind")
        values[key] = value
    try:
        return Experiment(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _change(text: str) -> tuple[str, Any]:
    key, found, value = text.partition("=")
    if not found:
        raise ConfigError(f"--set {text}: expected KEY=VALUE, such as side=256")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def as_toml(experiment: Experiment) -> str:
    """The experiment as a file that `read_experiment` reads."""
    lines = []
    for key, value in asdict(experiment).items():
        if isinstance(value, bool):
            text = str(value).lower()
        elif isinstance(value, tuple):
            text = str(list(value))
        else:
            text = f'"{value}"' if isinstance(value, str) else str(value)
        lines.append(f"{key} = {text}")
    return "\n".join(lines)
