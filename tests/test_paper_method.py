"""Algorithm 1 on images in memory: cells, scores, the draw, the merge, and the whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsi_twostage.paper import method
from wsi_twostage.paper.experiment import Experiment
from wsi_twostage.paper.images import Augmentation, seeded, vary
from wsi_twostage.paper.networks import Output

PAPER = Experiment("tiny", "folder", side=64, patches=16, context=False)


class Doubt(nn.Module):
    """Logits from the red channel: 0, unsure, where it is black."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Output:
        logits = 20 * x[:, :1]
        return Output(logits if context is None else logits + context[:, :1], x)


def test_a_cell_that_is_unsure_alone_scores_alone() -> None:
    """The published pooling is shifted by a pixel; here the cell is exactly the cell."""
    images = torch.ones(1, 3, 64, 64)
    images[..., 16:32, 48:64] = 0
    first = method.first_stage(Doubt(), images, PAPER)
    h = method.scores(first.logits, PAPER)[0]
    assert h[1, 3] == 1
    assert np.delete(h.ravel(), 7).max() < 1e-6


@pytest.mark.parametrize("halo", [0, 8])
def test_cells_and_merge_are_inverse(halo: int) -> None:
    experiment = replace(PAPER, halo=halo)
    images = torch.rand(2, 1, 64, 64)
    parts = method.cells(images, cell=16, halo=halo)
    assert parts.shape == (2, 4, 4, 1, 16 + 2 * halo, 16 + 2 * halo)
    everything = np.ones((2, 4, 4), np.bool_)
    merged = method.merge(torch.zeros_like(images), parts.flatten(0, 2), everything, experiment)
    torch.testing.assert_close(merged, images)


def test_a_halo_shows_the_real_neighbours() -> None:
    images = torch.rand(1, 1, 64, 64)
    parts = method.cells(images, cell=16, halo=4)
    torch.testing.assert_close(parts[0, 1, 2], images[0, :, 12:36, 28:52])


class Blur(nn.Module):
    """Sees two pixels around each."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Output:
        return Output(nn.functional.avg_pool2d(x[:, :1], 5, 1, 2), x)


def test_refining_every_cell_is_the_reference_if_the_halo_shows_enough() -> None:
    experiment = replace(PAPER, halo=4)
    images = torch.rand(2, 3, 64, 64)
    first = method.first_stage(Doubt(), images, experiment)
    everything = np.ones((2, 4, 4), np.bool_)
    refined = method.second_stage(Blur(), images, first, everything, experiment)
    merged = method.merge(torch.zeros(2, 1, 64, 64), refined, everything, experiment)
    inner = (..., slice(2, -2), slice(2, -2))  # beyond the image's edge a halo is a mirror
    torch.testing.assert_close(merged[inner], Blur()(images).logits[inner])


def test_only_chosen_cells_are_replaced() -> None:
    chosen = np.zeros((1, 4, 4), np.bool_)
    chosen[0, 2, 1] = True
    merged = method.merge(torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 16, 16), chosen, PAPER)
    assert merged[..., 32:48, 16:32].all()
    assert merged.sum() == 256


@pytest.mark.parametrize("selection", ["random", "weighted", "highest"])
def test_one_cell_is_drawn_for_each_image(selection: str) -> None:
    scores = np.random.default_rng(0).random((50, 4, 4)).astype(np.float32)
    chosen = method.draw(scores, selection, seeded(0))
    assert (chosen.sum((1, 2)) == 1).all()
    if selection == "highest":
        np.testing.assert_array_equal(scores[chosen], scores.max((1, 2)))


def test_a_weighted_draw_follows_the_scores() -> None:
    scores = np.zeros((4000, 2, 2), np.float32)
    scores[:, 0, 0], scores[:, 1, 1] = 0.3, 0.1
    counts = method.draw(scores, "weighted", seeded(1)).sum(0)
    assert counts[0, 1] == counts[1, 0] == 0
    assert 0.72 < counts[0, 0] / 4000 < 0.78


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_images_without_any_score_are_drawn_evenly(value: float) -> None:
    counts = method.draw(np.full((400, 2, 2), value, np.float32), "weighted", seeded(2)).sum(0)
    assert counts.min() > 50


def test_context_is_cut_where_the_cell_is() -> None:
    """Model 2 gets Model 1's features of its own cell: with these networks, the smaller image again."""
    experiment = replace(PAPER, context=True)
    images = torch.rand(1, 3, 64, 64)
    first = method.first_stage(Doubt(), images, experiment)
    chosen = np.ones((1, 4, 4), np.bool_)
    refined = method.second_stage(Doubt(), images, first, chosen, experiment)
    merged = method.merge(torch.zeros(1, 1, 64, 64), refined, chosen, experiment)
    small = nn.functional.avg_pool2d(images, 4)
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(merged, (20 * images + large)[:, :1])


def test_nearest_and_bilinear_differ_only_between_pixels() -> None:
    logits = torch.tensor([[[[0.0, 4.0], [0.0, 4.0]]]])
    nearest = method.enlarged(logits, replace(PAPER, side=16, patches=16))
    bilinear = method.enlarged(logits, replace(PAPER, side=16, patches=16, upsampling="bilinear"))
    assert set(nearest.unique().tolist()) == {0.0, 4.0}
    assert bilinear[0, 0, 0, 7].item() == pytest.approx(1.75)


def test_focal_loss_by_hand() -> None:
    """alpha 0.25, gamma 2: at p = 1/2 a foreground pixel costs 0.25 * 0.25 * log 2."""
    zero, one = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert method.loss(zero, one, PAPER).item() == pytest.approx(0.25 * 0.25 * np.log(2))
    assert method.loss(zero, 1 - one, PAPER).item() == pytest.approx(0.75 * 0.25 * np.log(2))


def test_augmentation_keeps_image_and_mask_together() -> None:
    mask = torch.zeros(1, 70, 70)
    mask[:, 20:40, 30:60] = 1
    for i in range(20):
        how = Augmentation(64, turned=True, zoom=1.0 if i % 2 else 1.5)
        image, truth = vary(mask.expand(3, -1, -1), mask, how=how, generator=seeded(i))
        assert image.shape == (3, 64, 64)
        wrong = ((image[0] > 0.5) != (truth[0] > 0.5)).float().mean()
        assert wrong < 0.02  # only along edges that were turned
        assert 0 <= image.min() <= image.max() <= 1


def test_the_same_seed_gives_the_same_image() -> None:
    image, mask = torch.rand(3, 70, 70), torch.rand(1, 70, 70).round()
    one, two, other = (
        vary(image, mask, how=Augmentation(64, turned=True, colour=0.3), generator=seeded(0, epoch, 3))[0]
        for epoch in (1, 1, 2)
    )
    torch.testing.assert_close(one, two)
    assert not torch.equal(one, other)


def test_colours_vary_the_image_alone_and_zoom_changes_the_size_of_objects() -> None:
    image, mask = torch.rand(3, 64, 64), torch.zeros(1, 64, 64)
    mask[:, 24:40, 24:40] = 1
    plain = vary(image, mask, how=Augmentation(64), generator=seeded(3))
    coloured = vary(image, mask, how=Augmentation(64, colour=0.5), generator=seeded(3))
    assert not torch.equal(plain[0], coloured[0])
    assert torch.equal(plain[1], coloured[1])
    areas = [
        float(vary(image, mask, how=Augmentation(64, zoom=2.0), generator=seeded(i))[1].sum())
        for i in range(40)
    ]
    assert 256 / 4 <= min(areas) < 200
    assert 300 < max(areas) <= 256 * 4
