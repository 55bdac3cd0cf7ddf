"""What the pipeline writes is valid OME-Zarr, and lies where the slide lies."""

from pathlib import Path

import numpy as np
import ome_zarr_models
import pytest
import yaozarrs
import zarr
from conftest import constant_bundle, small_bundle
from slides import texture, write_slide

from wsi_twostage.pipeline import segment
from wsi_twostage.selection import ALL, Fraction
from wsi_twostage.settings import Settings
from wsi_twostage.slide import open_slide

EVERYWHERE = Settings(tissue="none")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    slide = write_slide(folder / "slide.tiff", [texture(1111, 1357)])
    segment(slide, folder / "o.zarr", bundle=small_bundle(), rule=Fraction(0.2), settings=EVERYWHERE)
    return folder / "o.zarr"


@pytest.mark.parametrize("group", ["", "labels", "labels/segmentation"])
def test_both_validators_accept_it(store: Path, group: str) -> None:
    ome_zarr_models.open_ome_zarr(zarr.open_group(store / group, mode="r"))
    yaozarrs.validate_zarr_store(str(store / group))


def physical(group: zarr.Group, level: int, pixel: tuple[int, int]) -> np.ndarray:
    """Micrometres of a pixel's centre (y, x), from the metadata alone."""
    dataset = group.attrs["ome"]["multiscales"][0]["datasets"][level]
    scale, translation = (
        next(t[kind] for t in dataset["coordinateTransformations"] if t["type"] == kind)[-2:]
        for kind in ("scale", "translation")
    )
    return np.asarray(scale) * pixel + np.asarray(translation)


def test_every_level_lies_on_the_slide_to_the_pixel(store: Path) -> None:
    """The centre of a level's pixel is the mean of the centres of the fine pixels that it stands for."""
    mask = zarr.open_group(store / "labels/segmentation", mode="r")
    overview = zarr.open_group(store, mode="r")
    finest = overview.attrs["ome"]["multiscales"][0]["datasets"][0]
    step = round(finest["coordinateTransformations"][0]["scale"][-1] / 0.5)
    assert step == 16
    for group, first in ((mask, 1), (overview, step)):
        for level in range(len(group.attrs["ome"]["multiscales"][0]["datasets"])):
            size = first * 2**level
            corners = [
                physical(mask, 0, (3 * size, 5 * size)),
                physical(mask, 0, (4 * size - 1, 6 * size - 1)),
            ]
            np.testing.assert_allclose(physical(group, level, (3, 5)), np.mean(corners, axis=0))


def test_the_mask_lies_on_what_it_was_made_from(tmp_path: Path) -> None:
    """A model that marks dark pixels marks those of the slide, at every level of the mask."""
    from dataclasses import replace

    image = np.full((1400, 1000, 3), 230, np.uint8)
    image[512:1024, 256:512] = 20
    slide = write_slide(tmp_path / "slide.tiff", [image], mpp=0.5)
    bundle = replace(
        constant_bundle(0, 0), f1=lambda x: 20 * (0.5 - x[:, :1]), f2=lambda x, _: 20 * (0.5 - x[:, :1])
    )
    result = segment(slide, tmp_path / "o.zarr", bundle=bundle, rule=ALL, settings=EVERYWHERE)
    view = open_slide(slide).view(1.0)
    for level in range(result.store.levels):
        size = 2**level
        labels = result.store.lazy(level).compute()
        expected = view.array()[::size, ::size, 0].compute() < 128
        np.testing.assert_array_equal(labels, expected)


def test_a_level_is_chosen_by_mpp(store: Path) -> None:
    from wsi_twostage.mask import MaskPyramid
    from wsi_twostage.result import Counts, Result, Seconds

    pyramid = MaskPyramid.open(store)
    result = Result(pyramid, Counts(0, 0, 0, 0), Seconds(*[0.0] * 11))
    assert result.mask(mpp=0.5).shape == (1111, 1357)
    assert result.mask(mpp=1.1).shape == (556, 679)
    assert result.mask(mpp=0.1).shape == (1111, 1357)
    assert result.mask(mpp=1000).shape == pyramid.shape(pyramid.levels - 1)
