"""Random crops and stains, made where the images lie (a GPU, if there is one)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from wsi_twostage.errors import ConfigError

# Optical density of haematoxylin, eosin and DAB (Ruifrok & Johnston, 2001), rows normalised.
_STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far the crops are varied."""

    scale: float = 1.35
    """Crops are enlarged or reduced by up to this factor."""
    free: float = 0.5
    """Share of crops with a free angle and scale; the others are only flipped and turned by quarters."""
    stain: float = 0.25
    """Spread of the strength of each stain."""
    hue: float = 0.0
    """Spread of the colour of each stain, as part of its optical density."""
    tone: float = 0.15
    """Spread of brightness, contrast and white balance."""
    soften: float = 0.25
    """Share of crops that lose detail, as slides scanned at a lower magnification do."""
    sharpen: float = 0.35
    """Share of crops with an unsharp mask of a random radius, as many scanners apply."""

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"scale={self.scale}; expected a factor above 0, such as 1.35")


def _uniform(
    shape: tuple[int, ...], low: float, high: float, generator: torch.Generator, like: Tensor
) -> Tensor:
    values = torch.rand(shape, generator=generator) * (high - low) + low
    return values.to(like.device)


def random_crops(
    images: Tensor, masks: Tensor, *, count: int, side: int, how: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """``count`` crops: images (count, 3, side, side) in 0..1, masks (count, n, side, side) in 0..1.

    ``images`` (N, 3, S, S) and ``masks`` (N, n, S, S) are uint8, 255 is 1. Outside of an image is white
    background.
    """
    total, size = images.shape[0], images.shape[-1]
    index = torch.randint(total, (count,), generator=generator).to(images.device)
    free = _uniform((count,), 0, 1, generator, images) < how.free
    quarter = torch.randint(4, (count,), generator=generator).to(images.device) * (math.pi / 2)
    angle = torch.where(free, _uniform((count,), -math.pi, math.pi, generator, images), quarter)
    log_scale = math.log(how.scale)
    scale = torch.where(
        free, _uniform((count,), -log_scale, log_scale, generator, images).exp(), torch.ones_like(angle)
    )
    flip = torch.where(_uniform((count,), 0, 1, generator, images) < 0.5, -1.0, 1.0)
    reach = max(size - side, 0) // 2 + side // 8
    shift = torch.randint(-reach, reach + 1, (count, 2), generator=generator).to(images.device) * (2 / size)
    cos, sin = angle.cos() * scale * (side / size), angle.sin() * scale * (side / size)
    theta = torch.stack(
        [torch.stack([cos * flip, -sin, shift[:, 1]], 1), torch.stack([sin * flip, cos, shift[:, 0]], 1)], 1
    )  # (count, 2, 3)
    grid = functional.affine_grid(theta, [count, 3, side, side], align_corners=False)
    both = torch.cat([255 - images[index], masks[index]], 1).float()  # outside of the image no ink: white
    both = functional.grid_sample(both, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    both = both / 255
    return 1 - both[:, :3], both[:, 3:]


def vary(images: Tensor, *, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Other stains, scanners and magnifications: (B, 3, H, W) in 0..1 -> the same, always in 32 bits."""
    with torch.autocast(images.device.type, enabled=False):
        return _vary(images, how, generator)


def _vary(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    count = images.shape[0]

    def one(low: float, high: float, channels: int = 1) -> Tensor:
        return _uniform((count, channels, 1, 1), low, high, generator, images)

    stains = functional.normalize(torch.tensor(_STAINS), dim=1)
    unmix, stains = torch.linalg.inv(stains).to(images.device), stains.to(images.device)
    density = -images.clamp(1 / 255, 1).log()  # (B, 3, H, W)
    amounts = torch.einsum("bchw,cs->bshw", density, unmix)
    amounts = amounts * (1 + one(-how.stain, how.stain, 3)) + one(-0.02, 0.02, 3) * (
        density.sum(1, True) > 0.15
    )
    colours = stains[None] * (1 + one(-how.hue, how.hue, 9).view(count, 3, 3))  # (B, stain, channel)
    images = torch.exp(-torch.einsum("bshw,bsc->bchw", amounts, colours)).clamp(0, 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * (1 + one(-how.tone, how.tone)) + mean
    images = images * (1 + one(-how.tone, how.tone / 3)) * (1 + one(-how.tone, how.tone, 3) / 3)
    images = images.clamp(0, 1) ** one(-how.tone, how.tone).exp()
    soft = functional.interpolate(
        functional.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear", align_corners=False
    )
    images = torch.where(one(0, 1) < how.soften, soft, images)
    images = _sharpen(images, share=how.sharpen, generator=generator)
    device = torch.Generator(images.device).manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
    noise = torch.randn(images.shape, generator=device, device=images.device) * one(0, 0.02)
    return (images + noise).clamp(0, 1)


def _sharpen(images: Tensor, *, share: float, generator: torch.Generator) -> Tensor:
    """Unsharp mask with one radius for the batch (2, 4 or 8 px) and an amount for each image."""
    radius = 2 ** int(torch.randint(1, 4, (), generator=generator))
    blurred = images
    for sides in ((1, 2 * radius + 1), (2 * radius + 1, 1)):  # along rows, then along columns
        pads = tuple(side // 2 for side in sides)
        blurred = functional.avg_pool2d(blurred, sides, 1, pads, count_include_pad=False)
    count = images.shape[0]
    amount = torch.rand(count, generator=generator) * 1.5
    amount *= torch.rand(count, generator=generator) < share
    return (images + amount.to(images.device).view(-1, 1, 1, 1) * (images - blurred)).clamp(0, 1)
