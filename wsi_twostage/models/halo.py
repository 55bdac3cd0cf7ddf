"""How far around its tiles a network must look: the halo of its windows, measured."""

import torch
from torch import Tensor
from torch.nn import functional

from wsi_twostage.models.spec import CONTEXT_STRIDE
from wsi_twostage.models.stage import Stage

CANDIDATES = (32, 64, 96, 128)  # px of the network's input; multiples of 32, as strides want it
MOVED = 0.01
"""Mean change of the probability at a tile's rim that a wider halo may still make."""

_CORE, _RIM = 64, 16  # px
_MARGIN = 32  # px of the context's level


@torch.inference_mode()
def measured_halo(stage: Stage) -> int:
    """The least halo, in pixels of the input, past which more of it moves the answer little.

    A network that looks at the whole window (a pooling over all of it) never settles, and gets the widest.
    """
    widest = CANDIDATES[-1]
    image = noise(_CORE + 2 * widest, _CORE + 2 * widest)
    truth = _rim(stage, image, widest)
    for halo in CANDIDATES[:-1]:
        cut = slice(widest - halo, halo - widest)
        if float((_rim(stage, image[..., cut, cut], halo) - truth).abs().mean()) <= MOVED:
            return halo
    return widest


def _rim(stage: Stage, image: Tensor, halo: int) -> Tensor:
    """Probabilities at the edge of the core, of all channels."""
    start, size, rim = (stage.scale * px for px in (halo, _CORE, _RIM))
    core: Tensor = stage(image)[0, :, start : start + size, start : start + size].float()
    p = core.sigmoid() if len(core) == 1 else core.softmax(0)
    outer = torch.ones(size, size, dtype=torch.bool)
    outer[rim:-rim, rim:-rim] = False
    return p[:, outer]


def noise(height: int, width: int) -> Tensor:
    """An image (1, 3, height, width) in 0..1 with structure at many scales, always the same."""
    generator, image = torch.Generator().manual_seed(0), torch.zeros(1, 3, height, width)
    for cell in (2, 8, 32):
        part = torch.rand(1, 3, -(-height // cell), -(-width // cell), generator=generator)
        image += functional.interpolate(part, (height, width), mode="bilinear", align_corners=False)
    return image / 3


def example(stage: Stage, height: int, width: int) -> tuple[Tensor, ...]:
    """What a stage is called with: an image, and for a context what lies around it."""
    around = (height // CONTEXT_STRIDE + 2 * _MARGIN, width // CONTEXT_STRIDE + 2 * _MARGIN)
    return (noise(height, width), noise(*around)) if stage.context else (noise(height, width),)
