"""What a run says while it works; progress bars and logs subscribe, the library never prints."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Started:
    """A stage knows how much it has to do."""

    stage: str
    total: int
    """Number of tiles of the stage."""


@dataclass(frozen=True, slots=True)
class TilesDone:
    """Some tiles of a stage are finished."""

    stage: str
    tiles: int
    megapixels: float
    """Pixels that went through the network, halo included, in millions."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A stage is complete."""

    stage: str
    seconds: float
    """Wall time of the stage, in seconds."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know, in one line."""

    text: str


Event = Started | TilesDone | Finished | Note
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of those who do not listen."""
