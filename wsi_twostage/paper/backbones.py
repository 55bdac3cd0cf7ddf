"""torchvision's classifiers as encoders: five maps, at strides 2 to 32, or dilated from 8 on."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torchvision import models


@dataclass(frozen=True, slots=True)
class _Trunk:
    """A classifier cut where its maps shrink."""

    stages: tuple[nn.Sequential, ...]  # strides 2, 4, 8, 16, 32
    channels: tuple[int, ...]


def _resnet(net: models.ResNet, *, pool_first: bool) -> _Trunk:
    stem = nn.Sequential(net.conv1, net.bn1, net.relu)
    first = nn.Sequential(net.maxpool, *net.layer1) if pool_first else nn.Sequential(*net.layer1, net.maxpool)
    deep = (net.layer2, net.layer3, net.layer4)
    wide = net.fc.in_features  # 512 or 2048
    return _Trunk((stem, first, *deep), (64, wide // 8, wide // 4, wide // 2, wide))


def _mobilenet(net: models.MobileNetV2) -> _Trunk:
    cuts = ((0, 2), (2, 4), (4, 7), (7, 14), (14, 18))
    return _Trunk(tuple(net.features[start:stop] for start, stop in cuts), (16, 24, 32, 96, 320))


BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "resnet18": models.resnet18,
    "resnet34": models.resnet34,
    "resnet50": models.resnet50,
    "mobilenet_v2": models.mobilenet_v2,
}


def classifier(name: str) -> nn.Module:
    """The named classifier with random weights; the names of its weights are torchvision's."""
    return BACKBONES[name](weights=None)


class Encoder(nn.Module):
    """(B, 3, H, W) -> five maps, each of half the side of the one before.

    Parameters
    ----------
    pool_first
        The order of ResNet. The published U-Net and SegNet run ``layer1`` before the pooling, at four times
        the cost; False keeps that.
    dilated
        The last two stages keep stride 8 and dilate instead (Chen et al., 2017), so that the maps have
        strides 2, 4, 8, 8, 8.
    """

    def __init__(self, net: nn.Module, *, pool_first: bool = True, dilated: bool = False) -> None:
        super().__init__()
        if isinstance(net, models.ResNet):
            trunk = _resnet(net, pool_first=pool_first)
        else:
            assert isinstance(net, models.MobileNetV2)
            trunk = _mobilenet(net)
        self.stages = nn.ModuleList(trunk.stages)
        self.channels = trunk.channels
        if dilated:
            _dilate(trunk.stages[3], before=1, rate=2)
            _dilate(trunk.stages[4], before=2, rate=4)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _dilate(stage: nn.Sequential, *, before: int, rate: int) -> None:
    """Turn a stage's stride into dilation, as torchvision does for the ResNets that can.

    The first block's convolution has lost its stride but still sees maps of the stage before: it keeps the
    rate of ``before``.
    """
    for i, block in enumerate(stage):
        for conv in block.modules():
            if isinstance(conv, nn.Conv2d):
                conv.stride = (1, 1)
                if conv.kernel_size == (3, 3):
                    conv.dilation = conv.padding = (rate if i else before,) * 2
