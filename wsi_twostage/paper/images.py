"""From files to batches: stretched to one side, and varied as the paper does, reproducibly.

Each image of each epoch has a seed of its own, so that neither the number of workers nor an interruption
changes what is trained on.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import adjust_hue, adjust_saturation

from wsi_twostage.paper.datasets import Item

_ENLARGED = 1.1  # images are resized to this times the side, then cropped (Section 4.2)
_CHANCE = 0.5  # of each augmentation
_TONE = 0.1  # of brightness and of contrast
_KEPT_BYTES = 2 << 30


def stretch(image: Tensor, mask: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """(3, H, W) and (1, H, W) uint8 -> (3, side, side) and (1, side, side) uint8.

    The aspect is not kept (as published). The image is averaged, the mask is sampled.
    """
    size = (side, side)
    small = functional.interpolate(
        image[None].float(), size=size, mode="bilinear", antialias=True, align_corners=False
    )
    sampled = functional.interpolate(mask[None].float(), size=size, mode="nearest-exact")
    return small[0].round().clamp(0, 255).to(torch.uint8), sampled[0].to(torch.uint8)


class Stretched:
    """Items stretched to ``side`` px; kept in memory after the first time, if all of them fit."""

    def __init__(self, items: Sequence[Item], side: int) -> None:
        self.items, self.side = items, side
        self._keep = len(items) * 4 * side**2 <= _KEPT_BYTES
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        found = self._kept.get(index) or stretch(*self.items[index].read(), self.side)
        if self._keep:
            self._kept[index] = found
        return found


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far training images are varied; the defaults are the paper's."""

    side: int
    """Edge of the crops, px."""
    turned: bool = False
    """By any angle: where there is no up and down."""
    colour: float = 0.0
    """Spread of saturation, hue and white balance."""
    zoom: float = 1.0
    """Enlarged or reduced by up to this factor."""


def vary(
    image: Tensor, mask: Tensor, *, how: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(3, S, S) in 0..1 and (1, S, S), S >= side: turned, mirrored, coloured, and a crop of ``side`` px."""

    def chance() -> bool:
        return float(torch.rand((), generator=generator)) < _CHANCE

    def spread(limit: float) -> float:
        return float(torch.rand((), generator=generator) * 2 - 1) * limit

    angle = spread(math.pi) if how.turned and chance() else 0.0
    scale = math.exp(spread(math.log(how.zoom))) if how.zoom > 1 else 1.0
    if angle or scale != 1:
        image, mask = _turn(image, angle, scale, mode="bilinear"), _turn(mask, angle, scale, mode="nearest")
    if chance():
        image, mask = image.flip(2), mask.flip(2)
    if chance():
        mean = (image * 255).round().to(torch.int64).sum() / (255 * image.numel())  # in any order
        image = ((image - mean) * (1 + spread(_TONE)) + mean + spread(_TONE)).clamp(0, 1)
    if how.colour:
        image = adjust_saturation(image, 1 + spread(how.colour))
        image = adjust_hue(image, spread(how.colour) / 8)
        balance = image.new_tensor([1 + spread(how.colour) / 2 for _ in range(3)])
        image = (image * balance.view(3, 1, 1)).clamp(0, 1)
    room = image.shape[-1] - how.side + 1
    top, left = torch.randint(room, (2,), generator=generator).tolist()
    crop = (..., slice(top, top + how.side), slice(left, left + how.side))
    return image[crop], mask[crop]


def _turn(planes: Tensor, angle: float, scale: float, *, mode: str) -> Tensor:
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    theta = torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]], device=planes.device)
    grid = functional.affine_grid(theta, [1, *planes.shape], align_corners=False)
    turned = functional.grid_sample(
        planes[None], grid, mode=mode, padding_mode="reflection", align_corners=False
    )
    return turned[0]


def epoch_batches(
    images: Stretched,
    *,
    batch: int,
    how: Augmentation,
    seed: int,
    epoch: int,
    device: torch.device,
    workers: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in an order of its own: (batch, 3, side, side) in 0..1 and (batch, 1, side, side), float32.

    Threads read ahead, the device varies. What does not fill a batch is left out: a batch norm cannot learn
    from one image.
    """
    order = torch.randperm(len(images), generator=seeded(seed, epoch)).tolist()
    order = order[: len(order) // batch * batch]
    read = _read_ahead(images, order, workers)
    for start in range(0, len(order), batch):
        varied = [
            vary(
                image.to(device).float() / 255,
                mask.to(device).float(),
                how=how,
                generator=seeded(seed, epoch, index),
            )
            for index, (image, mask) in zip(order[start : start + batch], read, strict=False)
        ]
        yield torch.stack([image for image, _ in varied]), torch.stack([mask for _, mask in varied])


def _read_ahead(images: Stretched, order: Sequence[int], workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """In that order; decoding and resizing let other threads run."""
    if not workers:
        yield from map(images.__getitem__, order)
        return
    with ThreadPoolExecutor(workers) as pool:
        reading = deque(pool.submit(images.__getitem__, i) for i in order[: 2 * workers])
        for i in order[2 * workers :]:
            yield reading.popleft().result()
            reading.append(pool.submit(images.__getitem__, i))
        while reading:
            yield reading.popleft().result()


def for_training(items: Sequence[Item], side: int) -> Stretched:
    """Somewhat larger than ``side``, so that crops can be shifted; objects are so much larger, too."""
    return Stretched(items, round(_ENLARGED * side))


def seeded(*numbers: int) -> torch.Generator:
    """A generator whose seed mixes the numbers, none of which may be negative."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (1 << 63)
    return torch.Generator().manual_seed(seed)
