"""Runs that are submitted from many threads at once, and lists of them of which one fails: none is lost, and none is waited for in vain."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.patience import eventually, limit
from whenthen import flow, task
from whenthen.flows.execution import thread_pool
from whenthen.flows.execution.thread_pool import WorkerPool, WorkItem
from whenthen.task_runners import ThreadPoolTaskRunner


@pytest.fixture(params=[0.005, 0.000001])
def switch_interval(request: pytest.FixtureRequest) -> Iterator[float]:
    """How often threads take turns: as by default, and as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield request.param
    sys.setswitchinterval(before)


@pytest.mark.parametrize("places", [1, 3, 64])
def test_every_run_that_many_threads_submit_at_once_ends(places: int) -> None:
    count, each = min(places, 8), 150  # a place for each, so that all are at it at once

    @task
    def same(n: int) -> int:
        return n

    @task
    def submits(start: threading.Barrier, first: int) -> int:
        start.wait(limit(10))
        return sum(future.result() for future in [same.submit(n) for n in range(first, first + each)])

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=places))
    def run() -> int:
        start = threading.Barrier(count)
        futures = [submits.submit(start, at * each) for at in range(count)]
        return sum(future.result(timeout=limit(60)) for future in futures)

    assert run() == sum(range(count * each))


def test_runs_that_come_one_at_a_time_find_the_threads_that_went_to_sleep() -> None:
    @task
    def same(n: int) -> int:
        return n

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def run() -> int:
        return sum(same.submit(n).result(timeout=limit(20)) for n in range(500))

    assert run() == sum(range(500))


@pytest.mark.parametrize("failed_before", [True, False])
def test_the_results_of_a_list_raise_the_first_failure_without_waiting_for_what_comes_after_it(
    failed_before: bool,
) -> None:
    asked = threading.Event()
    go_on = threading.Event()

    @task
    def one(n: int) -> int:
        if n == 1:
            assert failed_before or asked.wait(limit(20))
            raise ValueError("the second")
        if n == 2:
            assert go_on.wait(limit(20))
        return n

    @flow
    def run() -> str:
        futures = one.map(range(3))
        if failed_before:
            futures[1].wait(limit(20))
        else:
            threading.Timer(
                0.1, asked.set
            ).start()  # the flow is most likely asking by then; the answer is the same if not
        try:
            with pytest.raises(ValueError, match="the second"):
                futures.result()
            assert not futures[2].done()
        finally:
            go_on.set()
        assert futures.result(raise_on_failure=False)[2] == 2
        return "whole"

    assert run() == "whole"


def test_the_results_of_a_list_raise_the_first_failure_in_its_order_not_in_that_of_time() -> None:
    failed = threading.Event()

    @task
    def one(n: int) -> int:
        if n == 0:
            assert failed.wait(limit(20))
            raise ValueError("the first")
        failed.set()
        raise KeyError("the second")

    @flow
    def run() -> None:
        with pytest.raises(ValueError, match="the first"):
            one.map(range(2)).result()

    run()


def test_more_threads_are_started_for_runs_that_keep_the_processor_busy_until_another_has_begun() -> None:
    begun = threading.Event()

    @task
    def spins() -> bool:
        while not begun.is_set():
            pass
        return True

    @task
    def begins() -> None:
        begun.set()

    @flow
    def run() -> list[bool]:
        spinning = [spins.submit() for _ in range(5)]
        begins.submit()
        return [future.result(timeout=limit(30)) for future in spinning]

    assert run() == [True] * 5


