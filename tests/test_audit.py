"""The gap that is left: an estimate and a bound that hold where the truth is known."""

from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_model
from numpy.typing import NDArray
from slides import texture, write_slide

from wsi_seg.run import summary
from wsi_twostage.audit import enough_of, remaining_gap, sample, strata
from wsi_twostage.errors import ConfigError
from wsi_twostage.further import refine
from wsi_twostage.mask import MaskPyramid, Source
from wsi_twostage.pipeline import segment
from wsi_twostage.selection import ALL, NONE, Fraction
from wsi_twostage.settings import Settings

EVERYWHERE = Settings(tissue="none", workers=2)


def slide_of(
    chance: np.random.RandomState, tiles: int, skew: float, shape: tuple[float, float]
) -> tuple[NDArray[np.float64], ...]:
    """Uncertainty, differing pixels, change and foreground of tiles that Model 2 has not seen.

    The ``shape`` is that of the foreground's beta distribution; below 1, few tiles hold much of it.
    """
    scores = chance.beta(2, 5, tiles)
    foreground = 30_000 * chance.beta(*shape, tiles)
    differ = foreground * np.minimum(0.2 * scores * chance.lognormal(0, skew, tiles), 1)
    differ *= chance.rand(tiles) < 0.8  # many differ nowhere
    return scores, differ, differ * chance.uniform(-1, 1, tiles), foreground


@pytest.mark.parametrize(
    ("tiles", "count", "skew", "shape", "refined"),
    [
        (300, 40, 0.5, (2, 4), 0),
        (2000, 60, 0.9, (2, 4), 0),
        (2000, 150, 1.0, (2, 4), 0),
        (200, 40, 0.6, (2, 4), 0),
        (2000, 60, 0.9, (0.5, 2), 0),
        (1000, 50, 1.0, (0.5, 1.5), 0),
        (2000, 60, 0.9, (2, 4), 0.6),
        (1000, 40, 0.6, (2, 4), 0.3),
    ],
)
def test_the_bound_covers_the_truth_in_at_least_93_of_100_runs(
    tiles: int, count: int, skew: float, shape: tuple[float, float], refined: float
) -> None:
    held, errors, bounds = 0, [], []
    for seed in range(200):
        chance = np.random.RandomState(seed)
        scores, differ, change, foreground = slide_of(chance, tiles, skew, shape)
        order = chance.permutation(tiles)  # `sample` draws alike for like scores
        scores, differ, change, foreground = (a[order] for a in (scores, differ, change, foreground))
        before = scores > np.quantile(scores, 1 - refined)
        seen = (foreground + change)[before].sum()
        scores, differ, change, foreground = (a[~before] for a in (scores, differ, change, foreground))
        chosen = sample(scores.astype(np.float32), count)
        group = strata(scores.astype(np.float32), count)
        left = np.ones(len(scores), bool)
        left[chosen] = False
        known = 2 * (seen + foreground.sum() + change[chosen].sum())
        truth = differ[left].sum() / (known + change[left].sum())
        gap, bound = remaining_gap(
            differ[chosen],
            change[chosen],
            group[chosen],
            np.bincount(group),
            known=float(known),
            enough=float(enough_of((foreground + change * ~left)[:, None])[0]),
            fullest=float(foreground[chosen].max()),
        )
        held += truth <= bound
        errors.append(gap - truth)
        bounds.append(bound)
        assert 0 <= gap <= bound <= 1
    assert held >= 186
    assert np.median(bounds) < 0.5
    assert abs(np.mean(errors)) < 0.2 * np.std(errors) + 1e-4  # no lean to one side


def test_a_sample_is_even_over_the_strata_and_the_same_each_time() -> None:
    scores = np.random.default_rng(0).random(503, np.float32)
    chosen = sample(scores, 40)
    assert len(set(chosen.tolist())) == 40
    assert np.bincount(strata(scores, 40)[chosen]).tolist() == [8] * 5
    np.testing.assert_array_equal(chosen, sample(scores, 40))
    assert sample(scores[:7], 40).tolist() == list(range(7))
    assert len(sample(scores[:0], 40)) == 0


