"""Which tiles Model 2 gets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from wsi_twostage.errors import ConfigError
from wsi_twostage.selection import (
    ALL,
    NONE,
    Duration,
    Fraction,
    Rule,
    TargetGap,
    Threshold,
    TileCount,
    parse_budget,
    select,
)

maps = arrays(np.float32, (4, 5), elements=st.floats(0, 1, width=32))
tissues = arrays(np.bool_, (4, 5))
Scores = NDArray[np.float32]
Tissue = NDArray[np.bool_]


@given(maps, tissues)
def test_threshold_0_takes_every_tissue_tile(scores: Scores, tissue: Tissue) -> None:
    assert (select(scores, tissue, Threshold(0)).chosen == tissue).all()
    assert (select(scores, tissue, ALL).chosen == tissue).all()


@given(maps, tissues)
def test_a_budget_of_nothing_takes_no_tile(scores: Scores, tissue: Tissue) -> None:
    assert not select(scores, tissue, NONE).chosen.any()


@given(maps, tissues, st.floats(0, 1), st.floats(0, 1))
def test_raising_the_threshold_never_adds_a_tile(
    scores: Scores, tissue: Tissue, one: float, two: float
) -> None:
    low, high = sorted([one, two])
    more, less = select(scores, tissue, Threshold(low)), select(scores, tissue, Threshold(high))
    assert not (less.chosen & ~more.chosen).any()


@given(maps, tissues, st.floats(0, 1))
def test_a_budget_takes_the_most_uncertain(scores: Scores, tissue: Tissue, share: float) -> None:
    selection = select(scores, tissue, Fraction(share))
    assert len(selection.order) == selection.chosen.sum() == round(share * tissue.sum())
    left = scores[tissue & ~selection.chosen]
    if len(selection.order) and len(left):
        assert scores[selection.chosen].min() >= left.max()
    assert (np.diff(scores.ravel()[selection.order]) <= 0).all()


def test_the_threshold_itself_is_taken() -> None:
    scores = np.array([[0.25, 0.2]], np.float32)
    assert select(scores, np.ones((1, 2), np.bool_), Threshold(0.25)).chosen.tolist() == [[True, False]]


@pytest.mark.parametrize("text", ["1.5tiles", "1.tiles"])
def test_tiles_are_whole(text: str) -> None:
    with pytest.raises(ConfigError, match="tiles are whole"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["10", "ten%", "-1%", "101%", "", "%"])
def test_a_bad_budget_is_one_clear_line(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a share"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (" 12.5% ", Fraction(0.125)),
        ("500tiles", TileCount(500)),
        ("1 tile", TileCount(1)),
        ("120s", Duration(120)),
        ("1.5min", Duration(90)),
        ("2h", Duration(7200)),
    ],
)
def test_a_budget_is_a_share_or_tiles_or_time(text: str, rule: Rule) -> None:
    assert parse_budget(text) == rule


def test_a_number_of_tiles_takes_the_most_uncertain() -> None:
    scores = np.array([[0.1, 0.5], [0.4, 0.2]], np.float32)
    assert select(scores, scores > 0, TileCount(2)).order.tolist() == [1, 2]
    assert select(scores, scores > 0, TileCount(9)).order.tolist() == [1, 2, 3, 0]
    assert select(scores, scores > 0, Duration(1)).order.tolist() == [1, 2, 3, 0]


def test_a_threshold_outside_of_0_and_1_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"within 0\.\.1"):
        Threshold(1.5)


@pytest.mark.parametrize("rule", [0.1, "10%", None, TargetGap(0.1)])
def test_what_is_no_rule_is_refused(rule: object) -> None:
    with pytest.raises(ConfigError, match=r"rule=.*; give one of Threshold, Fraction, TileCount, Duration"):
        select(np.zeros((2, 2), np.float32), np.ones((2, 2), np.bool_), rule)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [-1, 2.5, float("nan"), float("inf")])
def test_a_count_of_tiles_is_whole(count: int) -> None:
    with pytest.raises(ConfigError, match="expected a whole number"):
        TileCount(count)
