"""Slides of a batch share one cluster; how each ends does not touch the others."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from slides import texture, write_slide

from wsi_twostage import many
from wsi_twostage.batch import Entry
from wsi_twostage.errors import BundleError, ClusterError, ConfigError
from wsi_twostage.events import Event, Listener, Started
from wsi_twostage.lock import locked
from wsi_twostage.many import segment_many
from wsi_twostage.pipeline import segment
from wsi_twostage.selection import Duration, Fraction
from wsi_twostage.settings import Settings

EVERYWHERE = Settings(tissue="none", workers=2)
RULE = Fraction(0.5)


@pytest.fixture
def batch(tmp_path: Path) -> list[Entry]:
    """Two slides with one that is none between them."""
    (tmp_path / "1.tiff").write_text("no slide")
    for seed in (0, 2):
        write_slide(tmp_path / f"{seed}.tiff", [texture(300, 400, seed=seed)])
    return [Entry(str(tmp_path / f"{i}.tiff"), tmp_path / f"{i}.zarr") for i in range(3)]


def test_a_result_that_was_damaged_is_a_line_and_the_rest_goes_on(batch: list[Entry], model: Path) -> None:
    first, _, last = batch
    segment(first.slide, first.output, bundle=model, rule=RULE, settings=EVERYWHERE)
    (chunk,) = (first.output / "wsi_twostage" / "tiles" / "source" / "c").glob("*")
    chunk.write_bytes(b"no chunk")
    outcomes = list(segment_many([first, last], bundle=model, rule=RULE, settings=EVERYWHERE))
    assert [outcome.status for outcome in outcomes] == ["failed", "ok"]
    assert "the tile table cannot be read" in str(outcomes[0].error)


@pytest.mark.parametrize("at_once", [1, 3])
def test_slides_at_the_same_time_give_what_each_gives_alone(
    batch: list[Entry], model: Path, at_once: int
) -> None:
    outcomes = list(segment_many(batch, bundle=model, rule=RULE, settings=EVERYWHERE, at_once=at_once))
    told = {outcome.entry.output.name: outcome for outcome in outcomes}
    assert {name: outcome.status for name, outcome in told.items()} == {
        "0.zarr": "ok",
        "1.zarr": "failed",
        "2.zarr": "ok",
    }
    for entry in (batch[0], batch[2]):
        alone = segment(
            entry.slide, entry.output.with_suffix(".alone"), bundle=model, rule=RULE, settings=EVERYWHERE
        )
        result = told[entry.output.name].result
        assert result is not None
        np.testing.assert_array_equal(result.store.lazy().compute(), alone.store.lazy().compute())


def test_a_slide_is_begun_while_another_is_at_work(batch: list[Entry], model: Path) -> None:
    at_work, most = set[str](), list[int]()

    @contextmanager
    def listener_of(entry: Entry) -> Iterator[Listener]:
        def hear(event: Event) -> None:
            if isinstance(event, Started):
                at_work.add(entry.slide)
                most.append(len(at_work))

        yield hear
        at_work.discard(entry.slide)

    both = [batch[0], batch[2]]
    list(segment_many(both, bundle=model, settings=EVERYWHERE, listener_of=listener_of, at_once=2))
    assert max(most) == 2
    assert not at_work


def test_fail_fast_begins_no_more(batch: list[Entry], model: Path) -> None:
    outcomes = segment_many(batch, bundle=model, rule=RULE, settings=EVERYWHERE, fail_fast=True)
    assert [outcome.status for outcome in outcomes] == ["ok", "failed", "skipped"]


def test_what_no_slide_could_be_segmented_with_is_said_once(batch: list[Entry], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"0\.tiff"):
        list(segment_many(batch, bundle=tmp_path / "0.tiff", settings=EVERYWHERE))
    with pytest.raises(ConfigError, match="threshold is of entropy"):
        list(segment_many(batch, settings=replace(EVERYWHERE, uncertainty="margin")))
    assert not [entry for entry in batch if entry.output.exists()]


def test_what_another_run_is_at_work_on_has_not_failed(batch: list[Entry], model: Path) -> None:
    both = [batch[0], batch[2]]
    for entry in both:
        segment(entry.slide, entry.output, bundle=model, rule=RULE, settings=EVERYWHERE)
    with locked(batch[0].output):
        outcomes = segment_many(both, bundle=model, rule=RULE, settings=EVERYWHERE, fail_fast=True)
        assert [outcome.status for outcome in outcomes] == ["stopped", "done"]


def test_a_lost_cluster_ends_the_batch_but_fails_nothing(
    batch: list[Entry], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: object, **__: object) -> None:
        raise ClusterError("the scheduler went away")

    monkeypatch.setattr(many, "segment", lose)
    outcomes = list(segment_many(batch, bundle=model, settings=EVERYWHERE))
    assert [outcome.status for outcome in outcomes] == ["stopped", "skipped", "skipped"]


def test_a_budget_of_time_is_for_one_slide_at_a_time(batch: list[Entry], model: Path) -> None:
    with pytest.raises(ConfigError, match="one slide at a time"):
        list(segment_many(batch, bundle=model, rule=Duration(5), settings=EVERYWHERE, at_once=2))


def test_a_bug_is_not_a_failed_slide(
    batch: list[Entry], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(many, "segment", stumble)
    with pytest.raises(ZeroDivisionError):
        list(segment_many(batch, bundle=model, settings=replace(EVERYWHERE, workers=1)))
