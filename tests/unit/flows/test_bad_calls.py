"""What users do wrong with flows and tasks, and what becomes of it: never a hang, never a broken next run, always a word of what to do."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import tracemalloc
from typing import Any

import pytest

from tests.patience import eventually, limit
from whenthen import Task, flow, get_run_logger, task
from whenthen.exceptions import (
    CircularWait,
    MissingContextError,
    NotSupported,
    ParameterBindError,
    ParameterTypeError,
    ReservedArgumentError,
    TaskRunTimeoutError,
    UpstreamTaskError,
)
from whenthen.futures import PrefectFuture, as_completed, wait
from whenthen.runtime import flow_run, task_run
from whenthen.states import State
from whenthen.task_runners import ThreadPoolTaskRunner


def threads() -> list[str]:
    """Those in which runs are; the one that sends the events of a program is not."""
    return [one.name for one in threading.enumerate() if one.name.startswith(("whenthen-tasks", "whenthen-timed"))]


def test_arguments_that_do_not_fit_are_shown_with_the_signature() -> None:
    @flow
    def order(qty: int, *, when: str = "now") -> int:
        return qty

    with pytest.raises(
        ParameterBindError,
        match=r"order\(qty: 'int', \*, when: 'str' = 'now'\).*: missing a required argument: 'qty'; .*\(when=3\)",
    ):
        order(when=3)  # type: ignore[call-overload]
    with pytest.raises(
        ParameterTypeError, match=r"order received invalid parameters:\n - qty: Input should be .*got 'four'"
    ):
        order("four")
    with pytest.raises(TypeError):
        order("four")
    with pytest.raises(ValueError):
        order("four")


def test_an_annotation_that_can_not_be_resolved_is_named() -> None:
    def late(x: NotYet) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match=r"late: the annotation 'NotYet' of parameter 'x' can not be resolved"):
        flow(late)(1)


def test_classes_of_a_function_around_are_found_in_annotations() -> None:
    class Local:
        pass

    Several = list[Local] | None  # no class, but a name of this function too

    @flow
    def take(x: Local) -> str:
        return type(x).__name__

    @flow(name="named")
    def take_several(x: Several) -> int:
        return len(x or [])

    assert take(Local()) == "Local"
    assert take_several([Local()]) == 1
    with pytest.raises(ParameterTypeError):
        take_several([3])  # type: ignore[list-item]
    with pytest.raises(ParameterTypeError):
        take(3)  # type: ignore[call-overload]


def test_a_mutable_default_is_not_shared_by_runs_of_a_typed_flow() -> None:
    @flow
    def grow(items: list[int] = []) -> list[int]:  # noqa: B006
        items.append(1)
        return items

    assert (grow(), grow()) == ([1], [1])


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: flow(3), TypeError, "@flow: 'fn' must be callable"),
        (lambda: task("name"), TypeError, "@task: 'fn' must be callable"),
        (lambda: task(tags="etl")(lambda: 1), TypeError, r"tags=\['etl'\]"),
        (lambda: task(retries=-1)(lambda: 1), ValueError, "0 or more; got -1"),
        (lambda: task(retries=True)(lambda: 1), TypeError, "whole number; got True"),
        (lambda: flow(retries="3")(lambda: 1), TypeError, "whole number; got '3'"),
        (lambda: task(retry_delay_seconds=-1)(lambda: 1), ValueError, "0 or more; got -1"),
        (lambda: task(retry_delay_seconds=float("nan"))(lambda: 1), ValueError, "0 or more; got nan"),
        (lambda: task(retry_delay_seconds=["1"])(lambda: 1), TypeError, "got '1'"),
        (lambda: task(timeout_seconds=-1)(lambda: 1), ValueError, "0 or more; got -1"),
        (lambda: task(cache_policy="INPUTS")(lambda: 1), TypeError, "a cache policy such as INPUTS; got 'INPUTS'"),
        (lambda: task(cache_key_fn=3)(lambda: 1), TypeError, "'cache_key_fn' must be callable; got 3"),
        (lambda: flow(task_runner=3)(lambda: 1), TypeError, r"such as ThreadPoolTaskRunner\(\); got 3"),
        (lambda: flow(name="a/b")(lambda: 1), ValueError, "the name 'a/b' has /"),
        (
            lambda: flow(lambda wait_for: 1),
            ReservedArgumentError,
            "'wait_for', which a call of a flow uses itself; rename it",
        ),
        (lambda: task(asset_deps=["x"])(lambda: 1), NotSupported, "asset_deps .*emit_event"),
        (lambda: ThreadPoolTaskRunner(max_workers=0), ValueError, "at least 1; got 0"),
        (lambda: task(nonsense=1), TypeError, "nonsense"),
        (lambda: flow(retires=3), TypeError, "^@flow: there is no option 'retires'; did you mean 'retries'"),
        (lambda: task(retires=3), TypeError, "^@task: there is no option 'retires'; did you mean 'retries'"),
    ],
)
def test_options_that_do_not_fit_are_refused_where_they_are_given(make: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make()(lambda: 1)


def test_outside_a_flow_the_remedy_is_said() -> None:
    @task
    def one(n: int = 1) -> int:
        return n

    for call in (lambda: one.submit(), lambda: one.map([1])):
        with pytest.raises(
            MissingContextError, match=r"call it in a function with @flow, or call one\(\.\.\.\) directly"
        ):
            call()
    with pytest.raises(
        NotSupported, match=r"one\.delay\(\.\.\.\)\): use \.submit\(\.\.\.\) in a flow, or start a deployment"
    ):
        one.delay()
    with pytest.raises(MissingContextError, match=r"logging\.getLogger"):
        get_run_logger()
    with pytest.raises(AttributeError, match=r"runtime\.flow_run has no attribute 'nme'; it has"):
        _ = flow_run.nme
    assert (flow_run.id, task_run.tags) == (None, [])


def test_endless_recursion_of_flows_ends_as_in_python_and_the_next_run_is_whole() -> None:
    @flow
    def deeper(n: int) -> int:
        return int(deeper(n + 1))

    with pytest.raises(RecursionError):
        deeper(0)

    @flow
    def fine() -> Any:
        return flow_run.flow_name, flow_run.parent_flow_run_id

    assert fine() == ("fine", None)
    assert flow_run.id is None


def test_a_run_that_waits_for_itself_or_in_a_circle_is_told_so() -> None:
    box: dict[str, PrefectFuture[Any]] = {}
    ready = threading.Event()

    @task
    def own() -> Any:
        ready.wait(limit(10))
        return box["own"].result()

    @task
    def first() -> Any:
        ready.wait(limit(10))
        return box["second"].result()

    @task
    def second() -> Any:
        ready.wait(limit(10))
        return box["first"].result()

    @task
    def below(value: Any) -> Any:
        return value

    @task
    def above() -> Any:
        ready.wait(limit(10))
        return box["below"].result()

    @flow
    def circles() -> list[Any]:
        box["own"] = own.submit()
        box["first"], box["second"] = first.submit(), second.submit()
        box["above"] = above.submit()
        box["below"] = below.submit(box["above"])
        ready.set()
        wait(box.values())
        return [future.state for future in box.values()]

    states = dict(zip(box, circles(return_state=True).data, strict=True))
    assert isinstance(states["own"].data, CircularWait)
    kinds = {type(states[name].data) for name in ("first", "second")}
    assert CircularWait in kinds
    assert isinstance(states["above"].data, CircularWait)
    assert states["below"].name == "NotReady"
    with pytest.raises(CircularWait, match="Pass results on instead of waiting"):
        raise states["own"].data


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_in_a_task_crashes_the_runs_around_it_and_goes_on_up(error: BaseException) -> None:
    seen: list[str] = []

    def hook(flow: Any, run: Any, state: State[Any]) -> None:
        seen.append(state.name)

    @task
    def leave() -> None:
        raise error

    @flow(on_crashed=[hook], on_failure=[hook])
    def direct() -> None:
        leave()

    @flow(on_crashed=[hook])
    def submitted() -> None:
        leave.submit().result()

    for run in (direct, submitted):
        with pytest.raises(type(error)):
            run(return_state=True)
    assert seen == ["Crashed", "Crashed"]
    eventually(lambda: threads() == [])


def test_a_task_that_blocks_in_c_past_its_time_ends_timed_out_at_once_and_its_thread_is_abandoned() -> None:
    released = threading.Event()
    stopped: list[str] = []

    @task(timeout_seconds=limit(0.1))
    def block() -> None:
        try:
            released.wait()  # waits in C for a lock: no exception reaches it
        finally:
            stopped.append("left")

    @flow
    def run() -> tuple[State[Any], float]:
        began = time.monotonic()
        state = block(return_state=True)
        return state, time.monotonic() - began

    state, took = run()
    assert (state.name, state.type.value, state.message) == (
        "TimedOut",
        "FAILED",
        f"Task run exceeded timeout of {limit(0.1):g} second(s)",
    )
    assert isinstance(state.data, TaskRunTimeoutError)
    assert isinstance(state.data, TimeoutError)
    assert took < limit(5)
    assert stopped == []
    released.set()
    eventually(lambda: stopped == ["left"])


def test_python_code_past_its_time_is_stopped() -> None:
    turns = [0]

    @task(timeout_seconds=limit(0.1), retries=1)
    def spin() -> None:
        try:
            while True:
                turns[0] += 1
        except Exception:  # an `except` of the user must not keep it alive
            turns[0] = -1

    assert spin(return_state=True).name == "TimedOut"

    def stands_still() -> bool:
        before = turns[0]
        time.sleep(0.02)
        return turns[0] == before

    eventually(stands_still)
    assert turns[0] > 0


def test_a_flow_out_of_time_leaves_none_of_its_tasks_running() -> None:
    alive: set[int] = set()
    begun: list[int] = []

    @task(retries=2, retry_delay_seconds=30)
    def work(n: int) -> None:
        begun.append(n)
        alive.add(n)
        try:
            if n % 3 == 0:
                raise ValueError  # waits for its retry
            while True:
                time.sleep(0.001)
        finally:
            alive.discard(n)

    @task
    def after(value: Any) -> None:
        begun.append(-1)

    @flow
    def child() -> None:
        work.map(range(10, 14)).wait()

    @flow(timeout_seconds=0.5, task_runner=ThreadPoolTaskRunner(max_workers=4))
    def parent() -> None:
        after.map(work.map(range(8)))
        child()

    state = parent(return_state=True)
    assert (state.name, state.message) == ("TimedOut", "Flow run exceeded timeout of 0.5 second(s)")
    eventually(lambda: not alive and not threads())
    count = len(begun)
    time.sleep(0.05)
    assert len(begun) == count
    assert -1 not in begun


def endless() -> tuple[Task[[], None], threading.Event]:
    """A task that ends when it is stopped, and whether it runs."""
    alive = threading.Event()

    @task
    def work() -> None:
        alive.set()
        try:
            while True:
                time.sleep(0.001)
        finally:
            alive.clear()

    return work, alive


def test_an_interrupt_while_a_flow_waits_stops_what_it_submitted() -> None:
    work, alive = endless()

    @flow
    def run() -> None:
        work.submit()
        alive.wait(limit(10))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert not alive.is_set()
    eventually(lambda: threads() == [])


def test_a_cancelled_async_flow_is_crashed_and_stops_what_it_submitted() -> None:
    work, alive = endless()
    seen: list[str] = []

    def hook(flow: Any, run: Any, state: State[Any]) -> None:
        seen.append(str(state.message))

    @flow(on_crashed=[hook])
    async def run() -> None:
        work.submit()
        await asyncio.sleep(60)

    async def main() -> None:
        running = asyncio.create_task(run())
        assert await asyncio.to_thread(alive.wait, limit(10))
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert seen == ["Execution was cancelled by the runtime environment."]
    assert not alive.is_set()


def test_a_failing_flow_begins_nothing_more_but_waits_for_what_was_begun() -> None:
    begun: list[int] = []
    ended: list[int] = []
    go = threading.Event()

    @task
    def work(n: int) -> None:
        begun.append(n)
        go.wait(limit(10))
        ended.append(n)

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def run() -> None:
        work.map(range(5))
        eventually(lambda: begun)
        threading.Timer(limit(0.05), go.set).start()
        raise ValueError("x")

    assert run(return_state=True).message == "Flow run encountered an exception: ValueError: x"
    assert begun == ended == [0]


def test_nested_submits_in_one_place_do_not_starve() -> None:
    @task
    def leaf(n: int) -> int:
        return n

    @task(retries=1, retry_delay_seconds=0.01)
    def flaky(n: int) -> int:
        if task_run.run_count == 1:
            raise ValueError
        return n

    @task(timeout_seconds=limit(20))
    def node(n: int) -> int:
        return sum(leaf.map(range(n)).result()) + flaky.submit(n).result()

    @task
    def root(n: int) -> int:
        return sum(node.map([n] * 3).result())

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def run() -> int:
        return root.submit(4).result()

    assert run() == 3 * (6 + 4)


def test_a_task_that_takes_futures_as_they_complete_gives_its_place_away() -> None:
    @task
    def leaf(n: int) -> int:
        return n

    @task
    def root() -> list[int]:
        return sorted(one.result() for one in as_completed(leaf.map(range(3)), timeout=limit(20)))

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def run() -> list[int]:
        return root.submit().result()

    assert run() == [0, 1, 2]


def test_wait_for_takes_a_single_future_in_every_way_of_starting_a_task() -> None:
    @task
    def first() -> None: ...

    @task
    def then(n: int) -> int:
        return n

    @flow
    def run() -> list[int]:
        ended = first.submit()
        together = then.map([1, 2], wait_for=ended).result()
        return [*together, then.submit(3, wait_for=ended).result(), then(4, wait_for=ended)]

    assert run() == [1, 2, 3, 4]


def test_flows_run_in_threads_and_in_a_running_loop() -> None:
    @task
    def add(a: int, b: int) -> int:
        return a + b

    @task
    async def add_later(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    @flow
    def run(n: int) -> tuple[int, int, str]:
        return add.submit(n, 1).result(), add_later.submit(n, 2).result(), flow_run.parameters["n"]

    found: list[Any] = []
    several = [threading.Thread(target=lambda n=n: found.append(run(n))) for n in range(8)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    assert sorted(found) == [(n + 1, n + 2, n) for n in range(8)]

    async def main() -> Any:
        return run(5)

    assert asyncio.run(main()) == (6, 7, 5)


def test_a_hook_that_raises_is_logged_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    def boom(task: Any, run: Any, state: Any) -> None:
        raise RuntimeError("in the hook")

    @task(on_running=[boom], on_completion=[boom, lambda task, run, state: seen.append(state.name)])
    def work() -> int:
        return 1

    with caplog.at_level(logging.ERROR):
        assert work() == 1
    assert seen == ["Completed"]
    assert [record.getMessage() for record in caplog.records] == [
        "An error was encountered while running hook 'boom' in state Running",
        "An error was encountered while running hook 'boom' in state Completed",
    ]


def test_a_clock_that_is_set_back_changes_no_delay_and_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime, timedelta

    from whenthen.flows.execution import task_engine

    now = [datetime(2026, 1, 1, tzinfo=UTC)]

    def backwards() -> datetime:
        now[0] -= timedelta(hours=1)
        return now[0]

    monkeypatch.setattr(task_engine, "utc_now", backwards)
    monkeypatch.setattr("whenthen.flows.states.state.utc_now", backwards)

    @task(retries=1, retry_delay_seconds=0.05)
    def work() -> float:
        if task_run.run_count == 1:
            raise ValueError
        return time.monotonic()

    began = time.monotonic()
    assert 0.05 <= work() - began < limit(5)
    seen: list[timedelta] = []

    @task(on_completion=[lambda task, run, state: seen.append(run.total_run_time)])
    def quick() -> None: ...

    quick()
    assert seen == [timedelta()]


def test_a_large_result_is_not_copied() -> None:
    size = 50_000_000

    @task
    def make() -> bytes:
        return bytes(size)

    @task(persist_result=True, result_storage_key="large")
    def keep() -> bytes:
        return bytes(size)

    @task
    def measure(data: bytes) -> int:
        return len(data)

    @flow
    def run() -> int:
        return measure.submit(make.submit()).result() + measure.submit(keep.submit()).result()

    tracemalloc.start()
    try:
        assert run() == 2 * size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * size


@pytest.mark.takes(3)
def test_ten_thousand_mapped_tasks_need_few_threads_and_little_memory() -> None:
    eventually(lambda: not threads())
    most = [0]

    @task
    def start() -> list[int]:
        return list(range(10_000))

    @task
    def double(n: int) -> int:
        most[0] = max(most[0], len([name for name in threads() if name[-1].isdigit()]))
        return 2 * n

    @task
    def add(n: int) -> int:
        return n + 1

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
    def run() -> int:
        return sum(add.map(double.map(start.submit())).result())

    tracemalloc.start()
    try:
        assert run() == sum(2 * n + 1 for n in range(10_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0 < most[0] <= 8
    assert peak / 20_000 < 8_000, f"{peak / 20_000:.0f} bytes a task run"


def test_a_failed_future_that_nobody_looks_at_leaves_the_flow_completed_and_the_next_waits_in_vain() -> None:
    @task
    def bad() -> int:
        raise ValueError("x")

    @task
    def use(n: int) -> int:
        return n

    @flow
    def run() -> Any:
        future = use.submit(bad.submit())
        future.wait()
        with pytest.raises(UpstreamTaskError):
            use.map(bad.submit())
        return future.state.name, future.state.type.value

    state = run(return_state=True)
    assert (state.name, state.data) == ("Completed", ("NotReady", "PENDING"))


def test_a_future_is_no_argument_for_another_process() -> None:
    import pickle

    @task
    def one() -> int:
        return 1

    @flow
    def run() -> None:
        pickle.dumps(one.submit())

    with pytest.raises(TypeError, match="a future belongs to its process"):
        run()


def test_prints_are_what_they_were_after_a_run_that_logs_them(capsys: pytest.CaptureFixture[str]) -> None:
    original = print

    @flow(log_prints=True)
    def run() -> None:
        print("logged", file=None)
        print("to stdout", file=sys.stdout)
        raise ValueError

    assert run(return_state=True).is_failed()
    import builtins

    assert builtins.print is original
    print("after")
    assert capsys.readouterr().out == "to stdout\nafter\n"


@pytest.mark.takes(0.4)
@pytest.mark.parametrize("seconds", [1e300, float("inf")])
def test_a_wait_that_is_longer_than_threads_can_wait_is_a_long_one(seconds: float) -> None:
    @task(retries=1, retry_delay_seconds=seconds)
    def bad() -> None:
        raise ValueError

    @task(timeout_seconds=seconds)
    def good() -> int:
        time.sleep(0.05)
        return 1

    @flow(timeout_seconds=0.3)
    def tries_again_late() -> None:
        bad()

    @flow
    def waits() -> list[int]:
        futures = [good.submit(), good.submit()]
        return [next(as_completed(futures, timeout=seconds)).result(timeout=seconds), good()]

    assert tries_again_late(return_state=True).name == "TimedOut"
    assert waits() == [1, 1]


def test_tasks_that_call_themselves_end_as_in_python() -> None:
    @task
    def below(n: int) -> int:
        return below(n + 1)

    @flow
    def run() -> int:
        return below(0)

    with pytest.raises(RecursionError):
        run()
    state = run(return_state=True)
    assert (state.is_failed(), type(state.result(raise_on_failure=False))) == (True, RecursionError)
