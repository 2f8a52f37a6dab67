"""Whatever a flow has started, sync or async, submitted or called, waiting or working: when the flow has been cancelled nothing of it runs on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.patience import eventually, limit
from whenthen import flow, tags, task
from whenthen.flows.execution import thread_pool
from whenthen.flows.execution.cancel_scope import GATES, CancelScope, StopGate, Stopped, repeat_lost_stops
from whenthen.flows.execution.reporter import REPORTER
from whenthen.flows.execution.steps import Pause
from whenthen.flows.execution.thread_pool import WorkerPool
from whenthen.flows.execution.timed_call import call_within, run_coroutine
from whenthen.states import State
from whenthen.task_runners import ThreadPoolTaskRunner

#: a tree: what a node does itself, and the nodes below it
WORK = st.sampled_from(["spin", "spin_async", "retry", "wait"])
TREES = st.recursive(
    st.tuples(WORK, st.just(())),
    lambda inner: st.tuples(
        st.sampled_from(["submit", "submit_async", "subflow"]), st.lists(inner, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=6,
)


class Tree:
    """Runs of one tree, and which of their functions are being executed."""

    def __init__(self) -> None:
        self.alive: set[object] = set()
        self.begun = 0

    def enter(self) -> object:
        token = object()
        self.alive.add(token)
        self.begun += 1
        return token

    def start(self, node: Any) -> Any:
        """Submit a node, in the flow around."""
        return self.task_of(node).submit()

    def task_of(self, node: Any) -> Any:
        kind, below = node

        def work() -> None:
            token = self.enter()
            try:
                if kind == "retry":
                    raise ValueError
                if kind == "subflow":
                    child = flow(task_runner=ThreadPoolTaskRunner(max_workers=2))(
                        lambda: [one.wait() for one in map(self.start, below)]
                    )
                    child()
                started = [self.start(one) for one in below] if kind.startswith("submit") else []
                for future in started:
                    future.wait()
                while True:
                    time.sleep(0.001)
            finally:
                self.alive.discard(token)

        async def work_async() -> None:
            token = self.enter()
            try:
                for one in below:
                    self.start(one)
                while True:
                    await asyncio.sleep(0.001)
            finally:
                self.alive.discard(token)

        if kind == "wait":  # for an upstream that does not end
            upstream = task(work, name="upstream").submit()
            return task(lambda value=upstream: self.enter())
        return task(
            work_async if kind.endswith("async") else work, retries=1 if kind == "retry" else 0, retry_delay_seconds=60
        )


@pytest.mark.takes(2)
@settings(
    max_examples=15, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # smaller ones would each wait for the limit
@given(st.lists(TREES, min_size=1, max_size=3), st.booleans())
def test_a_flow_out_of_time_leaves_nothing_running(trees: list[Any], is_async: bool) -> None:
    tree = Tree()
    runner = ThreadPoolTaskRunner(max_workers=4)

    def start() -> None:
        for node in trees:
            tree.start(node)

    @flow(timeout_seconds=0.15, task_runner=runner)
    def sync_root() -> None:
        start()
        threading.Event().wait(0.05)
        while True:
            time.sleep(0.001)

    @flow(timeout_seconds=0.15, task_runner=runner)
    async def async_root() -> None:
        start()
        await asyncio.sleep(60)

    began = time.monotonic()
    state: State[Any] = asyncio.run(async_root(return_state=True)) if is_async else sync_root(return_state=True)
    assert state.name == "TimedOut"
    assert time.monotonic() - began < limit(10)
    eventually(lambda: not tree.alive)
    begun = tree.begun
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("whenthen-tasks")])
    assert (tree.begun, tree.alive) == (begun, set())


def test_a_stop_that_comes_in_a_callback_of_the_event_loop_ends_its_coroutine() -> None:
    def told() -> None:
        raise Stopped

    async def work() -> None:
        asyncio.get_running_loop().call_soon(told)
        await asyncio.sleep(limit(60))

    began = time.monotonic()
    with pytest.raises(Stopped):
        run_coroutine(work())
    with pytest.raises(Stopped):
        call_within(limit(60), work, (), {}, expired=TimeoutError, scope=None)
    assert time.monotonic() - began < limit(20)


def test_every_run_of_a_cancelled_tree_has_a_last_state() -> None:
    class Reporter:
        def __init__(self) -> None:
            self.last: dict[Any, State[Any]] = {}

        def state(self, run: Any, state: State[Any]) -> None:
            self.last[run.id] = state

        def log(self, run: Any, record: Any) -> None: ...

        def event(self, event: Any) -> None: ...

        def artifact(self, artifact: Any) -> None: ...

        def request(self, kind: str, body: dict[str, Any]) -> Any: ...

    reporter = Reporter()

    @task
    def spin() -> None:
        while True:
            time.sleep(0.001)

    @task
    def below(value: Any) -> None: ...

    @flow
    def child() -> None:
        below.submit(spin.submit()).wait()

    @flow(timeout_seconds=limit(0.1), task_runner=ThreadPoolTaskRunner(max_workers=2))
    def root() -> None:
        below.map([spin.submit() for _ in range(4)])
        child()

    token = REPORTER.set(reporter)
    try:
        assert root(return_state=True).name == "TimedOut"
    finally:
        REPORTER.reset(token)
    eventually(lambda: {state.name for state in list(reporter.last.values())} == {"Cancelled", "TimedOut"})


def test_a_pause_in_an_event_loop_ends_when_the_tree_is_cancelled() -> None:
    scope = CancelScope()

    async def pause() -> None:
        threading.Timer(0.05, scope.cancel).start()
        async with asyncio.timeout(limit(10)):
            await Pause(60, scope).perform_async()

    with pytest.raises(Stopped):
        asyncio.run(pause())


def test_a_scope_is_cancelled_once_with_everything_below_it() -> None:
    heard: list[str] = []
    above = CancelScope()
    below = CancelScope(above)
    above.add(lambda: heard.append("above"))
    below.add(lambda: heard.append("below"))
    above.cancel()
    above.cancel()
    assert sorted(heard) == ["above", "below"]
    assert below.cancelled
    below.add(lambda: heard.append("late"))
    assert heard[-1] == "late"
    for call in (below.check, lambda: below.sleep(60)):
        try:
            call()
        except Stopped:
            heard.append("stopped")
    assert heard.count("stopped") == 2
    assert not isinstance(Stopped(), Exception)


def test_a_traced_flow_out_of_time_ends() -> None:
    """As under a debugger: a thread that is traced stands still while another has yet to hear that it is to stop."""

    @task
    def inner() -> None:
        while True:
            time.sleep(0.001)

    @task
    def outer() -> None:
        inner.submit().wait()

    @flow(timeout_seconds=0.05, task_runner=ThreadPoolTaskRunner(max_workers=4))
    def root() -> None:
        for _ in range(6):
            outer.submit()
        while True:
            time.sleep(0.001)

    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        states = [root(return_state=True) for _ in range(5)]
    finally:
        sys.settrace(before)
    assert [state.name for state in states] == ["TimedOut"] * 5


def ended_by(task_timeout: float | None, work: Any) -> State[Any]:
    """The final state of a run of `work` whose own time is over, or else that of its flow."""
    seen: list[Any] = []

    @flow(timeout_seconds=None if task_timeout else limit(0.1))
    def run() -> None:
        seen.append(task(work, timeout_seconds=task_timeout).submit())
        seen[0].wait()

    run(return_state=True)
    state: State[Any] = seen[0].state
    return state


@pytest.mark.parametrize(("task_timeout", "name"), [(None, "Cancelled"), (limit(0.1), "TimedOut")])
def test_a_coroutine_is_cancelled_where_it_waits_and_may_await_to_clean_up(
    task_timeout: float | None, name: str
) -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            while True:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0.01)
            seen.append("cleaned up")

    assert ended_by(task_timeout, work).name == name
    eventually(lambda: seen == ["cancelled", "cleaned up"])


@pytest.mark.takes(0.7)
@pytest.mark.parametrize(("task_timeout", "name"), [(None, "Cancelled"), (limit(0.1), "TimedOut")])
def test_a_coroutine_that_does_not_await_is_stopped_all_the_same(task_timeout: float | None, name: str) -> None:
    ended = threading.Event()

    async def work() -> None:
        try:
            while True:
                time.sleep(0.001)  # noqa: ASYNC251 - that is what it does wrong
        finally:
            ended.set()

    assert ended_by(task_timeout, work).name == name
    assert ended.wait(limit(10))


@pytest.mark.parametrize(("task_timeout", "name"), [(None, "Cancelled"), (limit(0.1), "TimedOut")])
def test_a_stop_that_the_interpreter_ignores_comes_again(
    task_timeout: float | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does in callbacks of weak references, which are called in the midst of other code."""
    monkeypatch.setattr(thread_pool, "GRACE_S", limit(20))
    lost: list[type[BaseException]] = []
    ended = threading.Event()

    class Thing:
        def __del__(self) -> None:
            try:
                while True:
                    time.sleep(0.001)
            except BaseException as stop:
                lost.append(type(stop))
                raise

    def work() -> None:
        try:
            for _ in range(2):
                Thing()
            while True:
                time.sleep(0.001)
        finally:
            ended.set()

    hook = sys.unraisablehook
    try:
        assert ended_by(task_timeout, work).name == name
        assert ended.wait(limit(10))
    finally:
        sys.unraisablehook = hook
    assert lost == [Stopped, Stopped]


