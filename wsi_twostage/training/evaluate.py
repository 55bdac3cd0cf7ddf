"""How good both stages are on labelled images: Dice, temperature, and the gap that skipped tiles leave."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wsi_twostage.answers import enlarge, to_labels, to_probability
from wsi_twostage.dice import Counts, dices, overlap
from wsi_twostage.models.bundle import ModelBundle
from wsi_twostage.models.spec import CONTEXT_STRIDE, STRIDE, BundleSpec
from wsi_twostage.models.stage import ensure_numbers
from wsi_twostage.models.twostage import TwoStageNet
from wsi_twostage.quality import Case, TileAnswers, tally
from wsi_twostage.tiles import Box
from wsi_twostage.training.data import Sample
from wsi_twostage.uncertainty import of_bytes, tile_mean

CUTS = np.round(np.arange(0.2, 0.8001, 0.025), 3)  # decision thresholds that are tried


@dataclass(frozen=True, eq=False)
class Answer:
    """What both stages say of one image, as the pipeline would: with its 8 bits and its enlargement."""

    sample: Sample
    coarse: Tensor  # (K, h, w): Model 1's logits on its own grid, before temperature
    fine: Tensor  # (K, H, W): Model 2's logits

    @property
    def truth(self) -> Tensor:
        return self.sample.mask[0] > 0

    @property
    def box(self) -> Box:
        """All of the image."""
        return Box(0, 0, *self.fine.shape[1:])

    def first(self, spec: BundleSpec) -> Tensor:
        """Model 1's logits enlarged to the image, (K, H, W)."""
        p = to_probability(self.coarse, spec.temperature)
        return enlarge(p, at=Box(0, 0, *p.shape[1:]), wanted=self.box, ratio=spec.step)


@torch.inference_mode()
def answers(
    net: TwoStageNet | ModelBundle, samples: Iterable[Sample], spec: BundleSpec, device: torch.device
) -> Iterator[Answer]:
    """Run both stages on whole images, with glass around them as beyond the edge of a slide.

    Raises
    ------
    BundleError
        A stage gives NaN.
    """
    for sample in samples:
        image = sample.image.to(device)[None].float() / 255
        height, width = image.shape[2:]
        unit = STRIDE * max(spec.ratio, CONTEXT_STRIDE)
        even = functional.pad(image, (0, -width % unit, 0, -height % unit), value=1.0)
        halo, cut = spec.halo, spec.coarse_halo * spec.scale
        first = net.f1(_level(even, spec.ratio, halo=spec.coarse_halo))[0].float()
        around = _level(even, CONTEXT_STRIDE, halo=spec.context_halo)
        second = net.f2(_level(even, 1, halo=halo), around)[0].float()
        for answer in (first, second):
            ensure_numbers(answer, spec.name)
        rows, cols = -(-height // spec.step), -(-width // spec.step)
        yield Answer(
            sample,
            first[:, cut : cut + rows, cut : cut + cols].cpu(),
            second[:, halo : halo + height, halo : halo + width].cpu(),
        )


def _level(image: Tensor, ratio: int, *, halo: int) -> Tensor:
    """A coarser level with ``halo`` of its px around it, in the 8 bits that a slide's view has."""
    white = functional.pad(image, (halo * ratio,) * 4, value=1.0)
    return (functional.avg_pool2d(white, ratio) * 255).round() / 255


def overlaps(logits: Sequence[Tensor], truths: Sequence[Tensor], cuts: Counts = CUTS) -> Counts:
    """What predictions at each of these probabilities share with the truth: (images, cuts, 3)."""
    counts = np.zeros((len(truths), len(cuts), 3))
    for i, (z, truth) in enumerate(zip(logits, truths, strict=True)):
        for j, cut in enumerate(torch.from_numpy(cuts).logit()):
            counts[i, j] = overlap(z[0] >= cut, truth)
    return counts


def fit_temperature(found: Sequence[Answer]) -> float:
    """The temperature with the least cross-entropy of Model 1's enlarged logits (Guo et al., ICML 2017)."""
    grid = np.exp(np.linspace(np.log(0.5), np.log(3), 40))
    losses = np.zeros(len(grid))
    for answer in found:
        size = answer.truth.shape
        z = functional.interpolate(answer.coarse[None], size=size, mode="bilinear", align_corners=False)[0, 0]
        truth = answer.truth.float()
        losses += [float(functional.binary_cross_entropy_with_logits(z / t, truth)) for t in grid]
    return float(grid[losses.argmin()])


def case_of_answer(answer: Answer, spec: BundleSpec) -> Case:
    """Of an image that both models saw."""
    p = to_probability(answer.coarse, spec.temperature)
    first = to_labels(answer.first(spec), spec.decisions[0])
    second = to_labels(answer.fine, spec.decisions[1])
    tiles = [
        TileAnswers(p[0][box.coarser(spec.step).slices], first[box.slices], second[box.slices])
        for box in answer.box.parts(spec.tile)
    ]
    return tally(answer.sample.name, tiles, step=spec.step)


@dataclass(frozen=True, slots=True)
class Curve:
    """What is refined at each threshold, and how far the result then is from refining everything."""

    threshold: Counts
    fraction: Counts  # of the tiles, 0..1
    dice: Counts  # pooled, against the truth, 0..1

    @property
    def gap(self) -> Counts:
        """Dice lost to refining everything; index 0 of the curve refines everything."""
        return np.asarray(self.dice[0] - self.dice)

    def threshold_for(self, gap: float) -> float:
        """The highest threshold up to which the gap never exceeds ``gap``."""
        bad = np.flatnonzero(self.gap > gap)
        last = int(bad[0]) - 1 if len(bad) else len(self.gap) - 1
        return float(self.threshold[max(last, 0)])

    def as_json(self) -> list[dict[str, float]]:
        """Some twenty points."""
        points = np.unique(np.linspace(0, len(self.threshold) - 1, 21).astype(int))
        return [
            {
                "threshold": round(float(self.threshold[i]), 4),
                "fraction": round(float(self.fraction[i]), 4),
                "dice": round(100 * float(self.dice[i]), 3),
            }
            for i in points
        ]


def curve(found: Sequence[Answer], spec: BundleSpec) -> Curve:
    """The curve over the tiles of images, at the spec's decisions and temperature."""
    scores: list[Any] = []
    counts: list[Any] = []
    for answer in found:
        u = of_bytes("entropy", to_probability(answer.coarse, spec.temperature))
        scores.extend(tile_mean(u, spec.tile // spec.step).ravel())
        stages = zip((answer.first(spec), answer.fine), spec.decisions, strict=True)
        masks = [(z[0] >= torch.tensor(cut).logit()) for z, cut in stages]
        truth = answer.truth
        counts.extend(
            [overlap(mask[box.slices], truth[box.slices]) for mask in masks]
            for box in answer.box.parts(spec.tile)
        )
    order = np.argsort(scores, kind="stable")  # from the surest tile on, tiles are left to Model 1
    h, n = np.asarray(scores)[order], np.asarray(counts, np.float64)[order]  # (tiles,), (tiles, 2, 3)
    skipped = np.concatenate([np.zeros((1, 3)), n[:, 0].cumsum(0)])
    refined = n[:, 1].sum(0) - np.concatenate([np.zeros((1, 3)), n[:, 1].cumsum(0)])
    total = skipped + refined  # (tiles + 1, 3): the first i tiles are Model 1's
    thresholds = np.concatenate([[0.0], np.nextafter(h, 2.0)])
    return Curve(thresholds, 1 - np.arange(len(h) + 1) / len(h), dices(total))
