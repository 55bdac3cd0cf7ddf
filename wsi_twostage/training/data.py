"""Folders of images and masks, and their split into train, validation and test by a seed."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from wsi_twostage.errors import ConfigError, SlideError
from wsi_twostage.slide.strips import ensure_whole
from wsi_twostage.slide.tiff_pages import DECODE_ERRORS, ORIENTATION, ensure_upright
from wsi_twostage.training.config import DataConfig

_COLOUR = 8.0  # mean of max - min over the channels, in grey levels, above which an image counts as stained
NO_SLIDES = (".png", ".jpg", ".jpeg")
"""What is an image wherever it lies; a TIFF may be a slide."""

ORIGINALS = (".bmp", ".tif", ".tiff")
"""What may be an image of data to learn from, too."""


_NOT_IMAGES = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises on bad data."""


@dataclass(frozen=True, slots=True)
class Folder:
    """``path/images/*`` and ``path/masks/*`` with equal stems; any value above 0 is foreground."""

    path: Path
    colour_only: bool = False
    """Leave out grey images, such as fluorescence."""
    only: frozenset[str] | None = None
    """The names to read, without suffix; None: all."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its truth."""

    name: str  # folder/stem
    image: Tensor  # (3, H, W) uint8
    mask: Tensor  # (1, H, W) uint8, 0 or 255


@dataclass(frozen=True, slots=True)
class Split:
    """The samples of each part, in sorted order."""

    train: list[Sample]
    validation: list[Sample]
    test: list[Sample]


def read_data(root: Path, config: DataConfig) -> dict[str, Split]:
    """Each folder of the configuration, split; raises ConfigError for what is missing."""
    parts = {}
    for name in config.folders:
        samples = read_folder(Folder(root / name, colour_only=name in config.colour_only))
        parts[name] = split(samples, seed=config.seed, test=config.test, validation=config.validation)
    return parts


def read_folder(folder: Folder) -> list[Sample]:
    """Every pair of the folder, sorted by name.

    Raises
    ------
    ConfigError
        A missing folder, an image without a mask or of another size, a mask without an image, two of one
        name, or no image at all.
    """
    images, masks = (_named(folder.path / part) for part in ("images", "masks"))
    if not images:
        raise ConfigError(
            f"{folder.path}: no images/*.png, *.jpg or *.tif; expected folders images/ and masks/"
        )
    if folder.only is None and (alone := masks.keys() - images.keys()):
        raise ConfigError(f"{masks[min(alone)]}: a mask without an image in {folder.path / 'images'}")
    samples = []
    for stem in sorted(images if folder.only is None else images.keys() & folder.only):
        image = read_rgb(images[stem])
        if folder.colour_only and _chroma(image) < _COLOUR:
            continue
        if stem not in masks:
            raise ConfigError(f"{folder.path}: image {images[stem].name} has no mask masks/{stem}.png")
        mask = torch.from_numpy(read_mask(masks[stem]))[None].to(torch.uint8) * 255
        if mask.shape[1:] != image.shape[1:]:
            raise ConfigError(
                f"{images[stem]}: image is {tuple(image.shape[1:])} px, its mask {tuple(mask.shape[1:])} px"
            )
        if min(image.shape[1:]) < 2:  # it could not be mirrored
            raise ConfigError(f"{images[stem]}: {tuple(image.shape[1:])} px; expected 2 or more on each side")
        samples.append(Sample(f"{folder.path.name}/{stem}", image, mask))
    return samples


def _named(folder: Path) -> dict[str, Path]:
    """Images by stem; a TIFF or BMP beside a PNG or JPEG of its name is what that was made of."""
    return by_stem(image_files(folder, ORIGINALS)) | by_stem(image_files(folder))


def image_files(folder: Path, suffixes: tuple[str, ...] = NO_SLIDES) -> list[Path]:
    """The files of a folder that end so, sorted; hidden ones are not."""
    found = (path for path in folder.glob("*") if path.suffix.lower() in suffixes)
    return sorted(path for path in found if not path.name.startswith("."))


def by_stem(paths: Iterable[Path], *, suffix: str = "") -> dict[str, Path]:
    """Files by their stems, which may end in ``suffix``; ConfigError where two share one."""
    found: dict[str, Path] = {}
    for path in paths:
        if (first := found.setdefault(path.stem.removesuffix(suffix), path)) != path:
            raise ConfigError(f"{path}: a second file of this name; the first is {first}")
    return found


