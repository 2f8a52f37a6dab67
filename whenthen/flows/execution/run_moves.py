"""What the engines of flows and tasks have in common: the call of a run, and putting the run into a state, which is checked against the
table of moves, told to the reporter, and answered by hooks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

from whenthen.flows.execution.cancel_scope import Stopped
from whenthen.flows.execution.reporter import REPORTER, SILENT
from whenthen.flows.execution.run_logging import engine_logger, is_logged, logger_of
from whenthen.flows.execution.run_records import FlowRun, Run, TaskRun
from whenthen.flows.execution.steps import Call, Step
from whenthen.flows.flow_errors import Signal
from whenthen.flows.states.moves import may_follow
from whenthen.flows.states.state import State

__all__ = ["UNSET", "RunCall", "call_hooks", "enter", "log", "report", "report_untold", "waited_for"]

UNSET: Any = object()  #: of a run whose function has returned nothing yet; None is a value like others


class RunCall:
    """One run: what it was called with, and how it went. `steps` is its engine."""

    __slots__ = ("attempt", "error", "parameters", "returned", "run", "scope", "wait_for")

    run: Run
    returned: Any
    error: BaseException | None  #: what ended it, until it is raised

    def steps(self) -> Generator[Step, Any, RunCall]:
        """The engine."""
        raise NotImplementedError

    def result(self) -> Any:
        """What a direct call gives: the function's value, or its exception raised; None for a run that was never started."""
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None
        return None if self.returned is UNSET else self.returned

    def final_state(self) -> State[Any]:
        """The state of the run. What is no `Exception`, an interrupt or an exit, is raised also where a state was asked for."""
        if self.error is not None and not isinstance(self.error, Exception):
            self.result()
        return self.run.state


def waited_for(wait_for: Any) -> list[Any]:
    """What a `wait_for` names, which may be a single future."""
    return list(wait_for) if isinstance(wait_for, Iterable) else [wait_for]


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
    """Tell the reporter, of a state that it has not heard of before, too."""
    reporter, before = REPORTER.get(), run.untold
    run.untold = None
    if reporter is not SILENT:
        assert isinstance(run, (FlowRun, TaskRun))
        try:
            if before is None:
                reporter.state(run, state)
            elif (together := getattr(reporter, "states", None)) is not None:
                together(run, before, state)
            else:
                reporter.state(run, before)
                reporter.state(run, state)
        except Exception:
            engine_logger().exception("the reporter did not take state %s of run %r; the run goes on", state, run.name)


def report_untold(run: Run) -> None:
    """Tell the reporter of the state that it was to hear of with the one that follows: that does not follow at once."""
    state, run.untold = run.untold, None
    if state is not None:
        report(run, state)


def log(run: Run, level: int, message: str, *values: Any, error: BaseException | None = None) -> None:
    """A line of the SDK in the run's log."""
    if is_logged(run, level):
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
