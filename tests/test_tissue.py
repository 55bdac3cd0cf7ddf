"""Tissue: found where the colour is, none on glass, all of a full slide; exact fractions per tile."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slides import CMU, real_slide, texture

from wsi_twostage.slide import open_slide
from wsi_twostage.tiles import TileGrid
from wsi_twostage.tissue import otsu, tissue_mask, tissue_tiles

PINK, GLASS = (200, 120, 170), (243, 241, 244)


def noisy(colour: tuple[int, int, int], *, size: int = 60) -> np.ndarray:
    image = np.random.default_rng(0).normal(colour, 2, (size, size, 3))
    return image.clip(0, 255).astype(np.uint8)


def test_a_pink_square_on_glass_is_found_and_widened_by_a_pixel_or_two() -> None:
    image = noisy(GLASS)
    image[20:40, 15:35] = noisy(PINK)[:20, :20]
    mask = tissue_mask(image)
    assert mask[20:40, 15:35].all()
    mask[17:43, 12:38] = False
    assert not mask.any()


def test_glass_has_no_tissue() -> None:
    assert not tissue_mask(noisy(GLASS)).any()
    assert not tissue_mask(np.full((20, 20, 3), 255, np.uint8)).any()


def test_a_slide_full_of_tissue_is_not_split_in_two() -> None:
    image = noisy(PINK)
    image[:30] = noisy((120, 50, 140))[:30]
    assert tissue_mask(image).all()


@pytest.mark.parametrize("factor", [0.6, 0.3])
def test_dim_glass_is_glass(factor: float) -> None:
    image = noisy(GLASS)
    image[20:40, 15:35] = noisy(PINK)[:20, :20]
    mask = tissue_mask((image * factor).astype(np.uint8))
    assert mask[21:39, 16:34].all()
    assert mask.mean() < 0.3
    for gray in (30, 90, 149):
        assert not tissue_mask(noisy((gray, gray, gray))).any()


def test_small_gaps_are_closed_and_large_ones_stay() -> None:
    image = noisy(PINK)
    image[10:13, 10:13] = GLASS
    image[30:50, 30:50] = GLASS
    mask = tissue_mask(image)
    assert mask[5:20, 5:20].all()
    assert not mask[36:44, 36:44].any()


def test_otsu_parts_two_heaps_between_them() -> None:
    values = np.array([3] * 50 + [5] * 10 + [60] * 20 + [66] * 5, np.uint8)
    assert 5 <= otsu(values) < 60


def test_a_real_slide_is_about_a_quarter_tissue() -> None:
    slide = open_slide(real_slide("pathologyatlas_BS9_HE2_duodenum.tiff"), 0.25)
    assert tissue_mask(slide.view_at(8.0)[:]).mean() == pytest.approx(0.25, abs=0.03)


def test_the_slide_of_the_examples_is_found_where_it_is_stained() -> None:
    mask = tissue_mask(open_slide(CMU).view_at(8.0)[:])
    assert mask.mean() == pytest.approx(0.4, abs=0.05)
    assert mask[90:150, 70:80].all()
    assert not mask[10:60, :30].any()


def test_tiles_hold_their_exact_share_of_the_mask() -> None:
    mask = np.zeros((4, 6), bool)
    mask[:2, :3] = True
    # one mask pixel is 10 px; tiles of 20 px, the last column 20 px and the last row 15 px
    found = tissue_tiles(mask, TileGrid(35, 60, 20), 10.0)
    np.testing.assert_allclose(found, [[1, 0.5, 0], [0, 0, 0]])


def test_a_tile_smaller_than_a_mask_pixel_gets_that_pixel() -> None:
    mask = np.eye(3, dtype=bool)
    found = tissue_tiles(mask, TileGrid(30, 30, 5), 10.0)
    np.testing.assert_array_equal(found, mask.repeat(2, axis=0).repeat(2, axis=1))


def test_what_lies_past_the_mask_is_like_its_edge() -> None:
    mask = np.array([[False, True]])
    found = tissue_tiles(mask, TileGrid(19, 45, 10), 10.0)  # two rows and more than two columns too many
    np.testing.assert_array_equal(found, [[0, 1, 1, 1, 1], [0, 1, 1, 1, 1]])


@given(scale=st.floats(0.7, 12), tile=st.integers(3, 90), seed=st.integers(0, 9))
def test_shares_weighed_by_area_add_up_to_the_mask(scale: float, tile: int, seed: int) -> None:
    mask = texture(17, 23, seed=seed)[..., 0] > 128
    height, width = int(17 * scale), int(23 * scale)
    grid = TileGrid(height, width, tile)
    areas = np.reshape([grid.box(at).area for at in grid], (grid.rows, grid.cols))
    padded = tissue_tiles(mask, grid, scale)
    weight_y, weight_x = (
        np.clip(np.minimum(np.arange(1, n + 1), end / scale) - np.arange(n), 0, 1)
        for n, end in ((17, height), (23, width))
    )
    covered = float(weight_y @ mask @ weight_x) * scale**2
    assert float((padded * areas).sum()) == pytest.approx(covered, rel=1e-4, abs=1e-2)


def test_a_large_overview_takes_little_time() -> None:
    image = np.empty((1500, 1500, 3), np.uint8)
    image[:] = GLASS
    image[200:900, 300:800] = PINK
    started = time.process_time()
    tissue_mask(image)
    assert time.process_time() - started < 2  # s; 0.2 s on the machine this was written on


@pytest.mark.parametrize("ink", [(20, 40, 200), (0, 150, 60)])
def test_ink_does_not_outweigh_pale_tissue(ink: tuple[int, int, int]) -> None:
    image = noisy(GLASS)
    image[20:40, 15:35] = noisy((226, 212, 226))[:20, :20]
    image[50:53, :20] = ink
    mask = tissue_mask(image)
    assert mask[20:40, 15:35].mean() > 0.99
    assert not mask[:15].any()


@pytest.mark.parametrize("dark", [(40, 33, 30), (110, 108, 105)], ids=["pigment", "silver"])
def test_what_is_dark_is_tissue_without_a_colour(dark: tuple[int, int, int]) -> None:
    image = noisy(GLASS)
    image[10:30, 10:30] = noisy(PINK)[:20, :20]
    image[35:55, 30:50] = noisy(dark)[:20, :20]
    image[:, 58:] = 0  # nothing was scanned here
    mask = tissue_mask(image)
    assert mask[10:30, 10:30].all()
    assert mask[35:55, 30:50].all()
    assert not mask[:, 58:].any()