def no_difference(
    tiles: int, *, of: int, known: float, fullest: float, enough: float | None = None
) -> tuple[float, float]:
    """Of a slide whose tiles all hold the same, unless ``enough`` says what those that are left do."""
    zeros, enough = np.zeros(tiles), known / 4 / of if enough is None else enough
    return remaining_gap(
        zeros, zeros, np.zeros(tiles, np.int64), np.array([of]), known=known, enough=enough, fullest=fullest
    )


def test_a_sample_without_a_difference_bounds_how_many_tiles_have_one() -> None:
    # 100 tiles with 1,000 pixels each: with 95 % confidence less than 1 - 0.05^(1/20) of them differ, 14 %
    gap, bound = no_difference(20, of=100, known=2e5, fullest=1e3)
    assert (gap, bound) == (0, pytest.approx(0.139 * 80 * 1e3 / 2e5, rel=1e-2))


def test_a_stray_pixel_is_no_difference() -> None:
    """Two networks never agree to the pixel; one tile in a hundred may be all wrong for all that."""
    stray = np.zeros(50)
    stray[7] = 1
    group = np.arange(50) % 5
    gap, bound = remaining_gap(stray, stray, group, np.full(5, 200), known=2e6, enough=500, fullest=1e3)
    assert 0 < gap < 1e-4
    assert bound == pytest.approx((1 - 0.05 ** (1 / 50)) * 950 * 1e3 / 2e6, rel=1e-2)


def test_a_class_that_the_sample_has_hardly_met_is_promised_nothing() -> None:
    assert no_difference(20, of=100, known=2e5, fullest=5)[1] == 1


def test_a_class_that_the_sample_has_not_met_is_promised_nothing() -> None:
    assert no_difference(20, of=100, known=10, fullest=0) == (0, 1)
    assert no_difference(20, of=100, known=10, enough=0, fullest=0) == (0, 1)


def test_specks_are_no_meeting_with_a_class_in_few_tiles() -> None:
    held = np.zeros((1000, 2))
    held[:10] = 8000  # ten tiles are full of it
    held[10:500, 0] = 50  # and in the first class there are specks in others
    assert enough_of(held)[0] == pytest.approx(8000 / 2 * 80_000 / 104_500, rel=0.01)
    assert enough_of(held)[1] == 4000
    assert enough_of(0 * held).tolist() == [0, 0]


def test_where_less_is_left_less_has_to_be_met() -> None:
    """Most of the class lies where Model 2 has been: what is left is easy, and its sample is like it."""
    gap, bound = no_difference(20, of=100, known=2e6, enough=900, fullest=1e3)
    assert (gap, bound) == (0, pytest.approx(0.139 * 80 * 1e3 / 2e6, rel=1e-2))


@pytest.mark.parametrize(("of", "known"), [(20, 2e5), (100, 0)])
def test_nothing_is_left_of_what_was_all_seen_or_is_nowhere(of: int, known: float) -> None:
    assert no_difference(20, of=of, known=known, fullest=known / 200) == (0, 0)


def test_the_bound_covers_a_class_in_few_tiles_in_at_least_85_of_100_runs() -> None:
    held = 0
    for seed in range(200):
        chance = np.random.RandomState(seed)
        scores, differ, change, foreground = slide_of(chance, 2000, 0.8, (2, 4))
        here = chance.rand(2000) < 0.02 + 0.08 * (seed % 2)
        differ, change, foreground = differ * here, change * here, foreground * here
        chosen, group = sample(scores.astype(np.float32), 50), strata(scores.astype(np.float32), 50)
        left = np.ones(2000, bool)
        left[chosen] = False
        known = float(2 * (foreground.sum() + change[chosen].sum()))
        gap, bound = remaining_gap(
            differ[chosen],
            change[chosen],
            group[chosen],
            np.bincount(group),
            known=known,
            enough=float(enough_of((foreground + change * ~left)[:, None])[0]),
            fullest=float(foreground[chosen].max()),
        )
        held += differ[left].sum() / (known + change[left].sum()) <= bound
        assert 0 <= gap <= bound <= 1
    assert held >= 170


