"""The one port through which a run tells of itself and asks for something. Silent by default.

A program that runs flows for a server sets `REPORTER` before it calls the flow; threads and processes below inherit it. `whenthen worker`
does not: it starts a run as a script of its own, which tells of itself by its output and its exit code.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from whenthen.flows.flow_errors import NeedsServer

if TYPE_CHECKING:
    from whenthen.flows.execution.run_records import FlowRun, TaskRun
    from whenthen.flows.states.state import State

__all__ = ["REPORTER", "RunReporter", "SilentReporter", "ask"]


class RunReporter(Protocol):
    """What hears of runs. Calls come from any thread, in order for one run, and must not block for long. An error of a reporter ends
    no run: it is logged."""

    def state(self, run: FlowRun | TaskRun, state: State[Any]) -> None:
        """`run` has entered `state`."""

    def log(self, run: FlowRun | TaskRun, record: logging.LogRecord) -> None:
        """A line was logged in `run`."""

    def event(self, event: Any) -> None:
        """`emit_event` was called."""

    def artifact(self, artifact: Any) -> None:
        """An artifact was made or updated."""

    def request(self, kind: str, body: dict[str, Any]) -> Any:
        """Ask the server for something, and wait for the answer.

        Raises:
            NeedsServer: there is none.
        """


class SilentReporter:
    """Hears nothing and knows no server."""

    def state(self, run: FlowRun | TaskRun, state: State[Any]) -> None: ...

    def log(self, run: FlowRun | TaskRun, record: logging.LogRecord) -> None: ...

    def event(self, event: Any) -> None: ...

    def artifact(self, artifact: Any) -> None: ...

    def request(self, kind: str, body: dict[str, Any]) -> Any:
        raise NeedsServer(
            f"{kind} is done by a server, and a run is connected to none, in a script as in a deployment; docs/prefect.md says what to do "
            "instead"
        )


SILENT = SilentReporter()
REPORTER: ContextVar[RunReporter] = ContextVar("whenthen.reporter", default=SILENT)


def ask(kind: str, body: dict[str, Any]) -> Any:
    """What the server answers to `kind`.

    Raises:
        NeedsServer: no reporter connects the run to a server.
    """
    return REPORTER.get().request(kind, body)
