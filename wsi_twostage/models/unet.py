"""U-Net on MobileNetV2 (Ronneberger et al., MICCAI 2015), with room for another network's features.

The first skip is a shallow convolution at full resolution, which a MobileNetV2 alone lacks: a nucleus
is only some 8 px wide on Model 1's level.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_twostage.models.mobilenet import CHANNELS, MobileNetV2
from wsi_twostage.models.spec import CONTEXT_STRIDE

STRIP_PX = 128
"""Rows of the last step at a time; even."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_DETAIL = 16  # channels of the full-resolution skip


class Output(NamedTuple):
    """What a network gives; ``features`` is the penultimate activation (Section 3.2 (2) of the paper)."""

    logits: Tensor  # (B, K, scale * H, scale * W)
    features: Tensor  # (B, widths[-1], H, W)


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """3 x 3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def join(conv: nn.Conv2d, deep: Tensor, skip: Tensor) -> Tensor:
    """``conv(cat([upsample(deep), skip]))``, 3 x 3 and nearest by 2, with fewer multiplications.

    Four fine pixels see one deep pixel, so the nine taps on ``deep`` fall together into four: a transposed
    convolution whose 4 x 4 kernel sums the 3 x 3 one over 2 x 2. The large upsampled map is never made.

    (B, C, h, w) and (B, D, 2h, 2w) -> (B, conv.out_channels, 2h, 2w).
    """
    return _joined(deep, skip, *_parted(conv, deep.shape[1]))


class Join(nn.Module):
    """`join` with its kernel made once, and not again for each window."""

    on_deep: Tensor
    on_skip: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d, channels: int) -> None:
        super().__init__()
        for name, value in zip(("on_deep", "on_skip", "bias"), _parted(conv, channels), strict=True):
            self.register_buffer(name, None if value is None else value.detach().contiguous())

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """As `join`."""
        return _joined(deep, skip, self.on_deep, self.on_skip, self.bias)


def _parted(conv: nn.Conv2d, channels: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """The kernel on ``channels`` of the deep map, (C, out, 4, 4), the one on the skip, and the bias."""
    on_deep, on_skip = conv.weight[:, :channels], conv.weight[:, channels:]
    taps = functional.pad(on_deep.flip(2, 3), (1, 1, 1, 1))
    rows = taps[..., 1:, :] + taps[..., :-1, :]
    return (rows[..., 1:] + rows[..., :-1]).transpose(0, 1), on_skip, conv.bias


def _joined(deep: Tensor, skip: Tensor, on_deep: Tensor, on_skip: Tensor, bias: Tensor | None) -> Tensor:
    fine = functional.conv2d(skip, on_skip, bias, padding=1)
    return fine.add_(functional.conv_transpose2d(deep, on_deep, stride=2, padding=1))


class DecoderStep(nn.Sequential):
    """Convolution blocks, the first of which joins a deep map with a skip twice as fine."""

    def __init__(self, deep: int, skip: int, width: int, *, depth: int) -> None:
        first = conv_block(deep + skip, width)
        super().__init__(first, *(conv_block(width, width) for _ in range(depth - 1)))
        self.channels = deep

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]  # two inputs
        """(B, C, h, w) and (B, D, 2h, 2w) -> (B, width, 2h, 2w)."""
        first, *blocks = self.children()
        conv, *rest = first.children()
        y = join(conv, deep, skip) if isinstance(conv, nn.Conv2d) else conv(deep, skip)
        for module in (*rest, *blocks):
            y = module(y)
        return y

    def settle(self) -> None:
        """For a network whose weights stay: what depends on them alone is computed here and never again."""
        first = self[0]
        assert isinstance(first, nn.Sequential)
        if isinstance(first[0], nn.Conv2d):
            first[0] = Join(first[0], self.channels)


class UNet(nn.Module):
    """Encoder, five decoder steps from stride 16 to 1, and a 1 x 1 head.

    Parameters
    ----------
    classes
        Channels of the logits: 1 for foreground against background.
    widths
        Channels of the decoder at strides 16, 8, 4, 2, 1.
    depths
        Convolutions of each decoder step.
    context
        Channels of the features of a coarser network that join at stride 4; 0 for none.
    scale
        Logits are ``scale`` times finer than the input (sub-pixel head; Shi et al., CVPR 2016): a coarse
        network trained with fine labels knows more about an edge than its own pixels can say.
    """

    def __init__(
        self,
        *,
        classes: int = 1,
        widths: tuple[int, ...] = (96, 64, 48, 32, 16),
        depths: tuple[int, ...] = (1, 1, 1, 1, 1),
        context: int = 0,
        scale: int = 1,
    ) -> None:
        super().__init__()
        self.context = context
        self.encoder = MobileNetV2()
        self.detail = conv_block(3, _DETAIL)
        skips = (*CHANNELS[-2::-1], _DETAIL)  # strides 16, 8, 4, 2, 1
        steps, inputs = [], CHANNELS[-1]
        for stride, skip, width, depth in zip((16, 8, 4, 2, 1), skips, widths, depths, strict=True):
            joined = skip + (context if stride == CONTEXT_STRIDE else 0)
            steps.append(DecoderStep(inputs, joined, width, depth=depth))
            inputs = width
        self.steps = nn.ModuleList(steps)
        self._reach = 2 * depths[-1]  # px that a row of the last step sees on each side, at most; even
        spread = nn.PixelShuffle(scale) if scale > 1 else nn.Identity()  # by 1 it would copy
        self.head = nn.Sequential(nn.Conv2d(inputs, classes * scale**2, 1), spread)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Output:
        """(B, 3, H, W) in 0..1, and context (B, C, H/4, W/4) if built for it -> Output."""
        deep, skip = self._to_the_last_step(x, context)
        y = self.steps[-1](deep, skip)
        return Output(self.head(y), y)

    def logits(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The logits of `forward`, to the bit, with less memory: the last step goes in strips of rows.

        Its maps, at full resolution, are the largest by far.
        """
        deep, skip = self._to_the_last_step(x, context)
        height, done = skip.shape[-2], []
        for top in range(0, height, STRIP_PX):
            bottom = min(top + STRIP_PX, height)
            first, last = max(top - self._reach, 0), min(bottom + self._reach, height)
            y = self.head(self.steps[-1](deep[..., first // 2 : last // 2, :], skip[..., first:last, :]))
            scale = y.shape[-2] // (last - first)
            done.append(y[..., scale * (top - first) : scale * (bottom - first), :])
        return torch.cat(done, dim=-2)

    def _to_the_last_step(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Maps at strides 2 and 1: what the last step joins."""
        x = (x - x.new_tensor(_IMAGENET_MEAN).view(3, 1, 1)) / x.new_tensor(_IMAGENET_STD).view(3, 1, 1)
        skips: list[Tensor] = [self.detail(x), *self.encoder(x)]
        y = skips.pop()  # (B, 320, H/32, W/32)
        for stride, step in zip((16, 8, 4, 2), self.steps, strict=False):
            skip = skips.pop()
            if stride == CONTEXT_STRIDE and context is not None:
                skip = torch.cat([skip, context], dim=1)
            y = step(y, skip)  # (B, width, H/stride, W/stride)
        return y, skips.pop()