@pytest.mark.usefixtures("switch_interval")
@pytest.mark.parametrize("places", [1, 2, 3])
@pytest.mark.parametrize(("deep", "wide"), [(1, 20), (2, 5), (6, 1)])
def test_no_more_runs_work_at_once_than_there_are_places_however_they_wait_for_each_other(
    places: int, deep: int, wide: int
) -> None:
    counted = threading.Lock()
    working: list[int] = [0, 0]

    def works(change: int) -> None:
        with counted:
            working[0] += change
            working[1] = max(working)

    @task
    def node(depth: int) -> int:
        works(1)
        below = [node.submit(depth - 1) for _ in range(wide if depth else 0)]
        total = 1
        for future in below:
            works(-1)  # while it waits
            value = future.result(timeout=limit(60))
            works(1)
            total += value
        works(-1)
        return total

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=places))
    def run() -> int:
        return sum(future.result(timeout=limit(60)) for future in [node.submit(deep) for _ in range(3)])

    assert run() == 3 * sum(wide**depth for depth in range(deep + 1))
    assert working[0] == 0
    assert 1 <= working[1] <= places


@pytest.mark.parametrize("submitted_by", ["map", "submit"])
def test_threads_go_from_one_run_to_the_next_without_a_lock_that_they_share(
    submitted_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they hand it on by way of the kernel, which takes longer than the runs."""
    locks: list[Any] = []

    class Counted:
        def __init__(self) -> None:
            self._lock = threading.Lock()
            self.taken = 0
            self.acquire, self.release = self._lock.acquire, self._lock.release
            locks.append(self)

        def __enter__(self) -> bool:
            self.taken += 1
            return self._lock.__enter__()

        def __exit__(self, *error: Any) -> None:
            self._lock.__exit__(*error)

    names = ("Condition", "Thread", "get_ident")
    given = {name: getattr(threading, name) for name in names}
    monkeypatch.setattr(thread_pool, "threading", SimpleNamespace(Lock=Counted, **given))
    count = 3_000

    @task
    def same(n: int) -> int:
        return n

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=16))
    def run() -> int:
        if submitted_by == "map":
            return sum(same.map(range(count)).result(timeout=limit(60)))
        return sum(future.result(timeout=limit(60)) for future in [same.submit(n) for n in range(count)])

    assert run() == sum(range(count))
    assert len(locks) == 1
    assert 1 <= locks[0].taken < count / 10


def allow_threads(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pools start `count` threads, and no more."""
    eventually(lambda: not [one for one in threading.enumerate() if one.name.startswith("whenthen-tasks")])
    left = iter(range(count))  # `next` of it is atomic
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("whenthen-tasks") and next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)


@pytest.mark.parametrize("count", [1, 3])
def test_runs_go_on_in_the_threads_that_there_are_when_no_more_can_be_started(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_threads(count, monkeypatch)

    @task
    def same(n: int) -> int:
        return n

    @flow
    def run() -> int:
        return sum(same.map(range(200)).result(timeout=limit(60)))

    assert run() == sum(range(200))


@pytest.mark.parametrize("later", [True, False])
def test_a_submit_for_which_no_thread_can_be_started_says_so(later: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_threads(0, monkeypatch)
    called: list[int] = []

    @task
    def noted(n: int) -> int:
        called.append(n)
        return n

    @flow
    def run() -> str:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            noted.submit(1)
        if later:
            monkeypatch.undo()
            assert noted.submit(2).result(timeout=limit(20)) == 2
        return "whole"

    assert run() == "whole"
    assert called == ([2] if later else [])


def test_a_run_may_be_taken_up_again_before_the_thread_that_it_left_has_gone_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def later(pool: WorkerPool, seconds: float, item: WorkItem, scope: Any) -> None:
        pool.put(item)
        eventually(lambda: item.ended)  # in another thread

    monkeypatch.setattr(WorkerPool, "later", later)
    tried: list[int] = []

    @task(retries=1, retry_delay_seconds=0.001)
    def second_time() -> int:
        tried.append(threading.get_ident())
        if len(tried) == 1:
            raise ValueError
        return 1

    @flow
    def run() -> int:
        return second_time.submit().result(timeout=limit(30))

    assert run() == 1
    assert len(set(tried)) == 2
