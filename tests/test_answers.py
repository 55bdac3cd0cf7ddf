"""The numbers between the two stages."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from wsi_twostage.answers import enlarge, to_labels, to_logits, to_probability
from wsi_twostage.tiles import Box


def test_temperature_divides_the_logits() -> None:
    logits = torch.tensor([[[2.0, -2.0]]])
    expected = np.rint(255 * torch.sigmoid(logits / 2).numpy())
    np.testing.assert_array_equal(to_probability(logits, 2.0), expected)


def test_logits_come_back_from_8_bits() -> None:
    logits = torch.linspace(-3, 3, 50).view(1, 1, -1)
    torch.testing.assert_close(to_logits(to_probability(logits, 1.0)), logits, atol=0.12, rtol=0)


@given(st.integers(0, 20), st.integers(0, 30), st.integers(1, 20), st.integers(1, 30))
def test_enlarging_a_part_gives_the_pixels_of_the_whole(top: int, left: int, height: int, width: int) -> None:
    p = np.random.default_rng(0).integers(0, 256, (1, 11, 16), np.uint8)
    whole = enlarge(p, at=Box(0, 0, 11, 16), wanted=Box(0, 0, 44, 64), ratio=4)
    box = Box(top, left, height, width).clip(44, 64)
    at = box.coarser(4).grow(1).clip(11, 16)
    part = enlarge(p[:, *at.slices], at=at, wanted=box, ratio=4)
    torch.testing.assert_close(part, whole[:, *box.slices], atol=1e-5, rtol=0)


def test_enlarging_is_bilinear_on_logits() -> None:
    p = np.random.default_rng(1).integers(0, 256, (1, 5, 6), np.uint8)
    expected = functional.interpolate(to_logits(p)[None], scale_factor=2.0, mode="bilinear")[0]
    torch.testing.assert_close(enlarge(p, at=Box(0, 0, 5, 6), wanted=Box(0, 0, 10, 12), ratio=2), expected)


@pytest.mark.parametrize(("decision", "expected"), [(0.3, [1, 1, 1]), (0.5, [0, 1, 1]), (0.7, [0, 0, 1])])
def test_a_pixel_is_foreground_from_its_decision_on(decision: float, expected: list[int]) -> None:
    logits = torch.tensor([0.4, 0.6, 0.8]).logit().view(1, 1, 3)
    assert to_labels(logits, decision).ravel().tolist() == expected


def test_several_classes_take_the_likeliest() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.5, 2.0]]).view(3, 1, 2)
    assert to_labels(logits, 0.5).tolist() == [[0, 1]]
