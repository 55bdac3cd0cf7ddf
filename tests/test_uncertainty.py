"""u and h against values worked out by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_twostage.uncertainty import UNCERTAINTIES, entropy, expected_gain, margin, paper, tile_mean


def image(*values: float) -> NDArray[np.float32]:
    return np.asarray(values, np.float32).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("u", "p", "expected"),
    [
        (entropy, 0.5, 1.0),
        (entropy, 0.25, 0.811278),
        (entropy, 0.0, 0.0),
        (entropy, 1.0, 0.0),
        (margin, 0.5, 1.0),
        (margin, 0.125, 0.25),
        (margin, 1.0, 0.0),
        (paper, 0.5, 0.5),
        (paper, 0.25, 0.5),
        (paper, 0.9, 0.136803),
        (paper, 0.0, 0.0),
        (expected_gain, 0.5, 1.0),
        (expected_gain, 0.25, 0.5),  # half as likely wrong
        (expected_gain, 0.75, 0.5 * 0.85 / 1.15),  # a false pixel costs less than a missed one
        (expected_gain, 1.0, 0.0),
    ],
)
def test_values_by_hand(u: object, p: float, expected: float) -> None:
    assert u(image(p))[0, 0] == pytest.approx(expected, abs=1e-5)  # type: ignore[operator]


def test_several_classes_are_most_uncertain_when_equal() -> None:
    p = np.full((4, 1, 1), 0.25, np.float32)
    assert entropy(p)[0, 0] == pytest.approx(1)
    assert margin(p)[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("u", UNCERTAINTIES.values(), ids=UNCERTAINTIES)
def test_every_uncertainty_is_within_0_and_1(u: object) -> None:
    values = u(image(*np.linspace(0, 1, 256)))  # type: ignore[operator]
    assert values.min() >= 0
    assert values.max() <= 1


def test_a_bright_cell_scores_alone() -> None:
    u = np.zeros((12, 12), np.float32)
    u[4:8, 8:12] = 1
    expected = np.zeros((3, 3), np.float32)
    expected[1, 2] = 1
    np.testing.assert_array_equal(tile_mean(u, 4), expected)


def test_edge_cells_are_means_of_what_they_have() -> None:
    u = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(tile_mean(u, 2), [[2.0, 3.5]])
