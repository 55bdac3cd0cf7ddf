"""Algorithm 1 on batches of images, with any of the paper's choices, and what trains Model 2."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from wsi_twostage.paper.experiment import Experiment
from wsi_twostage.paper.networks import Output
from wsi_twostage.training.train import soft_dice_loss
from wsi_twostage.uncertainty import UNCERTAINTIES, tile_mean


class Network(Protocol):
    """Any of `networks`."""

    def __call__(self, x: Tensor, context: Tensor | None = None) -> Output: ...


class First(NamedTuple):
    """What Model 1 says of a batch."""

    logits: Tensor  # (B, 1, S / ratio, S / ratio)
    context: Tensor | None  # (B, C, S / ratio, S / ratio), its penultimate activation


def shrink(images: Tensor, ratio: int) -> Tensor:
    """down of line 1: the mean of ratio x ratio pixels."""
    return functional.avg_pool2d(images, ratio)


def first_stage(model1: Network, images: Tensor, experiment: Experiment) -> First:
    """f1(down(x)) for images (B, 3, S, S)."""
    logits, features = model1(shrink(images, experiment.ratio))
    if not experiment.context:
        return First(logits, None)
    size = logits.shape[-2:]
    if features.shape[-2:] != size:
        features = functional.interpolate(features, size=size, mode="bilinear", align_corners=False)
    return First(logits, features)


def enlarged(logits: Tensor, experiment: Experiment) -> Tensor:
    """up of line 1: (B, 1, s, s) -> (B, 1, S, S)."""
    return _enlarge(logits, experiment.side, experiment.upsampling)


def scores(logits: Tensor, experiment: Experiment) -> NDArray[np.float32]:
    """h of line 2: mean uncertainty of each cell, (B, ratio, ratio)."""
    u, cell = UNCERTAINTIES[experiment.uncertainty], experiment.cell // experiment.ratio
    return np.stack([tile_mean(u(p), cell) for p in logits.float().sigmoid().cpu().numpy()])


def draw(scored: NDArray[np.float32], selection: str, generator: torch.Generator) -> NDArray[np.bool_]:
    """One cell for each image, as Model 2's training does (Section 3.1), (B, ratio, ratio)."""
    flat = torch.from_numpy(scored).flatten(1)
    if selection == "highest":
        index = flat.argmax(1)
    else:
        weights = flat if selection == "weighted" else torch.ones_like(flat)
        lost = ~(weights.isfinite().all(1) & (weights.sum(1) > 0))
        weights = torch.where(lost[:, None], torch.ones_like(weights), weights)
        index = torch.multinomial(weights, 1, generator=generator)[:, 0]
    chosen = np.zeros(flat.shape, np.bool_)
    np.put_along_axis(chosen, index.numpy()[:, None], True, axis=1)
    return chosen.reshape(scored.shape)


def cells(planes: Tensor, *, cell: int, halo: int) -> Tensor:
    """(B, C, S, S) -> (B, S / cell, S / cell, C, cell + 2 halo, cell + 2 halo); edges are mirrored."""
    if halo:
        planes = functional.pad(
            planes, (halo,) * 4, mode="reflect" if halo < planes.shape[-1] else "replicate"
        )
    window = cell + 2 * halo
    return planes.unfold(2, window, cell).unfold(3, window, cell).permute(0, 2, 3, 1, 4, 5)


def second_stage(
    model2: Network, images: Tensor, first: First, chosen: NDArray[np.bool_], experiment: Experiment
) -> Tensor:
    """f2 on the chosen cells, (n, 1, cell + 2 halo, cell + 2 halo), in reading order."""
    index = torch.from_numpy(chosen).to(images.device)
    crops = cells(images, cell=experiment.cell, halo=experiment.halo)[index]
    context = None
    if first.context is not None:
        ratio = experiment.ratio
        small = cells(first.context, cell=experiment.cell // ratio, halo=experiment.halo // ratio)[index]
        context = _enlarge(small, crops.shape[-1], experiment.upsampling)
    return model2(crops.contiguous(), context).logits


def merge(base: Tensor, refined: Tensor, chosen: NDArray[np.bool_], experiment: Experiment) -> Tensor:
    """line 3: the chosen cells of ``base`` (B, 1, S, S) replaced by the cores of ``refined``."""
    merged, cell, halo = base.clone(), experiment.cell, experiment.halo
    for z, (image, row, col) in zip(refined, np.argwhere(chosen), strict=True):
        at = (image, slice(None), slice(row * cell, (row + 1) * cell), slice(col * cell, (col + 1) * cell))
        merged[at] = z[:, halo : halo + cell, halo : halo + cell].to(base.dtype)
    return merged


def loss(logits: Tensor, truth: Tensor, experiment: Experiment) -> Tensor:
    """Of logits and truth in 0..1, both (B, 1, H, W)."""
    logits = logits.float()
    if experiment.loss == "focal":
        value: Tensor = sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2, reduction="mean")
        return value
    return functional.binary_cross_entropy_with_logits(logits, truth) + soft_dice_loss(logits, truth)


def _enlarge(planes: Tensor, side: int, mode: str) -> Tensor:
    if planes.shape[-1] == side:
        return planes
    if mode == "nearest":
        return functional.interpolate(planes, size=(side, side), mode="nearest")
    return functional.interpolate(planes, size=(side, side), mode="bilinear", align_corners=False)
