"""Algorithm 1 in memory, against a brute force on the whole image."""

import numpy as np
import pytest
import torch
from conftest import constant_bundle, small_bundle
from slides import texture

from wsi_twostage.algorithm import two_stage
from wsi_twostage.errors import ConfigError
from wsi_twostage.pixels import Image
from wsi_twostage.selection import ALL, NONE, Fraction, Threshold
from wsi_twostage.tiles import Box


@pytest.mark.parametrize("rule", [ALL, NONE, Fraction(0.4), Threshold(0.5)], ids=str)
@pytest.mark.parametrize("level", [-3.0, 3.0])
def test_a_constant_model_gives_a_constant_mask(rule: object, level: float) -> None:
    result = two_stage(texture(300, 260), constant_bundle(level, level), rule)  # type: ignore[arg-type]
    assert (result.labels == (level > 0)).all()


def test_refining_everything_is_model_2_on_the_whole_image() -> None:
    image, bundle = texture(256, 384), small_bundle()
    x = Image(image)
    fine = x.read(Box(0, 0, 256, 384).grow(32))
    coarse = x.coarser(4).read(Box(0, 0, 64, 96).grow(16))
    tensors = [torch.from_numpy(a)[None].permute(0, 3, 1, 2).float() / 255 for a in (fine, coarse)]
    probability = bundle.f2(*tensors)[0, 0, 32:-32, 32:-32].sigmoid()
    expected = (probability >= bundle.spec.decisions[1]).numpy()
    np.testing.assert_array_equal(two_stage(image, bundle, ALL).labels, expected)


def test_only_the_chosen_tiles_change() -> None:
    image, bundle = texture(300, 500), small_bundle()
    none, some = two_stage(image, bundle, NONE), two_stage(image, bundle, Fraction(0.3))
    everything = two_stage(image, bundle, ALL)
    chosen = np.repeat(np.repeat(some.selection.chosen, 128, 0), 128, 1)[:300, :500]
    assert 0 < some.selection.chosen.sum() < some.selection.chosen.size
    np.testing.assert_array_equal(some.labels, np.where(chosen, everything.labels, none.labels))


def test_tiles_without_tissue_are_background() -> None:
    tissue = np.zeros((3, 4), np.bool_)
    tissue[1, 2] = True
    result = two_stage(texture(300, 500), constant_bundle(3, 3), ALL, tissue=tissue)
    assert result.labels.sum() == 128 * 128
    assert result.labels[128:256, 256:384].all()


def test_the_mean_of_a_cut_cell_is_of_what_it_has() -> None:
    image = np.zeros((5, 6, 3), np.uint8)
    image[4, :] = 100
    image[4, 4:] = 200
    assert Image(image).coarser(4).array[..., 0].tolist() == [[0, 0], [100, 200]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image": texture(128, 128) / 255}, "an image of float64"),
        ({"image": texture(128, 128).astype(np.uint16)}, "an image of uint16"),
        ({"image": texture(128, 128)[..., 0]}, r"expected uint8, \(H, W, 3\)"),
        ({"rule": 0.1}, "rule=0.1; give one of"),
        ({"uncertainty": "entropie"}, "did you mean entropy"),
        ({"tissue": np.ones((2, 2), np.bool_)}, "tissue of .* tiles; expected"),
    ],
)
def test_what_cannot_be_segmented_is_refused(changes: dict[str, object], said: str) -> None:
    given = {"image": texture(128, 128), "bundle": small_bundle(), "rule": ALL} | changes
    with pytest.raises(ConfigError, match=said):
        two_stage(**given)  # type: ignore[arg-type]