def test_a_run_says_what_is_left_and_the_truth_is_within(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(2200, 2300)])
    model = tiny_model(tmp_path / "tiny.safetensors")
    settings = Settings(tissue="none", workers=2, audit=40)
    result = segment(slide, tmp_path / "o.zarr", bundle=model, rule=Fraction(0.1), settings=settings)
    (left,) = result.audit
    assert (left["name"], result.counts.refined) == ("all", 32 + 40)
    every = segment(slide, tmp_path / "all.zarr", bundle=model, rule=ALL, settings=EVERYWHERE).store
    one, two = (store.lazy(0).compute() > 0 for store in (result.store, every))
    truth = 1 - 2 * (one & two).sum() / (one.sum() + two.sum())
    assert left["gap"] == pytest.approx(truth, abs=max(left["bound"] - left["gap"], 1e-6))
    assert truth <= left["bound"]
    again = segment(slide, tmp_path / "o.zarr", bundle=model, rule=Fraction(0.1), settings=settings)
    assert (again.status, again.audit) == ("done", result.audit)
    kept = MaskPyramid.open(tmp_path / "o.zarr").manifest
    assert kept["audit"]["tiles"] == 40
    assert kept["seconds"] == result.seconds.as_json()  # not those of a run that found nothing to do


def test_more_than_there_is_is_all_of_it(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(300, 300)])
    model = tiny_model(tmp_path / "tiny.safetensors")
    settings = Settings(tissue="none", audit=40)
    result = segment(slide, tmp_path / "o.zarr", bundle=model, rule=NONE, settings=settings)
    assert result.counts.refined == result.counts.tissue
    assert result.audit == ({"name": "all", "gap": 0, "bound": 0},)
    assert result.audited == result.counts.tissue < 40
    assert f"{result.audited} of them for the audit" in summary("slide.tiff", tmp_path / "o.zarr", result)


def test_what_refines_further_forgets_the_audit(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(1300, 1300)])
    model = tiny_model(tmp_path / "tiny.safetensors")
    settings = Settings(tissue="none", audit=16)
    first = segment(slide, tmp_path / "o.zarr", bundle=model, rule=NONE, settings=settings)
    assert first.audit
    second = refine(tmp_path / "o.zarr", Fraction(0.2))
    assert second.audit == ()
    third = refine(tmp_path / "o.zarr", settings=Settings(audit=16))
    assert third.audit
    assert (third.tiles["source"] == Source.MODEL_2).sum() == third.counts.refined


def test_another_rule_forgets_the_audit(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [texture(1300, 1300)])
    model = tiny_model(tmp_path / "tiny.safetensors")
    settings = Settings(tissue="none", audit=16)
    left = [
        segment(slide, tmp_path / "o.zarr", bundle=model, rule=Fraction(share), settings=settings)
        for share in (0.1, 0.4)
    ]
    assert left[0].counts.refined == 12 + 16
    assert 48 + 16 <= left[1].counts.refined <= 48 + 32
    assert left[0].audit != left[1].audit


def test_a_blank_slide_has_nothing_left(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tiff", [np.full((500, 500, 3), 244, np.uint8)])
    model = tiny_model(tmp_path / "tiny.safetensors")
    result = segment(slide, tmp_path / "o.zarr", bundle=model, settings=Settings(audit=16))
    assert (result.status, result.audit[0]["bound"], result.audited) == ("empty", 0, 0)
    said = summary("slide.tiff", tmp_path / "o.zarr", result)
    assert "no tile is left to Model 1" in said
    assert "confidence" not in said


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_sample_of_too_few_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="at least 8"):
        Settings(audit=count)
