"""Tiles partition the image, windows cover exactly what was asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_twostage.errors import ConfigError
from wsi_twostage.tiles import Box, Tile, TileGrid, Window, merge

grids = st.builds(TileGrid, st.integers(1, 700), st.integers(1, 700), st.sampled_from([32, 50, 128]))


@given(grids)
def test_tiles_partition_the_image(grid: TileGrid) -> None:
    seen = np.zeros((grid.height, grid.width), np.int64)
    for tile in grid:
        seen[grid.box(tile).slices] += 1
    assert (seen == 1).all()
    assert len(grid) == sum(1 for _ in grid)


@given(grids, st.integers(1, 5), st.sampled_from([0, 16, 200]), st.data())
def test_windows_cover_each_chosen_tile_once(
    grid: TileGrid, limit: int, halo: int, data: st.DataObject
) -> None:
    chosen = data.draw(st.sets(st.sampled_from(list(grid)), max_size=25))
    windows = merge(chosen, grid, limit=limit, halo=halo)
    members = [tile for window in windows for tile in window.tiles]
    assert sorted(members) == sorted(chosen)
    for window in windows:
        assert window.box.area <= limit * grid.tile**2
        assert max(window.box.height, window.box.width) ** 2 <= 2 * limit * grid.tile**2
        assert window.box.height % grid.tile == window.box.width % grid.tile == 0
        for tile in window.tiles:
            box = grid.box(tile)
            assert box.clip(window.box.bottom, window.box.right) == box
            assert box.top >= window.box.top
            assert box.left >= window.box.left


def test_neighbours_share_a_window() -> None:
    grid = TileGrid(1000, 1000, 100)
    block = [Tile(row, col) for row in (2, 3) for col in (4, 5, 6)]
    assert [window.box for window in merge(block, grid, limit=9, halo=0)] == [Box(200, 400, 200, 300)]


def test_windows_join_where_their_halos_cost_more_than_the_gap() -> None:
    grid, corner = TileGrid(1000, 1000, 100), [Tile(0, 0), Tile(1, 1)]
    assert len(merge(corner, grid, limit=4, halo=10)) == 2  # 2 x 120 x 120 < 220 x 220
    assert merge(corner, grid, limit=4, halo=100) == [Window(Box(0, 0, 200, 200), (Tile(0, 0), Tile(1, 1)))]
    assert len(merge(corner, grid, limit=1, halo=100)) == 2


def test_a_box_outside_of_the_image_is_empty() -> None:
    assert Box(-50, -50, 20, 20).clip(100, 100).area == 0
    assert Box(90, 90, 20, 20).clip(100, 100) == Box(90, 90, 10, 10)


def test_a_coarser_box_includes_pixels_covered_in_part() -> None:
    assert Box(3, 4, 6, 4).coarser(4) == Box(0, 1, 3, 1)
    assert Box(-8, 0, 16, 4).coarser(4) == Box(-2, 0, 4, 1)


def test_a_tile_must_shrink_to_whole_pixels() -> None:
    with pytest.raises(ConfigError, match=r"tile=50 px is not a multiple of ratio=4; use 48"):
        TileGrid(100, 100, 50).coarser(4)


def test_a_grid_without_pixels_is_refused() -> None:
    with pytest.raises(ConfigError, match="positive sizes"):
        TileGrid(0, 10, 5)
