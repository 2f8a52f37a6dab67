"""Runs that are submitted from many threads at once, and lists of them of which one fails: none is lost, and none is waited for in vain."""

from __future__ import annotations

import threading

import pytest

from tests.patience import limit
from whenthen import flow, task
from whenthen.task_runners import ThreadPoolTaskRunner


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
