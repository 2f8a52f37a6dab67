"""Names of Prefect's that programs use beside the great ones: getters of the runtime, the logger of runs switched off, options of drawings."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from whenthen import flow, get_run_logger, task
from whenthen.context import MissingContextError, get_run_context
from whenthen.logging import disable_run_logger
from whenthen.runtime import deployment, flow_run, task_run


def test_each_value_of_the_runtime_has_a_getter() -> None:
    seen: list[Any] = []

    @task
    def inner() -> None:
        seen.append((task_run.get_id() == task_run.id, task_run.get_name(), flow_run.get_flow_name()))

    @flow(name="outer flow")
    def outer(n: int) -> None:
        seen.append((flow_run.get_id() == flow_run.id, flow_run.get_parameters(), deployment.get_id()))
        inner()

    outer(3)
    assert seen[0] == (True, {"n": 3}, None)
    assert seen[1][0] is True
    assert seen[1][2] == "outer flow"
    assert (flow_run.get_id(), task_run.get_run_count(), deployment.get_name()) == (None, 0, None)
    with pytest.raises(AttributeError, match="no attribute 'get_nothing'"):
        flow_run.get_nothing()


def test_the_logger_of_runs_can_be_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    @task
    def tells() -> int:
        get_run_logger().warning("told by the run")
        return 1

    with pytest.raises(MissingContextError, match="disable_run_logger"):
        tells.fn()
    with disable_run_logger():
        assert tells.fn() == 1
        get_run_logger(of="a test").error("nobody hears")
        assert tells() == 1
    assert not {"told by the run", "nobody hears"}.intersection(caplog.messages)
    assert not logging.getLogger("whenthen.task_runs").disabled
    assert tells() == 1
    assert caplog.messages.count("told by the run") == 1


def test_outside_a_run_the_context_raises_an_error_of_its_own_module() -> None:
    with pytest.raises(MissingContextError):
        get_run_context()


def test_what_a_drawn_task_would_give_is_taken() -> None:
    @task(viz_return_value=[1, 2])
    def real() -> int:
        return 7

    assert real() == 7
    assert real.with_options(name="other").viz_return_value == [1, 2]
