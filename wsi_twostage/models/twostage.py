"""Both stages as one module: Model 1, and Model 2 with a coarse network's features as context."""

import torch
from torch import Tensor, nn

from wsi_twostage.errors import ConfigError
from wsi_twostage.models.spec import CONTEXT_STRIDE
from wsi_twostage.models.unet import Output, UNet


class TwoStageNet(nn.Module):
    """f1 and f2 of Algorithm 1 (Section 3); the context of Section 3.2 (2).

    Model 2 computes its context again, on a coarse crop around its window. This costs little and makes
    stage 2 a function of the slide alone: any window can be redone on any worker.

    Parameters
    ----------
    context
        The network whose penultimate activation, on a level four times coarser than Model 2's, is Model 2's
        context; None: Model 1 itself, which then works on that level.
    """

    def __init__(self, coarse: UNet, fine: UNet, *, context: UNet | None = None) -> None:
        super().__init__()
        self.coarse = coarse
        self.fine = fine
        self.guide = context

    def f1(self, coarse: Tensor) -> Tensor:
        """(B, 3, h, w) in 0..1 on Model 1's level -> logits (B, K, s * h, s * w)."""
        return self.coarse.logits(coarse)

    def f2(self, fine: Tensor, around: Tensor) -> Tensor:
        """(B, 3, H, W) and (B, 3, H/4 + 2m, W/4 + 2m), the same field with a margin m >= 0.

        Returns logits (B, K, H, W).
        """
        guide = self.coarse if self.guide is None else self.guide
        context = self.context(guide(around), fine) if self.fine.context else None
        return self.fine.logits(fine, context)

    def context(self, output: Output, fine: Tensor) -> Tensor:
        """A coarse network's penultimate activation on exactly the field of ``fine``, (B, C, H/4, W/4)."""
        height, width = fine.shape[-2] // CONTEXT_STRIDE, fine.shape[-1] // CONTEXT_STRIDE
        top = (output.features.shape[-2] - height) // 2
        left = (output.features.shape[-1] - width) // 2
        return output.features[..., top : top + height, left : left + width]

    @torch.no_grad()
    def load_encoder(self, features: dict[str, Tensor]) -> None:
        """Start both encoders from ImageNet weights, keyed as torchvision's ``mobilenet_v2()``.

        Raises
        ------
        ConfigError
            Weights of another network.
        """
        for net in (self.coarse, self.fine):
            own = net.encoder.state_dict()
            lost = [
                name
                for name, value in own.items()
                if not name.endswith("num_batches_tracked")
                and (name not in features or features[name].shape != value.shape)
            ]
            if lost:
                raise ConfigError(
                    f"these weights are not MobileNetV2's: {len(lost)} are missing, such as {lost[0]}"
                )
            net.encoder.load_state_dict({name: features.get(name, value) for name, value in own.items()})
