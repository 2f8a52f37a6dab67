"""A flow run that failed leaves one line in the log, and each is counted by how it ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from whenthen.actions.secrets import Redactor
from whenthen.engine.flow_runs import RunEndings
from whenthen.engine.metrics import Metrics
from whenthen.runs.run_states import new_run, transition
from whenthen.schemas.deployments import TERMINAL, Deployment, FlowRun, RunState

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)


def ended(state: RunState, message: str = "", **changes: Any) -> FlowRun:
    run = new_run(Deployment(name="load", command="true"), key="k", parameters={}, now=NOW)
    for each in (RunState.PENDING, RunState.RUNNING):
        run = transition(run, each, NOW)
    if state is RunState.CANCELLED:
        run = transition(run, RunState.CANCELLING, NOW)
    return transition(run, state, NOW, message=message, **changes)


def endings(redactor: Redactor | None = None) -> tuple[RunEndings, Metrics]:
    metrics = Metrics(version="1")
    metrics.take_rules({}, {}, deployments=["load"])
    return RunEndings(metrics, (redactor or Redactor()).text), metrics


def counted(metrics: Metrics) -> dict[str, float]:
    return {
        sample.labels["state"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "whenthen_flow_runs_total"
    }


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_run_is_counted_by_its_end_and_leaves_one_line_when_it_failed(
    state: RunState, caplog: pytest.LogCaptureFixture
) -> None:
    noted, metrics = endings()
    assert counted(metrics) == dict.fromkeys(TERMINAL, 0.0)
    run = ended(state, "exit code 3", exit_code=3)
    noted.note(run)
    assert counted(metrics) == {each: float(each == state) for each in TERMINAL}
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    failed = state in (RunState.FAILED, RunState.CRASHED, RunState.TIMED_OUT)
    line = f"flow run {run.id} of deployment load: {state} at attempt 1: exit code 3"
    assert said == ([("WARNING", line)] if failed else [])
    if failed:
        assert (vars(caplog.records[0])["run"], vars(caplog.records[0])["exit_code"]) == (run.id, 3)


def test_what_a_run_said_last_stays_on_one_line_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    redactor = Redactor()
    redactor.add("a-secret\nof-two-lines")
    endings(redactor)[0].note(ended(RunState.FAILED, "a-secret\nof-two-lines\n\x1b[2J" + "x" * 2000))
    message = caplog.records[0].getMessage()
    assert r"***\n\x1b[2Jxxx" in message
    assert len(message) < 700


def test_runs_of_deployments_that_left_the_rules_become_no_series() -> None:
    noted, metrics = endings()
    metrics.take_rules({}, {}, deployments=["other"])
    noted.note(ended(RunState.FAILED))
    assert all(value == 0 for value in counted(metrics).values())
