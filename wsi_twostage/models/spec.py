"""What a bundle says of itself: its networks' shapes, and how they are used. No tensors."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from wsi_twostage.errors import BundleError, ConfigError

STRIDE = 32  # sides of a network's input must be multiples of it
LARGEST_TILE = 2048  # px: a tile lies in one shard of the mask
CONTEXT_STRIDE = 4  # of the map that context joins: one pixel of a level four times coarser
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
MOST_CHANNELS = 4096  # of a step of a decoder


@dataclass(frozen=True, slots=True)
class NetSpec:
    """A U-Net's decoder."""

    widths: tuple[int, ...]
    """Channels at strides 16, 8, 4, 2, 1."""
    depths: tuple[int, ...]
    """Convolutions of each step."""
    scale: int = 1
    """Logits are this many times finer than the input."""

    def __post_init__(self) -> None:
        if (len(self.widths), len(self.depths)) != (5, 5):
            raise ConfigError(
                f"widths={list(self.widths)} and depths={list(self.depths)}; expected five of each, at "
                f"strides 16, 8, 4, 2 and 1"
            )
        numbers = (*self.widths, *self.depths, self.scale)
        if not all(isinstance(number, int) and 1 <= number <= MOST_CHANNELS for number in numbers):
            raise ConfigError(
                f"widths={list(self.widths)}, depths={list(self.depths)}, scale={self.scale}; expected whole "
                f"numbers, 1 up to {MOST_CHANNELS}"
            )


@dataclass(frozen=True, slots=True)
class Contract:
    """How both networks are fed, and what their answers are."""

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Of red, green and blue in 0..1; taken from the input."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """By which the input is divided then."""
    multiple: int = STRIDE
    """The sides of an input are padded to multiples of this, in pixels, and the answer is cut again."""
    probabilities: bool = False
    """Whether the answers are these, not logits."""

    def __post_init__(self) -> None:
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if len(self.mean) != 3 or len(self.std) != 3 or not finite or min(self.std) <= 0:
            raise ConfigError(
                f"mean={self.mean}, std={self.std}; three numbers each, of red, green and blue in 0..1, "
                f"std above 0"
            )
        if min(self.mean) < 0 or max(self.mean) > 1:
            raise ConfigError(f"mean={self.mean}; expected 0..1: divide those of 0..255 by 255, and std, too")
        if self.multiple < 1:
            raise ConfigError(f"multiple={self.multiple} px; at least 1")


@dataclass(frozen=True, slots=True)
class Calibration:
    """What thresholds cost on slides that Model 2 saw everywhere; see `quality`."""

    cases: int
    unit: str
    """What a case is: slides or images."""
    threshold: tuple[float, ...]  # rising
    gap: tuple[float, ...]
    """1 - Dice to the reference at each threshold: of each case never falling, mean over the cases."""
    refined: tuple[float, ...]
    """Share of the tiles that are refined, mean over the cases."""
    uncertainty: str = "entropy"
    """What the thresholds are of."""
    tissue: str = ""
    """How the cases were seen: as `Settings` say it, or ``file``; empty if not known, or not all alike."""
    precision: str = ""
    """Likewise."""

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.threshold, self.threshold[1:], strict=False))
        alike = 0 < len(self.threshold) == len(self.gap) == len(self.refined)
        finite = all(map(math.isfinite, (*self.threshold, *self.gap, *self.refined)))
        if self.cases < 1 or not (rising and alike and finite):
            raise BundleError(
                f"calibration: cases={self.cases}, {len(self.threshold)} thresholds, {len(self.gap)} gaps, "
                f"{len(self.refined)} shares; expected a case or more, rising thresholds, as many of each, "
                f"all of them numbers"
            )


@dataclass(frozen=True, slots=True)
class BundleSpec:
    """How the two networks are used; the header of the file."""

    name: str
    mpp: float
    """Of Model 2's level, in um per pixel."""
    classes: tuple[str, ...]
    """Names of the labels 1, 2, ..."""
    colours: tuple[tuple[int, int, int], ...]
    ratio: int = 4
    """Fine pixels per pixel of Model 1's level."""
    scale: int = 1
    """Pixels of Model 1's answer per pixel of its level."""
    tile: int = 512  # fine pixels
    halo: int = 32  # fine pixels that Model 2 sees around a tile
    coarse_halo: int = 48  # pixels of Model 1's level that Model 1 sees around its window
    context_halo: int = 48  # pixels of the context's level, four times coarser, around Model 2's window
    threshold: float = 0.5
    """Uncertainty from which a tile is refined, unless the user says otherwise."""
    temperature: float = 1.0
    decisions: tuple[float, float] = (0.5, 0.5)
    """Probability from which a pixel is foreground, by Model 1 and by Model 2; for one class."""
    coarse: NetSpec | None = None
    fine: NetSpec | None = None
    context: bool = True
    """Whether Model 2 takes another network's features."""
    context_net: NetSpec | None = None
    """That network; None: Model 1."""
    contract: Contract | None = None
    """How networks that were made elsewhere are used; None: they are those of `coarse` and `fine`."""
    calibration: Calibration | None = None
    card: dict[str, Any] = field(default_factory=dict, hash=False)
    """Data, licence, split, seed, figures, date: for people."""

    def __post_init__(self) -> None:
        _ensure_sound(self)
        halos = (2 * self.halo, 2 * self.coarse_halo, 2 * self.context_halo)
        if self.tile % (STRIDE * max(self.ratio, CONTEXT_STRIDE)) or any(halo % STRIDE for halo in halos):
            raise BundleError(
                f"{self.name}: tile={self.tile}, halo={self.halo}, coarse_halo={self.coarse_halo}, "
                f"context_halo={self.context_halo} do not fit networks of stride {STRIDE} at "
                f"ratio {self.ratio}"
            )
        if self.coarse and self.context and not self.context_net and self.ratio != CONTEXT_STRIDE:
            raise BundleError(
                f"{self.name}: context joins at stride {CONTEXT_STRIDE}; ratio={self.ratio} does not: give "
                f"context=false, or a [student] of that ratio"
            )
        if self.context_halo * CONTEXT_STRIDE < self.halo or self.ratio % self.scale:
            raise BundleError(
                f"{self.name}: the context must see at least Model 2's field, on a grid that fits its own"
            )

    @property
    def step(self) -> int:
        """Fine pixels per pixel of Model 1's answer."""
        return self.ratio // self.scale