def split(samples: Sequence[Sample], *, seed: int, test: float, validation: float) -> Split:
    """Shuffle by ``seed`` and cut: first ``test``, then ``validation`` (fractions), the rest for training.

    numpy's RandomState is frozen by promise: the same split on every machine and version.
    """
    order = np.random.RandomState(seed).permutation(len(samples))
    first, second = round(test * len(samples)), round((test + validation) * len(samples))
    parts = (sorted(order[second:]), sorted(order[first:second]), sorted(order[:first]))
    return Split(*([samples[i] for i in part] for part in parts))


def stack(samples: Sequence[Sample], *, side: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, side, side) and masks (N, 1, side, side), uint8; smaller ones are mirrored outwards."""
    pairs = [torch.cat([sample.image, sample.mask]) for sample in samples]
    both = torch.stack([_fit(pair, side) for pair in pairs])  # (N, 4, side, side)
    return both[:, :3].contiguous(), both[:, 3:].contiguous()


def read_rgb(path: Path) -> Tensor:
    """(3, H, W) uint8; grey is repeated, alpha dropped.

    Raises
    ------
    ConfigError
        Not an image, or not one of 8 bits.
    """
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):
            raise ConfigError(f"{path}: {image.mode} pixels; expected 8 bits")
        array = np.array(image.convert("RGB"))
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, 2, 0)))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H, W): whatever is neither black nor transparent, with a palette or colours, or grey of up to 16 bits.

    Raises
    ------
    ConfigError
        Not an image, or colours of 16 bits.
    """
    with _opened(path) as image:
        least = 127 if image.format == "JPEG" else 0  # its edges ring
        if (image.mode in ("1", "L") and "transparency" not in image.info) or image.mode.startswith(
            ("I", "F")
        ):
            return np.asarray(np.array(image) > least)
        pixels = np.array(image.convert("RGBA"))
    return np.asarray((pixels[..., :3].max(2) > least) & (pixels[..., 3] > 0))


_DRAWN = "what is neither black nor transparent is, and of a JPEG what is light"


def ensure_both(name: str, samples: Sequence[Sample], *, hint: str = _DRAWN) -> None:
    """Raise ConfigError, with a ``hint``, where masks have none of the class, or nothing else."""
    every = all(bool(sample.mask.all()) for sample in samples)
    if every or not any(bool(sample.mask.any()) for sample in samples):
        raise ConfigError(
            f"{name}: {'every' if every else 'no'} pixel of its {len(samples)} masks is of the class; {hint}"
        )


def read_labels(path: Path) -> NDArray[Any]:
    """(H, W): the numbers as they are stored; with a palette, its indices."""
    with _opened(path) as image:
        array = np.array(image)
    if array.ndim != 2:
        raise ConfigError(f"{path}: {array.shape[2]} channels; expected one number a pixel")
    return array


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            if ";16" in str(getattr(image, "tile", "")) and not image.mode.startswith("I"):
                raise ConfigError(f"{path}: colours of 16 bits, of which the lower half would go; expected 8")
            if image.format == "TIFF":
                _ensure_sound(path, image)
            image.load()
            yield image
    except SlideError as error:
        raise ConfigError(f"{error}") from error
    except (*_NOT_IMAGES, *DECODE_ERRORS) as error:
        raise ConfigError(f"{path}: not an image ({error})") from error


def _ensure_sound(path: Path, image: Image.Image) -> None:
    """One image, which Pillow would neither turn nor make up in part; raises what `_opened` expects."""
    if getattr(image, "n_frames", 1) > 1:
        raise ConfigError(f"{path}: holds several images; expected one")
    ensure_upright(str(path), image.getexif().get(ORIENTATION, 1))
    ensure_whole(str(path))


def _fit(pair: Tensor, side: int) -> Tensor:
    pair = pair[:, :side, :side]
    while min(pair.shape[1:]) < side:  # a mirror reaches at most one image further
        down, right = (min(side - n, n - 1) for n in pair.shape[1:])
        pair = functional.pad(pair[None].float(), (0, right, 0, down), mode="reflect")[0].to(torch.uint8)
    return pair


def _chroma(image: Tensor) -> float:
    return float((image.amax(0).float() - image.amin(0).float()).mean())
