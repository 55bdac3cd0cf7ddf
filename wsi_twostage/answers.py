"""From logits to probabilities, to enlarged logits, to labels: the numbers between the two stages.

Model 1's answer is kept in 8 bits (that is what the store holds), and everything after it starts from
those 8 bits: a mask can be made again from the store, and is the same in memory and on a cluster.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wsi_twostage.tiles import Box


def to_probability(logits: Tensor, temperature: float) -> NDArray[np.uint8]:
    """(K, H, W) logits -> 255 times the probability, calibrated by ``temperature``."""
    scaled = logits.float() / temperature
    p = scaled.sigmoid() if len(scaled) == 1 else scaled.softmax(0)
    return (p * 255).round().to(torch.uint8).cpu().numpy()


def to_logits(probability: NDArray[np.uint8]) -> Tensor:
    """The inverse, (K, H, W), up to the 8 bits and, with several classes, a constant."""
    p = np.arange(256, dtype=np.float32)
    logs = np.log(p + 0.5) - np.log(255.5 - p) if len(probability) == 1 else np.log(p + 0.5)
    return torch.from_numpy(logs[probability])


def enlarge(probability: NDArray[np.uint8], *, at: Box, wanted: Box, ratio: int) -> Tensor:
    """Bilinear on logits (``up`` of line 1), so that a boundary is smooth.

    Parameters
    ----------
    probability
        (K, h, w), the coarse pixels of the box ``at``, which has a pixel more than ``wanted`` on every
        side that is no edge of the image.
    wanted
        Box in fine pixels, ``ratio`` times finer.

    Returns
    -------
    Tensor
        Logits (K, wanted.height, wanted.width).
    """
    if ratio == 1:
        rows, cols = wanted.relative_to(at).slices
        return to_logits(probability[:, rows, cols])
    large = functional.interpolate(
        to_logits(probability)[None], scale_factor=float(ratio), mode="bilinear", align_corners=False
    )[0]
    rows, cols = wanted.relative_to(Box(at.top * ratio, at.left * ratio, 0, 0)).slices
    return large[:, rows, cols]


def to_labels(logits: Tensor, decision: float) -> NDArray[np.uint8]:
    """(K, H, W) -> labels (H, W): 1 where the one class reaches ``decision``, or the likeliest."""
    if len(logits) == 1:
        cut = float(np.log(decision / (1 - decision)))
        return (logits[0].float() >= cut).to(torch.uint8).cpu().numpy()
    return logits.argmax(0).to(torch.uint8).cpu().numpy()
