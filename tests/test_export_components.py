"""Components of random masks: block by block they are those of the whole, with exact outlines."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from skimage.measure import label, perimeter_crofton, regionprops

from wsi_twostage.export.components import Block, Cells, find, framed, merge
from wsi_twostage.export.outlines import rings
from wsi_twostage.export.parts import Components
from wsi_twostage.tiles import TileGrid

IMAGES = st.tuples(st.integers(1, 16), st.integers(1, 16)).flatmap(
    lambda shape: arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 1, 1, 2]))
)


def components(image: NDArray[np.uint8], edge: int) -> list[Components]:
    """All batches of an image that is read in blocks of ``edge`` px."""
    height, width = image.shape
    grid = TileGrid(height, width, edge)
    weight = np.arange(image.size, dtype=np.float32).reshape(image.shape)
    blocks = (
        Block(
            box,
            image[box.slices],
            image[box.slices].astype(np.int64),
            Cells(weight[box.slices], 1),
            Cells(np.where(weight % 2, 1, 2).astype(np.uint8)[box.slices], 1),
        )
        for box in map(grid.box, grid)
    )
    return list(merge((find(each, width) for each in framed(blocks, height, width)), height, width))


def together(batches: list[Components]) -> Components:
    every = Components.joined(batches)
    order = np.argsort(every.table["first"])
    place = np.argsort(order)
    every.corners["owner"] = place[every.corners["owner"]]
    return Components(every.table[order], every.corners)


def polygons(found: Components) -> list[shapely.Polygon]:
    """One for each row of the table."""
    linked = rings(found.corners)
    each: list[list[NDArray[np.int32]]] = [[] for _ in found.table]
    for owner, start, end in zip(linked.owners, linked.starts, linked.starts[1:], strict=False):
        each[owner].append(linked.points[start:end, ::-1])
    return [shapely.Polygon(outer, holes) for outer, *holes in each]


@settings(deadline=None, max_examples=100)
@given(image=IMAGES, edge=st.integers(1, 9))
def test_every_object_is_there_once_and_whole_whatever_the_blocks(
    image: NDArray[np.uint8], edge: int
) -> None:
    found = together(components(image, edge)).table
    whole = np.asarray(label(image, background=0, connectivity=1))
    expected = regionprops(whole)
    assert len(found) == len(expected)
    for row, region in zip(found, expected, strict=True):  # both by the first pixel
        assert row["area"] == region.area
        assert row["first"] == np.flatnonzero(whole == region.label)[0]
        assert row["label"] == image[whole == region.label][0]
        assert (row["top"], row["left"], row["bottom"], row["right"]) == region.bbox
        centroid = row["rows"] / row["area"], row["cols"] / row["area"]
        assert centroid == pytest.approx(region.centroid)
        at = np.flatnonzero(whole == region.label)
        assert row["uncertainty"] == at.sum()
        assert row["sources"] == np.bitwise_or.reduce(np.where(at % 2, 1, 2))


@settings(deadline=None, max_examples=100)
@given(image=IMAGES, edge=st.integers(1, 9))
def test_outlines_are_valid_and_cover_exactly_the_pixels(image: NDArray[np.uint8], edge: int) -> None:
    found = together(components(image, edge))
    whole = np.asarray(label(image, background=0, connectivity=1))
    xs, ys = (grid.ravel() + 0.5 for grid in np.meshgrid(*(np.arange(n) for n in image.shape[::-1])))
    for index, polygon in enumerate(polygons(found)):
        assert polygon.is_valid, shapely.is_valid_reason(polygon)
        assert polygon.area == found.table["area"][index]
        inside = shapely.contains_xy(polygon, xs, ys).reshape(image.shape)
        assert (inside == (whole == index + 1)).all()


@settings(deadline=None, max_examples=50)
@given(image=IMAGES, edge=st.integers(1, 9))
def test_outer_rings_turn_one_way_and_holes_the_other(image: NDArray[np.uint8], edge: int) -> None:
    found = together(components(image, edge))
    linked = rings(found.corners)
    outer = np.append(True, np.diff(linked.owners) > 0)[: len(linked.owners)]
    for start, end, positive in zip(linked.starts, linked.starts[1:], outer, strict=False):
        y, x = linked.points[start:end].T.astype(np.int64)
        area = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum()
        assert (area > 0) == positive


@settings(deadline=None, max_examples=50)
@given(image=IMAGES, one=st.integers(1, 9), two=st.integers(1, 24))
def test_the_perimeter_does_not_know_the_blocks(image: NDArray[np.uint8], one: int, two: int) -> None:
    first, second = (together(components(image, edge)).table["perimeter"] for edge in (one, two))
    np.testing.assert_allclose(first, second)


def test_the_perimeter_is_croftons() -> None:
    y, x = np.ogrid[:60, :90]
    image = ((y - 30) ** 2 + (x - 30) ** 2 < 20**2) ^ ((y - 28) ** 2 + (x - 32) ** 2 < 6**2)
    image |= (np.abs(y - 30) < 9) & (np.abs(x - 70) < 12)
    found = together(components(image.astype(np.uint8), 17)).table
    for row, region in zip(found, regionprops(label(image)), strict=True):
        assert row["perimeter"] == pytest.approx(perimeter_crofton(region.image, directions=4))


def test_objects_inside_of_a_block_do_not_wait_for_the_row() -> None:
    image = np.zeros((8, 16), np.uint8)
    image[2:4, 2:4] = image[3:5, 6:10] = image[7, 15] = 1
    batches = components(image, 8)
    assert [batch.table["area"].tolist() for batch in batches] == [[4], [1], [8]]


def test_a_component_over_all_blocks_is_one() -> None:
    image = np.ones((50, 70), np.uint8)
    image[::2, 1:] = 0  # a comb
    (batch,) = components(image, 8)
    assert batch.table["area"].tolist() == [int(image.sum())]
    (polygon,) = polygons(batch)
    assert polygon.area == image.sum()
    assert not polygon.interiors
