"""Train networks on random crops; reads top to bottom in the order things happen.

Model 2 is the full-resolution reference itself, trained together with the coarse network that is its
context. Model 1 learns from the labels at full resolution (its logits are enlarged first) and from Model 2's
answer: in that same training, or afterwards as a student of its own.
"""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_twostage.errors import ConfigError
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.models.unet import UNet
from wsi_twostage.training.augment import random_crops, vary
from wsi_twostage.training.config import TrainConfig
from wsi_twostage.training.state import read_metadata, read_state, write_state

CHECKPOINT_EVERY = 250  # steps, and
REPORT_S = 30.0  # seconds at most: of small steps many, of large ones few


@dataclass(frozen=True, slots=True)
class Step:
    """Where training stands."""

    step: int
    steps: int
    loss: float


Loss = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""Of images (B, 3, S, S) in 0..1, by a recipe yet to be varied, and what is known of them, (B, n, S, S)."""


def train(
    net: nn.Module,
    images: Tensor,
    masks: Tensor,
    config: TrainConfig,
    *,
    loss_of: Loss,
    device: torch.device,
    checkpoint: Path | None = None,
) -> Iterator[Step]:
    """Train ``net`` in place and leave the averaged weights in it; yields now and then.

    Parameters
    ----------
    images, masks
        uint8, (N, 3, S, S) and (N, n, S, S); they are moved to ``device`` whole. Masks become what
        ``loss_of`` gets: divided by 255.
    checkpoint
        Folder for the state; a run that finds one goes on from there.
    """
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if config.keep_norms:
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    average = copy.deepcopy(net).requires_grad_(False)
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    state = checkpoint / "state.safetensors" if checkpoint else None
    key = _key(net, images, masks, config) if state else ""
    images, masks = images.to(device), masks.to(device)
    nets = {"net": net, "average": average}
    start = _resume(state, key, nets, optimiser, generator) if state else 0
    total, count, said = torch.zeros((), device=device), 0, time.monotonic()
    for step in range(start, config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _schedule(step, config)
        crops, truth = random_crops(
            images,
            masks,
            count=config.batch,
            side=config.side + 2 * config.margin * config.ratio,
            how=config.augmentation,
            generator=generator,
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            loss = loss_of(crops, truth, generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        move_average(average, net, min(config.average, (step + 1) / (step + 10)))
        total += loss.detach()
        count += 1
        late = time.monotonic() - said > REPORT_S
        if late or (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == config.steps:
            mean = float(total) / count
            if not math.isfinite(mean):  # and so are the weights, for good
                raise ConfigError(
                    f"{config.name}: the loss is {mean} at step {step + 1}; try a learning_rate "
                    f"below {config.learning_rate:g}"
                )
            yield Step(step + 1, config.steps, mean)
            total.zero_()
            count, said = 0, time.monotonic()
            if state:
                more = {
                    "step": torch.tensor(step + 1),
                    "generator": generator.get_state(),
                    "torch": torch.get_rng_state(),
                }
                write_state(state, nets, optimiser, {"config": key}, more)
    net.load_state_dict(average.state_dict())
    net.eval()


def joint_loss(
    net: TwoStageNet, config: TrainConfig, crops: Tensor, truth: Tensor, generator: torch.Generator
) -> Tensor:
    """Of Model 2 and of the coarse network under it, which also learns from Model 2."""
    crops = vary(crops, how=config.augmentation, generator=generator)
    edge = config.margin * config.ratio
    inner = slice(edge, edge + config.side)
    fine, fine_truth = crops[..., inner, inner], truth[..., inner, inner]
    first = net.coarse(functional.avg_pool2d(crops, config.ratio))
    context = net.context(first, fine) if net.fine.context else None
    second = net.fine(fine, context).logits.float()
    enlarged = functional.interpolate(
        first.logits.float(), size=truth.shape[-2:], mode="bilinear", align_corners=False
    )
    target = truth.clone()
    target[..., inner, inner] += config.distil * (second.detach().sigmoid() - fine_truth)
    return (
        functional.binary_cross_entropy_with_logits(second, fine_truth)
        + config.dice_weight * soft_dice_loss(second, fine_truth)
        + functional.binary_cross_entropy_with_logits(enlarged, target)
        + config.coarse_dice_weight * soft_dice_loss(enlarged, target)
    )


def student_loss(
    net: UNet, config: TrainConfig, crops: Tensor, known: Tensor, generator: torch.Generator
) -> Tensor:
    """Of Model 1 alone, against the truth and Model 2's answer to the image as it was, (B, 2, S, S)."""
    truth, answer = known[:, :1], known[:, 1:]
    small = functional.avg_pool2d(crops, config.ratio)
    logits = net(vary(small, how=config.augmentation, generator=generator)).logits.float()
    enlarged = functional.interpolate(logits, size=truth.shape[-2:], mode="bilinear", align_corners=False)
    target = truth + config.distil * (answer - truth)
    return functional.binary_cross_entropy_with_logits(
        enlarged, target
    ) + config.coarse_dice_weight * soft_dice_loss(enlarged, target)


def soft_dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice of probabilities, pooled over the batch; (B, K, H, W)."""
    p = logits.sigmoid()
    return 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)


def _schedule(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a half cosine to 1 %."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    return half_cosine((step - config.warmup) / max(config.steps - config.warmup, 1))


def half_cosine(done: float) -> float:
    """Share of the learning rate after a part of the training, 0..1: from 1 to 1 %."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def move_average(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Exponential moving average of weights and of the batch norms' statistics, in place."""
    pairs = list(zip(average.state_dict().values(), net.state_dict().values(), strict=True))
    floating = [(a, n) for a, n in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floating], [n for _, n in floating], 1 - decay)


def _key(net: nn.Module, images: Tensor, masks: Tensor, config: TrainConfig) -> str:
    """Of all that decides a training but what is made from it on the way, as Model 2's answers are."""
    found = hashlib.sha256(repr(config).encode())
    for tensor in (images, masks[:, :1], *net.state_dict().values()):
        found.update(tensor.cpu().contiguous().numpy().data)
    return found.hexdigest()


def _resume(
    path: Path,
    key: str,
    nets: dict[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> int:
    """The step to go on with."""
    if not path.exists():
        return 0
    if read_metadata(path) != {"config": key}:
        raise ConfigError(
            f"{path.parent}: a training with another configuration, other images or other first weights was "
            f"left here; remove it"
        )
    more, _ = read_state(path, nets, optimiser)
    generator.set_state(more["generator"])
    torch.set_rng_state(more["torch"])
    return int(more["step"])