def _whole(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _ensure_sound(spec: BundleSpec) -> None:
    """What would only fail, or mislead, in a run."""
    names, colours = spec.classes, spec.colours
    differ = len(set(names)) == len(names) and all(isinstance(name, str) and name for name in names)
    plain = differ and not any(_NOT_TEXT.search(name) for name in names)
    rgb = all(len(colour) == 3 and all(value in range(256) for value in colour) for colour in colours)
    for key, sound, wanted in (
        ("classes", differ and 1 <= len(names) <= 255, "1 to 255 names that differ, background left out"),
        ("classes", plain, "names without control characters, which no format of masks takes"),
        ("colours", rgb and len(colours) == len(names), "red, green and blue in 0..255 for each class"),
        ("mpp", 0 < spec.mpp < math.inf, "a number above 0"),
        ("ratio", spec.ratio >= 1 and spec.ratio & (spec.ratio - 1) == 0, "a power of two"),
        ("scale", spec.scale >= 1, "1 or more"),
        ("tile", _whole(spec.tile) and 0 < spec.tile <= LARGEST_TILE, f"1 px up to {LARGEST_TILE}"),
        ("halo", _whole(spec.halo), "0 px or more"),
        ("coarse_halo", _whole(spec.coarse_halo), "0 px or more"),
        ("context_halo", _whole(spec.context_halo), "0 px or more"),
        ("threshold", 0 <= spec.threshold <= 1, "a number within 0..1"),
        ("temperature", 0 < spec.temperature < math.inf, "a number above 0"),
        ("card", isinstance(spec.card, dict), "names and what they say"),
        ("decisions", len(spec.decisions) == 2 and all(0 < p < 1 for p in spec.decisions), "two in 0..1"),
    ):
        if not sound:
            raise BundleError(f"{spec.name}: {key}={getattr(spec, key)!r}; expected {wanted}")
