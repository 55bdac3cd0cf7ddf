"""FCN, SegNet, U-Net and DeepLab v3 (Section 4.2), as published and as they should be.

Each takes (B, 3, H, W) in 0..1 and gives one logit a pixel and its penultimate activation; each can take
another network's penultimate activation as context (Section 3.2 (2)).

Two presets. ``paper`` builds what the published classes build, weight for weight: decoders of U-Net and
SegNet without a non-linearity, U-Net's bottleneck joined with itself, an auxiliary head that is computed and
never used, 256 or 512 channels at full resolution below the last layer, images only divided by 255.
``default`` is the same four ideas without these; `docs/deviations.md` lists each difference.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation import FCN, DeepLabV3
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from wsi_twostage.errors import ConfigError
from wsi_twostage.paper.backbones import BACKBONES, Encoder, classifier

PRESETS = ("paper", "default")
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_VOC_CLASSES = 21  # of torchvision's auxiliary head


class Output(NamedTuple):
    """What a network gives."""

    logits: Tensor  # (B, 1, H, W)
    features: Tensor  # (B, C, H / s, W / s), the penultimate activation before any context was added


def _folded(final: nn.Conv2d, small: Tensor, side: int) -> Tensor:
    """``final`` of ``small`` (B, C, h, w) enlarged bilinearly to ``side``, without C channels at that size.

    A bilinear enlargement treats each channel alike, so that the sum over channels can come before it: nine
    maps, one for each tap of the 3 x 3 convolution, are enlarged, shifted and added. It is the same function
    with the same gradients, and takes a quarter of the time of a training step.
    """
    taps = final.weight[0].permute(1, 2, 0).reshape(9, -1, 1, 1)
    large = functional.interpolate(
        functional.conv2d(small, taps), size=(side, side), mode="bilinear", align_corners=False
    )
    shifts = torch.eye(9, dtype=large.dtype, device=large.device).view(1, 9, 3, 3)
    return functional.conv2d(large, shifts, final.bias, padding=1)


class PaperNet(nn.Module):
    """A body that gives features, and a last layer; context is added between them, as published."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body = body
        self.final = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Output:
        """``context`` (B, C, H, W): added to the penultimate activation.

        While FCN or DeepLab train without context, their features are left at stride 8 (`_folded`).
        """
        if self.training and context is None and isinstance(self.body, _TorchvisionBody):
            features = self.body.small(x)  # (B, C, H / 8, W / 8)
            return Output(_folded(self.final, features, x.shape[-1]), features)
        features = self.body(x)  # (B, C, H, W)
        return Output(self.final(features if context is None else features + context), features)


class DefaultNet(nn.Module):
    """The same with a learned, zero-initialised way in for the context, and bilinear logits.

    Adding the context before a linear layer only adds Model 1's logits to Model 2's; mixed in before a ReLU,
    Model 2 can use it. Starting from zero, Model 2 starts as what it was without context.
    """

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body = body
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        self.final = nn.Conv2d(channels, 1, 1)
        nn.init.zeros_(self.mix.weight)
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, x: Tensor, context: Tensor | None = None) -> Output:
        """``context`` (B, C, h, w) of the same field, in any resolution."""
        features = self.body((x - self.mean) / self.std)  # (B, C, H / s, W / s)
        mixed = features
        if context is not None:
            context = functional.interpolate(
                context, size=features.shape[-2:], mode="bilinear", align_corners=False
            )
            mixed = functional.relu(features + self.mix(context))
        logits = functional.interpolate(
            self.final(mixed), size=x.shape[-2:], mode="bilinear", align_corners=False
        )
        return Output(logits, features)


class _Maps(nn.Module):
    """An encoder's last maps under torchvision's names."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.encoder(x)
        return {"aux": maps[3], "out": maps[4]}


class _TorchvisionBody(nn.Module):
    """torchvision's FCN or DeepLabV3 up to its penultimate activation, enlarged to the image."""

    def __init__(self, net: FCN | DeepLabV3) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)["out"]  # (B, C, H, W); the auxiliary answer is dropped
        return y

    def small(self, x: Tensor) -> Tensor:
        """The same before it is enlarged."""
        y: Tensor = self.net.classifier(self.net.backbone(x)["out"])
        return y


