"""Calls on a cluster: few in flight, each result once, and whoever is to blame is found."""

import threading
import time
from collections.abc import Iterable, Iterator
from itertools import count

import pytest
from distributed import Client, Worker
from distributed.core import Status
from faults import die_of

from wsi_twostage import cluster, dispatch
from wsi_twostage.dispatch import AHEAD, Call
from wsi_twostage.errors import ClusterError


@pytest.fixture(scope="module")
def processes() -> Iterator[Client]:
    """Two workers in processes of their own."""
    with cluster.connect(workers=2, processes=2) as client:
        yield client


def double(x: int) -> int:
    return 2 * x


def fail(x: int) -> int:
    raise ValueError(x)


def test_every_call_gives_its_result_once() -> None:
    with cluster.connect(workers=2) as client:
        results = dispatch.run(client, (Call(double, (i,)) for i in range(50)))
        assert sorted(results) == [2 * i for i in range(50)]


def test_a_result_may_name_more_calls() -> None:
    with cluster.connect(workers=2) as client:
        calls = [Call(double, (1,)), Call(double, (100,))]
        results = dispatch.run(client, calls, then=lambda x: [Call(double, (x,))] if x < 100 else [])
        assert sorted(results) == [2, 4, 8, 16, 32, 64, 128, 200]


def test_a_bug_in_a_task_keeps_its_error() -> None:
    with cluster.connect(workers=1) as client, pytest.raises(ValueError, match="7"):
        list(dispatch.run(client, [Call(fail, (7,))]))


def test_few_calls_are_in_flight() -> None:
    taken: list[int] = []

    def calls() -> object:
        for i in range(100):
            taken.append(i)
            yield Call(double, (i,))

    with cluster.connect(workers=1) as client:
        results = dispatch.run(client, calls())  # type: ignore[arg-type]
        next(results)
        assert len(taken) <= 2 * AHEAD
        results.close()


def halves(call: Call) -> Iterable[Call]:
    poison, numbers = call.arguments
    if len(numbers) == 1:
        return [Call(die_of, (None, numbers))]
    middle = len(numbers) // 2
    return [Call(die_of, (poison, part)) for part in (numbers[:middle], numbers[middle:])]


@pytest.mark.timeout(600)
def test_what_ends_its_worker_is_parted_until_the_cause_stands_alone(processes: Client) -> None:
    calls = [Call(die_of, (5, tuple(range(i, i + 4)))) for i in range(0, 24, 4)]
    results = list(dispatch.run(processes, calls, instead=halves))
    assert sorted(n for numbers in results for n in numbers) == list(range(24))
    whole = [numbers for numbers in results if len(numbers) == 4]
    assert len(whole) == 5  # whoever shared a worker with the cause is not parted
    assert (5,) in results


def test_a_run_that_wants_to_be_alone_waits_for_the_others(processes: Client) -> None:
    one, two = dispatch._Desk(processes, 0), dispatch._Desk(processes, 0)
    one.submit(Call(die_of, (None, (1,))))
    assert not two.claim()
    assert one.room() == 0
    while one.busy:
        one.next()
    assert two.claim()
    assert one.room() == 0
    two.clear()
    assert one.room() > 0


def test_a_run_that_is_held_back_ends_with_all_of_its_results(processes: Client) -> None:
    other = dispatch._Desk(processes, 0)
    other.submit(Call(die_of, (None, (1,))))
    assert not other.claim() or not other.busy
    opening = threading.Timer(2 * dispatch.TICK_S, other.clear)
    opening.start()
    results = list(dispatch.run(processes, (Call(double, (i,)) for i in range(20))))
    assert sorted(results) == [2 * i for i in range(20)]
    assert not opening.is_alive()


@pytest.mark.timeout(600)
def test_what_cannot_be_parted_is_an_error(processes: Client) -> None:
    with pytest.raises(ClusterError, match="die_of"):
        list(dispatch.run(processes, [Call(die_of, (1, (1,)))]))


def test_a_cluster_whose_workers_left_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "NO_WORKER_S", 0.1)
    monkeypatch.setattr(dispatch, "TICK_S", 0.05)
    with cluster.connect(workers=1) as client:
        client.retire_workers()
        with pytest.raises(ClusterError, match="no worker is left"):
            list(dispatch.run(client, [Call(double, (1,))]))


def pause(dask_worker: Worker) -> None:
    dask_worker.status = Status.paused


@pytest.mark.parametrize("asked", [False, True])
def test_a_worker_that_is_paused_is_as_good_as_gone(monkeypatch: pytest.MonkeyPatch, asked: bool) -> None:
    monkeypatch.setattr(dispatch, "NO_WORKER_S", 600.0 if asked else 0.3)
    monkeypatch.setattr(dispatch, "TICK_S", 0.05)
    begun = time.monotonic()
    with cluster.connect(workers=1) as client:
        client.run(pause)
        calls = dispatch.run(
            client, [Call(double, (1,))], stop=lambda: asked and time.monotonic() > begun + 3
        )
        if asked:
            assert list(calls) == []
        else:
            with pytest.raises(ClusterError, match="no worker is left"):
                list(calls)


def test_workers_that_come_and_go_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose memory is too little for the model is ended and begun anew, again and again."""
    monkeypatch.setattr(dispatch, "NO_WORKER_S", 0.3)
    monkeypatch.setattr(dispatch, "TICK_S", 0.05)
    seen = count()
    with cluster.connect(workers=1) as client:
        client.run(pause)
        monkeypatch.setattr(dispatch, "at_work", lambda client: {f"tcp://{next(seen)}": 1})
        with pytest.raises(ClusterError, match="no worker is left"):
            list(dispatch.run(client, [Call(double, (1,))]))
