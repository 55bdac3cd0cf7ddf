"""Where a training stands, in one safetensors file: networks, Adam, and whatever else goes on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from wsi_twostage.drafts import whole_file
from wsi_twostage.errors import ConfigError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """The file appears whole or not at all."""
    with whole_file(path) as draft:
        draft.write_bytes(save(dict(tensors), metadata))  # save_file would make it this user's alone


def read_metadata(path: Path) -> dict[str, str]:
    """What was written beside the tensors."""
    with _sound(path), safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """What `write_tensors` wrote."""
    with _sound(path):
        return load_file(path)


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: damaged ({error}); remove it, and train again") from error


def write_state(
    path: Path,
    nets: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    metadata: dict[str, str],
    more: Mapping[str, Tensor] | None = None,
) -> None:
    """Networks by name, the optimiser, and ``more`` tensors; replaced atomically."""
    tensors = {
        f"{name}.{key}": value for name, net in nets.items() for key, value in net.state_dict().items()
    }
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors |= {f"more.{key}": value for key, value in (more or {}).items()}
    kept = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_tensors(path, kept, metadata)


def read_state(
    path: Path, nets: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Put networks and optimiser back as `write_state` left them; gives ``more``, and the metadata."""
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in (*nets, "adam", "more")}
    with _sound(path), safe_open(path, "pt") as file:  # once: another process may replace it
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # else mapped
        metadata = file.metadata() or {}
    for name, value in tensors.items():
        part, _, key = name.partition(".")
        parts[part][key] = value
    for name, net in nets.items():
        net.load_state_dict(parts[name])
    adam: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["adam"].items():
        index, _, key = name.partition(".")
        adam.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": adam})
    return parts["more"], dict(metadata)
