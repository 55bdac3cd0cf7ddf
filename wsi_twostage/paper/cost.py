"""What a network costs: multiply-accumulates (MACs), counted without running it (Table 1)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one image."""

    parameters: int
    convolutions: int
    """MACs of all convolutions; twice as many FLOPs."""
    norms: int
    """Inputs of all batch norms."""
    pools: int
    """Operations of all global poolings: a sum and a division."""

    @property
    def table1(self) -> int:
        """As Table 1 counts: MACs, four operations for each input of a batch norm, and global poolings."""
        return self.convolutions + 4 * self.norms + self.pools


def cost(make: Callable[[], nn.Module], side: int) -> Cost:
    """Of the network that ``make`` builds, on one RGB image of ``side`` px; no memory is used for either."""
    counts = {"convolutions": 0, "norms": 0, "pools": 0}

    def convolution(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        taps = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
        counts["convolutions"] += output.numel() * taps

    def norm(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        counts["norms"] += inputs[0].numel()

    def pool(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        counts["pools"] += inputs[0].numel() + output.numel()

    hooks = {nn.Conv2d: convolution, nn.BatchNorm2d: norm, nn.AdaptiveAvgPool2d: pool}
    with torch.device("meta"), torch.no_grad():
        net = make().eval()
        for module in net.modules():
            if type(module) in hooks:
                module.register_forward_hook(hooks[type(module)])
        net(torch.empty(1, 3, side, side))
    return Cost(sum(p.numel() for p in net.parameters()), **counts)
