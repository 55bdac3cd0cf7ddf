"""Would a cheap Model 2 beat the reference as Model 2? Few layers at full resolution on Model 1's features.

    python tests/benchmarks/shallow.py DATA WORK [--steps 3000]

The shallow network is trained to give the shipped Model 2's answer, on the shipped recipe's training images,
while Model 1 stays as it is; WORK keeps it. Then the slide of `canvas.py` is run with it and with
the reference, each once with `--refine all`. The time of a mixture is added up from these runs: what does not
depend on Model 2, the shallow network on a share of the tiles, the reference on a share of those. A row for
each share of the shipped two stages, and the best two shares that cost no more, chosen in hindsight. Times
are relative to Model 2 everywhere without stage 1.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from canvas import make
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from wsi_twostage.curves.curve import highest
from wsi_twostage.curves.slides import cells_of
from wsi_twostage.dice import dice
from wsi_twostage.models.bundle import ModelBundle, load_net
from wsi_twostage.models.header import SHIPPED, read_spec
from wsi_twostage.models.runner import settle
from wsi_twostage.models.unet import UNet, conv_block
from wsi_twostage.pipeline import segment
from wsi_twostage.selection import ALL, NONE
from wsi_twostage.settings import Settings
from wsi_twostage.training.augment import vary
from wsi_twostage.training.config import read_recipe
from wsi_twostage.training.data import read_data, stack
from wsi_twostage.training.recipe import stack_answers
from wsi_twostage.training.train import soft_dice_loss, train

RECIPE = SHIPPED.parent.parent / "training" / "nuclei-he.toml"
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
DETAIL, WIDTH = 16, 32  # channels at full and at half resolution
BLOCKS = 3


class Shallow(nn.Module):
    """A correction of Model 1's logits, from its features and the pixels."""

    def __init__(self, model_1: UNet, features: int) -> None:
        super().__init__()
        self.model_1 = model_1.requires_grad_(False)
        self.detail = conv_block(3, DETAIL)
        self.down = nn.Sequential(
            nn.Conv2d(DETAIL, WIDTH, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()
        )
        self.join = conv_block(WIDTH + features + 1, WIDTH)
        self.blocks = nn.Sequential(*(conv_block(WIDTH, WIDTH) for _ in range(BLOCKS)))
        self.up = nn.Sequential(nn.Conv2d(WIDTH, 4 * DETAIL, 1), nn.PixelShuffle(2))
        self.last = nn.Sequential(conv_block(2 * DETAIL, DETAIL), nn.Conv2d(DETAIL, 1, 1))

    def train(self, mode: bool = True) -> "Shallow":
        super().train(mode)
        self.model_1.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 -> logits (B, 1, H, W)."""
        with torch.no_grad():
            logits, features = self.model_1(functional.avg_pool2d(x, 2))
        detail = self.detail(4 * x - 2)
        y = self.join(torch.cat([self.down(detail), features, logits / 4], 1))
        y = self.last(torch.cat([self.up(y + self.blocks(y)), detail], 1))
        return y + functional.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds nuinsseg/ and bowl2018/")
    parser.add_argument("work", type=Path, help="where the network and the slide go")
    parser.add_argument("--steps", type=int, default=3000)
    arguments = parser.parse_args()
    spec, net = read_spec(SHIPPED), load_net(SHIPPED)
    shallow = Shallow(load_net(SHIPPED).coarse, spec.coarse.widths[-1] if spec.coarse else 0)
    learned = arguments.work / "shallow.safetensors"
    if not learned.exists():
        learn(shallow, arguments.data, arguments.work, arguments.steps)
        save_file({name: value.contiguous() for name, value in shallow.state_dict().items()}, learned)
    shallow.load_state_dict(load_file(learned))
    for module in (net, shallow):
        settle(module.eval())
    made, labels = make(arguments.work, arguments.data)
    settings = made.settings(Settings(overwrite=True, device="cpu"))
    bundles = (
        ModelBundle(replace(spec, name="shallow"), net.f1, lambda fine, _: shallow(fine)),
        ModelBundle(spec, net.f1, net.f2),
    )
    none, cheap, full = (
        segment(made.slide, arguments.work / f"{i}.zarr", bundle=bundle, rule=rule, settings=settings)
        for i, (bundle, rule) in enumerate(((bundles[1], NONE), (bundles[0], ALL), (bundles[1], ALL)))
    )
    low = cells_of(none.store, cheap.store, labels > 0, full.store)
    high = cells_of(none.store, full.store, labels > 0, full.store)
    counts = np.stack([low.counts[:, 0, 0], low.counts[:, 1, 0], high.counts[:, 1, 0]], 1)  # (tiles, 3, 3)
    start = none.seconds.total
    prices = [run.seconds.stage_2 - none.seconds.stage_2 for run in (cheap, full)]
    whole, best = full.seconds.total - full.seconds.stage_1, dice(counts[:, 2].sum(0))

    def mixture(x: float, y: float) -> tuple[float, float]:
        """Dice and cost with ``x`` of the tiles refined, ``y`` of all by the reference."""
        any_, full_ = highest(high.scores, x), highest(high.scores, y)
        mixed = counts[np.arange(len(counts)), any_.astype(int) + full_]
        return dice(mixed.sum(0)), start + (x - y) * prices[0] + y * prices[1]

    print(
        f"{len(counts)} tiles; Model 1 and all else {start / whole:.1%} of the reference's time, the shallow"
    )
    print(
        f"network {prices[0] / whole:.1%}, the reference {prices[1] / whole:.1%}; gap of the shallow network"
    )
    print(f"everywhere {100 * (best - mixture(1, 0)[0]):.2f} points\n")
    print("| the reference on | times faster | gap | best: shallow on | reference on | times faster | gap |")
    print("|" + "---|" * 7)
    for share in SHARES[:-2]:
        reached, cost = mixture(share, share)
        found = [(*mixture(x, y), x - y, y) for x in SHARES for y in SHARES if y <= x]
        value, spent, x, y = max(entry for entry in found if entry[1] <= cost)
        print(
            f"| {share:.0%} | {whole / cost:.1f} | {100 * (best - reached):.2f} "
            f"| {x:.0%} | {y:.0%} | {whole / spent:.1f} | {100 * (best - value):.2f} |"
        )


def learn(net: Shallow, data: Path, work: Path, steps: int) -> None:
    """Train on the reference's answers; goes on from a checkpoint."""
    recipe, cpu = read_recipe(RECIPE), torch.device("cpu")
    training = [sample for part in read_data(data, recipe.first.data).values() for sample in part.train]
    images, _ = stack(training, side=recipe.first.image_side)
    answer = stack_answers(load_net(SHIPPED), training, read_spec(SHIPPED), images.shape[-1], cpu)
    config = replace(
        recipe.first, steps=steps, margin=0, batch=6, learning_rate=2e-3, warmup=100, average=0.998
    )

    def loss_of(crops: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        logits = net(vary(crops, how=config.augmentation, generator=generator)).float()
        return functional.binary_cross_entropy_with_logits(logits, target) + soft_dice_loss(logits, target)

    for step in train(net, images, answer, config, loss_of=loss_of, device=cpu, checkpoint=work / "shallow"):
        print(f"step {step.step} of {step.steps}, loss {step.loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
