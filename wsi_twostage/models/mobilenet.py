"""MobileNetV2 as an encoder: five feature maps, at strides 2 to 32 (Sandler et al., CVPR 2018, Table 2).

The layers carry torchvision's names, so that its ImageNet weights load as they are. They are built here
because importing torchvision is slow, and every run of the command would pay for it.
"""

from torch import Tensor, nn

CHANNELS = (16, 24, 32, 96, 320)  # of the maps at strides 2, 4, 8, 16, 32

_ROWS = (  # expansion, channels, repeats, stride of the first; the 1280-channel head is left out
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_ENDS = (2, 4, 7, 14, 18)  # number of layers up to each map


def _conv(inputs: int, outputs: int, *, size: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution and batch norm."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """Expand by a 1 x 1, filter each channel by a 3 x 3, project by a linear 1 x 1."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(nn.Sequential(*_conv(inputs, hidden), nn.ReLU6(inplace=True)))
        depthwise = _conv(hidden, hidden, size=3, stride=stride, groups=hidden)
        layers.append(nn.Sequential(*depthwise, nn.ReLU6(inplace=True)))
        self.conv = nn.Sequential(*layers, *_conv(hidden, outputs))
        self.keeps_shape = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.keeps_shape else y


class MobileNetV2(nn.Module):
    """The convolutional part of MobileNetV2 at width 1."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_conv(3, 32, size=3, stride=2), nn.ReLU6(inplace=True))]
        inputs = 32
        for expansion, channels, repeats, stride in _ROWS:
            for i in range(repeats):
                step = stride if i == 0 else 1
                layers.append(InvertedResidual(inputs, channels, stride=step, expansion=expansion))
                inputs = channels
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), H and W multiples of 32 -> maps (B, CHANNELS[i], H / 2^(i+1), W / 2^(i+1))."""
        maps, start = [], 0
        for end in _ENDS:
            x = self.features[start:end](x)
            maps.append(x)
            start = end
        return maps
