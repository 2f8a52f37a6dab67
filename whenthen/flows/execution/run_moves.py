"""Putting a run into a state: checked against the table of moves, told to the reporter, answered by hooks. Used by both engines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any

from whenthen.flows.execution.cancel_scope import Stopped
from whenthen.flows.execution.reporter import REPORTER, SILENT
from whenthen.flows.execution.run_logging import engine_logger, logger_of
from whenthen.flows.execution.run_records import FlowRun, Run, TaskRun
from whenthen.flows.execution.steps import Call, Step
from whenthen.flows.flow_errors import Signal
from whenthen.flows.states.moves import may_follow
from whenthen.flows.states.state import State

__all__ = ["call_hooks", "enter", "log"]


def enter(run: Run, state: State[Any]) -> None:
    """Put `run` into `state`."""
    before = run.state
    assert may_follow(before.type, state.type), f"{run}: {before} can not be followed by {state}"
    details = state.state_details
    if isinstance(run, TaskRun):
        details.task_run_id = run.id
        details.flow_run_id = run.flow_run_id
    else:
        details.flow_run_id = run.id
    run.enter(state)
    report(run, state)


def report(run: Run, state: State[Any]) -> None:
    reporter = REPORTER.get()
    if reporter is not SILENT:
        assert isinstance(run, (FlowRun, TaskRun))
        try:
            reporter.state(run, state)
        except Exception:
            engine_logger().exception("the reporter did not take state %s of run %r; the run goes on", state, run.name)


def log(run: Run, level: int, message: str, *values: Any, error: BaseException | None = None) -> None:
    """A line of the SDK in the run's log."""
    logger_of(run).log(level, message, *values, exc_info=error)


def call_hooks(
    hooks: Sequence[Callable[..., Any]], definition: Any, run: Run, state: State[Any]
) -> Generator[Step, Any, None]:
    """Call each hook with the flow or task, the run and the state. One that raises is logged and stops no other."""
    for hook in hooks:
        try:
            yield Call(hook, (definition, run, state))
        except (Signal, KeyboardInterrupt, SystemExit, Stopped):
            raise
        except BaseException as error:
            name = getattr(hook, "__name__", repr(hook))
            log(
                run,
                logging.ERROR,
                "An error was encountered while running hook %r in state %s",
                name,
                state.name,
                error=error,
            )
