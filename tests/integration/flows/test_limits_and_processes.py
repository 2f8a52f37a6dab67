"""Limits of a process, where there is more than one: a pool is refused, a fork counts for itself."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.patience import limit
from whenthen import flow, task
from whenthen.concurrency.sync import concurrency, rate_limit
from whenthen.exceptions import NeedsServer
from whenthen.task_runners import ProcessPoolTaskRunner


@task
def query() -> None:
    with concurrency("db"):
        pass


@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def pool() -> None:
    query.submit().result()


@pytest.mark.takes(5)
def test_in_a_process_pool_a_limit_would_allow_more_and_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_LIMIT_DB", "1")
    with pytest.raises(NeedsServer, match="a limit of the environment holds within one process: in a process pool"):
        pool()
    monkeypatch.delenv("WHENTHEN_LIMIT_DB")
    pool()  # without a limit there is nothing to be counted


def test_a_fork_begins_with_all_slots_free_also_while_others_hold_and_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WHENTHEN_LIMIT_DB", "1")
    waiting = threading.Event()
    done = threading.Event()

    def wait() -> None:
        waiting.set()
        with concurrency("db"):
            done.set()

    with concurrency("db"):
        thread = threading.Thread(target=wait)
        thread.start()
        waiting.wait(limit(10))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with concurrency("db", timeout_seconds=limit(10)):
                    code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not done.is_set()
    assert done.wait(limit(10))
    thread.join()


def test_many_threads_that_come_and_go_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_LIMIT_DB", "3")
    monkeypatch.setenv("WHENTHEN_LIMIT_API", "50, 100000/s")
    counts: list[int] = []

    def work() -> None:
        for number in range(50):
            rate_limit("api", occupy=1 + number % 3)
            with concurrency(["db", "api"], occupy=1 + number % 3, timeout_seconds=limit(60)):
                counts.append(1)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit(120))
    assert len(counts) == 1000
    with concurrency("db", occupy=3, timeout_seconds=0):
        pass