class _HeadBody(nn.Module):
    """A dilated encoder and a head without its last layer, at stride 8."""

    def __init__(self, encoder: Encoder, head: nn.Sequential) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.encoder(x)[-1])
        return y


class _DecoderBody(nn.Module):
    """U-Net, or without skips SegNet: after each block, up to the size of that stage's input.

    ``skips`` joins each stage's output before the block; the paper's joins the deepest with itself, too.
    """

    def __init__(self, encoder: Encoder, *, skips: bool, plain: bool) -> None:
        super().__init__()
        self.encoder, self.skips, self.plain = encoder, skips, plain
        inputs = encoder.channels[::-1]  # deepest first
        outputs = (*inputs[1:], 32)
        block = _linear_block if plain else _conv_block
        joined = [n * (2 if skips and (plain or i) else 1) for i, n in enumerate(inputs)]
        self.blocks = nn.ModuleList(block(n, m) for n, m in zip(joined, outputs, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.encoder(x)
        sizes = [y.shape[-2:] for y in (x, *maps[:-1])]
        y: Tensor = maps[-1]
        for i, (block, skip, size) in enumerate(zip(self.blocks, maps[::-1], sizes[::-1], strict=True)):
            joined = torch.cat([skip, y], 1) if self.skips and (self.plain or i) else y
            y = functional.interpolate(block(joined), size=size)
        return y  # (B, 32, H, W)


def _linear_block(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _conv_block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _with_head(
    net: nn.Module, preset: str, *, kind: type[FCN] | type[DeepLabV3], head: type[FCNHead] | type[DeepLabHead]
) -> nn.Module:
    encoder = Encoder(net, dilated=True)
    top = head(encoder.channels[-1], 1)
    channels = top[-1].in_channels  # 512 of FCN, 256 of DeepLab
    if preset == "default":
        return DefaultNet(_HeadBody(encoder, nn.Sequential(*list(top)[:-1])), channels)
    top[-1] = nn.Identity()
    auxiliary = FCNHead(encoder.channels[-2], _VOC_CLASSES)
    return PaperNet(_TorchvisionBody(kind(_Maps(encoder), top, auxiliary)), channels)


def _fcn(net: nn.Module, preset: str) -> nn.Module:
    return _with_head(net, preset, kind=FCN, head=FCNHead)


def _deeplab(net: nn.Module, preset: str) -> nn.Module:
    return _with_head(net, preset, kind=DeepLabV3, head=DeepLabHead)


def _unet(net: nn.Module, preset: str, *, skips: bool = True) -> nn.Module:
    plain = preset == "paper"
    body = _DecoderBody(Encoder(net, pool_first=not plain), skips=skips, plain=plain)
    return PaperNet(body, 32) if plain else DefaultNet(body, 32)


def _segnet(net: nn.Module, preset: str) -> nn.Module:
    return _unet(net, preset, skips=False)


ARCHITECTURES: dict[str, Callable[[nn.Module, str], nn.Module]] = {
    "fcn": _fcn,
    "segnet": _segnet,
    "unet": _unet,
    "deeplab": _deeplab,
}


def build_network(
    architecture: str, *, backbone: str = "resnet50", preset: str = "paper", trunk: nn.Module | None = None
) -> nn.Module:
    """One of the four networks on one of the backbones; ``trunk`` is that classifier, or None: random.

    Raises
    ------
    ConfigError
        A name that is not known.
    """
    for what, name, known in (
        ("architecture", architecture, ARCHITECTURES),
        ("backbone", backbone, BACKBONES),
        ("preset", preset, PRESETS),
    ):
        if name not in known:
            raise ConfigError(f"{what} {name!r} is not known; known: {', '.join(known)}")
    return ARCHITECTURES[architecture](classifier(backbone) if trunk is None else trunk, preset)