def test_what_is_ignored_and_is_no_stop_is_heard_by_who_heard_it_before(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda ignored: heard.append(ignored.exc_type))

    class Thing:
        def __del__(self) -> None:
            raise ValueError

    repeat_lost_stops()
    repeat_lost_stops()
    Thing()
    assert heard == [ValueError]


def test_a_stop_in_the_callback_by_which_a_coroutine_goes_on_ends_it() -> None:
    seen: list[str] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        soon, calls = loop.call_soon, 0

        def stopped_once(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 5:
                raise Stopped
            return soon(*args, **kwargs)

        loop.call_soon = stopped_once  # type: ignore[method-assign]
        try:
            while True:
                await asyncio.sleep(0)
        finally:
            seen.append("cleaned up")

    def run() -> None:
        with pytest.raises(Stopped):
            run_coroutine(work())
        seen.append("ended")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit(10))
    assert seen == ["cleaned up", "ended"]


@pytest.mark.parametrize("lost", range(12))
def test_a_stop_between_two_callbacks_of_the_event_loop_ends_the_coroutine_and_its_tasks(
    lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The callback that the loop has just taken up is lost then: the first step of a task, or its next one."""
    seen: list[str] = []
    make_loop = asyncio.new_event_loop
    rounds = itertools.count()

    def made() -> Any:
        loop: Any = make_loop()
        one_round = loop._run_once

        def stopped_once() -> None:
            if loop._ready and next(rounds) == lost:
                loop._ready.popleft()
                raise Stopped
            one_round()

        loop._run_once = stopped_once
        return loop

    monkeypatch.setattr(asyncio.events, "new_event_loop", made)

    async def child(name: str) -> None:
        try:
            while True:
                await asyncio.sleep(0)
        finally:
            with tags("of this context"):
                await asyncio.sleep(0.001)
            seen.append(name)

    async def work() -> None:
        await asyncio.gather(child("one"), child("other"))

    def run() -> None:
        with pytest.raises(Stopped):
            run_coroutine(work())
        seen.append("ended")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit(10))
    assert seen[-1:] == ["ended"]
    assert len(seen) in (1, 3)  # what has begun has cleaned up


def test_an_event_loop_is_made_and_closed_where_no_stop_can_come(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []

    def note(what: str) -> None:
        gate = GATES.gate
        seen.append((what, gate is not None and gate.is_open))

    class Runner(asyncio.Runner):
        def get_loop(self) -> Any:
            note("made")
            return super().get_loop()

        def run(self, *args: Any, **options: Any) -> Any:
            note("made")
            return super().run(*args, **options)

        def close(self) -> None:
            note("closed")
            super().close()

    monkeypatch.setattr(asyncio, "Runner", Runner)

    @task
    async def work() -> None:
        note("works")

    @flow
    def run() -> None:
        work.submit().result(timeout=limit(60))

    run()
    assert seen == [("made", False), ("works", True), ("closed", False)]


def test_threads_are_started_where_no_stop_can_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """In CPython 3.11 a stop of a thread that just starts another one goes to that."""
    seen: dict[str, set[bool]] = {}
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        gate = GATES.gate
        seen.setdefault(thread.name.rstrip("0123456789"), set()).add(gate is not None and gate.is_open)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)

    @task(timeout_seconds=limit(60))
    def inner() -> int:
        return 1

    @task
    def outer() -> int:
        return inner() + inner.submit().result(timeout=limit(60))

    @flow(timeout_seconds=limit(60), task_runner=ThreadPoolTaskRunner(max_workers=1))
    def run() -> int:
        return outer.submit().result(timeout=limit(60))

    assert run() == 2
    assert seen == {"whenthen-timed": {False}, "whenthen-tasks-": {False}}


def test_a_stop_just_before_the_gate_is_closed_leaves_it_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    gates: list[StopGate] = []
    close = StopGate.__exit__

    def stopped_once(gate: StopGate, *error: object) -> None:
        if gate not in gates:
            gates.append(gate)
            raise Stopped
        close(gate, *error)

    monkeypatch.setattr(StopGate, "__exit__", stopped_once)

    @task
    def work() -> None: ...

    @flow
    def run() -> str:
        state: State[Any] = work.submit(return_state=True)
        return state.name

    assert run() == "Cancelled"
    with pytest.raises(Stopped):
        call_within(limit(60), lambda: None, (), {}, expired=TimeoutError, scope=None)
    assert [gate.is_open for gate in gates] == [False, False]


def test_a_coroutine_that_is_begun_after_its_thread_has_lost_a_stop_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thread_pool, "GRACE_S", limit(20))
    ended = threading.Event()

    async def goes_on() -> None:
        try:
            while True:
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    def loses_the_stop() -> Any:
        with contextlib.suppress(Stopped):  # as the interpreter does in the callback of a weak reference
            while True:
                time.sleep(0.001)
        return goes_on()

    assert ended_by(None, loses_the_stop).name == "Cancelled"
    assert ended.is_set()


def test_the_threads_of_a_subflow_are_told_to_stop_by_a_thread_that_is_not_stopped_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool] = []
    close = WorkerPool.close

    def noted(pool: WorkerPool, *, cancel: bool) -> None:
        gate = GATES.gate
        seen.append(gate is not None and gate.is_open)
        close(pool, cancel=cancel)

    monkeypatch.setattr(WorkerPool, "close", noted)

    @task
    def inner() -> int:
        return 1

    @flow
    def child() -> int:
        return inner.submit().result(timeout=limit(60))

    @task
    def outer() -> int:
        return child()

    @flow
    def root() -> int:
        return outer.submit().result(timeout=limit(60))

    assert root() == 1
    assert seen == [False, False]
