"""Resampling: against sums written out, and the same in every block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from slides import texture

from wsi_twostage.slide.resample import combine, shrink, taps


def resampled(
    image: NDArray[np.uint8], scale: float, rows: tuple[int, int], cols: tuple[int, int]
) -> NDArray[np.uint8]:
    """What a view does: find the taps, cut out the source they need, combine."""
    row_taps = taps(*rows, scale=scale, size=image.shape[0])
    col_taps = taps(*cols, scale=scale, size=image.shape[1])
    (top, bottom), (left, right) = row_taps.span, col_taps.span
    return combine(image[top:bottom, left:right], row_taps, col_taps)


def whole(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    height, width = (int(np.ceil(size / scale - 1e-6)) for size in image.shape[:2])
    return resampled(image, scale, (0, height), (0, width))


def area_matrix(outputs: int, scale: float, size: int) -> NDArray[np.float64]:
    """Part of output i that source pixel j makes up, written out as in the definition."""
    weight = np.zeros((outputs, size))
    for i in range(outputs):
        for j in range(size):
            weight[i, j] = max(0.0, min((i + 1) * scale, j + 1) - max(i * scale, j))
    return weight / weight.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [1.0, 1.25, 1.7, 2.0, 3.3, 5.0, 16.03])
def test_shrinking_averages_exact_areas_clipped_at_the_edge(scale: float) -> None:
    image = texture(53, 38)
    found = whole(image, scale)
    rows, cols = (area_matrix(found.shape[axis], scale, image.shape[axis]) for axis in (0, 1))
    exact = np.einsum("ih,hwc,jw->ijc", rows, image.astype(float), cols)
    assert np.abs(found - exact).max() <= 0.5 + 1e-3


def test_a_pixel_and_a_half_is_weighed_by_hand() -> None:
    image = np.array([0, 30, 90], np.uint8)[:, None, None].repeat(3, axis=2)
    # outputs cover [0, 1.5) and [1.5, 3): (0 + 15) / 1.5 = 10 and (15 + 90) / 1.5 = 70
    assert resampled(image, 1.5, (0, 2), (0, 1))[:, 0, 0].tolist() == [10, 70]


@given(scale=st.integers(1, 9), height=st.integers(1, 40), width=st.integers(1, 40))
def test_shrinking_by_a_whole_number_agrees_with_the_general_way(scale: int, height: int, width: int) -> None:
    image = texture(height, width, seed=height * 41 + width)
    np.testing.assert_array_equal(shrink(image, scale, scale), whole(image, float(scale)))


@pytest.mark.parametrize("scale", [0.5, 0.3, 0.77])
def test_enlarging_follows_straight_lines_between_pixel_centres(scale: float) -> None:
    image = texture(9, 14)
    found = whole(image, scale)
    exact = image.astype(float)
    for axis in (0, 1):
        size, outputs = image.shape[axis], found.shape[axis]
        centres = (np.arange(outputs) + 0.5) * scale - 0.5
        exact = np.apply_along_axis(lambda line: np.interp(centres, np.arange(size), line), axis, exact)  # noqa: B023
    assert np.abs(found - exact).max() <= 0.5 + 1e-3


@given(
    scale=st.one_of(st.floats(0.2, 8), st.sampled_from([0.5, 1.0, 2.0, 3.0])),
    cuts=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_block_equals_the_same_block_of_the_whole(scale: float, cuts: tuple[float, ...]) -> None:
    image = texture(31, 26)
    full = whole(image, scale)
    (top, bottom), (left, right) = (
        sorted(int(cut * (size - 1)) for cut in pair)
        for pair, size in zip((cuts[:2], cuts[2:]), full.shape[:2], strict=True)
    )
    block = resampled(image, scale, (top, bottom + 1), (left, right + 1))
    np.testing.assert_array_equal(block, full[top : bottom + 1, left : right + 1])


def test_an_output_past_the_source_repeats_its_last_pixel() -> None:
    image = texture(50, 50)
    np.testing.assert_array_equal(resampled(image, 2.0, (25, 26), (0, 25)), shrink(image[-1:], 1, 2))


def test_no_more_source_is_asked_for_than_is_covered() -> None:
    scale = 0.7 / 0.1  # 6.999999999999999
    assert taps(1, 2, scale=scale, size=100).span == (7, 14)
