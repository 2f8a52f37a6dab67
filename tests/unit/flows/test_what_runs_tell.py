"""What a run tells through the one port, and what it hands to hooks; a port that fails ends no run."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest
import sample_flows

from whenthen import flow, get_run_logger, task
from whenthen.cache_policies import INPUTS
from whenthen.exceptions import NeedsServer
from whenthen.flows.execution.reporter import REPORTER, SILENT, ask
from whenthen.flows.reporting.socket_reporter import SocketReporter
from whenthen.runs.reports.report_lines import read_report_line
from whenthen.runs.reports.task_runs import TaskRunMove
from whenthen.states import State

if TYPE_CHECKING:
    from whenthen.flows.reporting.worker_channel import WorkerChannel


class Reporter:
    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def state(self, run: Any, state: State[Any]) -> None:
        self.heard.append((run.name.split("-")[0], state.name))

    def log(self, run: Any, record: logging.LogRecord) -> None:
        self.heard.append((run.name.split("-")[0], record.getMessage()))

    def event(self, event: Any) -> None: ...

    def artifact(self, artifact: Any) -> None: ...

    def request(self, kind: str, body: dict[str, Any]) -> Any:
        return kind, body


@pytest.fixture
def reporter() -> Iterator[Reporter]:
    reporter = Reporter()
    token = REPORTER.set(reporter)
    yield reporter
    REPORTER.reset(token)


def test_every_move_and_line_is_told_in_order(reporter: Reporter) -> None:
    tried: list[int] = []

    @task(retries=2, retry_delay_seconds=[0, 0.01])
    def flaky() -> None:
        tried.append(1)
        get_run_logger().info("try %d", len(tried))
        if len(tried) < 3:
            raise ValueError("x")

    @task
    def bad() -> None:
        raise ValueError("y")

    @task
    def below(value: Any) -> None: ...

    @flow(flow_run_name="day")
    def day() -> None:
        flaky()
        bad(return_state=True)
        below(bad.submit())

    day()
    of = {name: [said for who, said in reporter.heard if who == name] for name in ("flaky", "below", "day")}
    assert of["flaky"] == [
        "Pending",
        "Running",
        "try 1",
        "Task run failed with exception: ValueError('x') - Retry 1/2 will start immediately",
        "Retrying",
        "try 2",
        "Task run failed with exception: ValueError('x') - Retry 2/2 will start 0.01 second(s) from now",
        "AwaitingRetry",
        "Retrying",
        "try 3",
        "Completed",
    ]
    assert of["below"] == ["Pending", "NotReady"]
    assert of["day"] == ["Running", "Completed"]  # it has its name when it begins


def test_what_follows_at_once_is_told_together(reporter: Reporter) -> None:
    together: list[tuple[str, str]] = []

    def states(run: Any, before: State[Any], state: State[Any]) -> None:
        together.append((before.name, state.name))

    reporter.states = states  # type: ignore[attr-defined]

    @task
    def same(n: int) -> int:
        return n

    @flow
    def run() -> int:
        return same(same.submit(1))

    assert run() == 1
    assert together == [("Pending", "Running")]  # of that which waits for nothing
    assert [said for who, said in reporter.heard if who == "same"] == ["Completed", "Pending", "Running", "Completed"]


@pytest.mark.parametrize("text", ["", 'ü "\u2028" \\ \0 \n {', "half of a pair: \ud800", "\U0001f40d", "x" * 600])
def test_a_worker_reads_what_is_told_whatever_its_texts_are(text: str) -> None:
    told: list[bytes] = []

    class Channel:
        def tell_lines(self, lines: bytes) -> None:
            told.append(lines)

        def tell(self, message: dict[str, Any], *, may_drop: bool) -> None: ...

    reporter = SocketReporter(cast("WorkerChannel", Channel()))
    token = REPORTER.set(reporter)
    try:

        @task(name=f"task {text}", tags=[f"tag {text}"])
        def below() -> None:
            raise ValueError(text)

        @flow
        def above() -> None:
            below(return_state=True)

        above(return_state=True)
    finally:
        REPORTER.reset(token)
    moves = [read_report_line(line, attempt=1) for lines in told for line in lines.splitlines()]
    assert all(isinstance(move, TaskRunMove) for move in moves)
    of_task = [move for move in moves if isinstance(move, TaskRunMove) and move.kind == "task"]
    assert [(move.state, move.tries) for move in of_task] == [("PENDING", 0), ("RUNNING", 1), ("FAILED", 1)]
    read = text.replace("\ud800", "?")
    assert {move.of for move in of_task} == {f"task {read}"[:500]}
    assert {move.tags for move in of_task} == {(f"tag {read}"[:500],)}
    assert of_task[-1].message.endswith(f"ValueError: {read}")
    assert of_task[0].parent == next(move.id for move in moves if isinstance(move, TaskRunMove) and move.kind == "flow")


def test_a_cached_run_says_so(reporter: Reporter) -> None:
    @task(cache_policy=INPUTS)
    def kept(n: int) -> int:
        return n

    kept(1), kept(1)
    assert [said for _, said in reporter.heard] == ["Pending", "Running", "Completed", "Pending", "Running", "Cached"]


def test_a_reporter_that_raises_ends_no_run(reporter: Reporter, caplog: pytest.LogCaptureFixture) -> None:
    def boom(*_: Any) -> None:
        raise ConnectionError("gone")

    reporter.state = reporter.log = boom  # type: ignore[method-assign]

    @flow
    def run() -> int:
        get_run_logger().info("a line")
        return 1

    assert run() == 1
    assert "the reporter did not take state Completed() of run" in caplog.text


def test_a_request_is_answered_or_says_what_it_needs(reporter: Reporter) -> None:
    assert ask("slot", {"n": 1}) == ("slot", {"n": 1})
    token = REPORTER.set(SILENT)
    try:
        with pytest.raises(NeedsServer, match=r"slot is done by a server, .* says what to do instead"):
            ask("slot", {})
    finally:
        REPORTER.reset(token)


def test_hooks_get_what_they_need() -> None:
    seen: list[Any] = []

    @flow(name="A flow", version="7")
    def run(n: int) -> int:
        return n + 1

    @run.on_completion
    def note(flow: Any, flow_run: Any, state: State[Any]) -> None:
        seen.append(
            (
                flow.name,
                flow_run.flow_name,
                flow_run.parameters,
                flow_run.run_count,
                state.result(),
                flow_run.state is state,
            )
        )
        seen.append(flow_run.start_time <= flow_run.end_time)
        seen.append(
            (flow_run.parent_flow_run_id, flow_run.deployment_id, flow_run.state_name, flow_run.state_type.value)
        )

    assert run(1) == 2
    assert seen == [("A flow", "A flow", {"n": 1}, 1, 2, True), True, (None, None, "Completed", "COMPLETED")]


def test_flows_and_tasks_are_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(sample_flows.add)) is sample_flows.add
    assert pickle.loads(pickle.dumps([sample_flows.adds])) == [sample_flows.adds]

    @task
    def local() -> None: ...

    with pytest.raises(TypeError, match=r"<Task 'local'> can not be pickled: .*define it at the top of a module"):
        pickle.dumps(local)
    with pytest.raises(TypeError, match="can not be pickled"):
        pickle.dumps(sample_flows.add.with_options(name="other"))


@pytest.mark.parametrize("how", ["return_state", "submitted", "raised"])
def test_a_failure_leaves_a_line_whoever_looks_at_it(how: str, caplog: pytest.LogCaptureFixture) -> None:
    @task(task_run_name="bad-1")
    def bad() -> None:
        raise ValueError("no paper")

    @flow(flow_run_name="night-1")
    def night() -> None:
        if how == "return_state":
            bad(return_state=True)
        elif how == "submitted":
            bad.submit()
        else:
            bad()

    state = night(return_state=True)
    lines = [(r.levelname, r.getMessage(), getattr(r, "task_run_name", r.flow_run_name)) for r in caplog.records]  # type: ignore[attr-defined]
    failed = ("ERROR", "Finished in state Failed('Task run encountered an exception ValueError: no paper')", "bad-1")
    assert lines[0] == failed
    assert state.is_failed() is (how == "raised")
    assert len(lines) == (2 if how == "raised" else 1)
    if how == "raised":
        assert lines[1] == ("ERROR", f"Finished in state {state}", "night-1")
