"""The one port through which a run tells of itself and asks for something.

In a process that a worker started, and in those that it starts, the reporter is `reporting.SocketReporter`, which speaks to the worker. In any
other the port is silent. A program may set `REPORTER` before it calls a flow; threads and processes below inherit it.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final, Protocol

from whenthen.flows.flow_errors import NeedsServer
from whenthen.flows.reporting.socket_reporter import reporter_of

if TYPE_CHECKING:
    from whenthen.flows.execution.run_records import FlowRun, TaskRun
    from whenthen.flows.states.state import State

__all__ = ["REPORTER", "SILENT", "RunReporter", "SilentReporter", "answers", "ask", "keeps_lines"]


class RunReporter(Protocol):
    """What hears of runs. Calls come from any thread, in order for one run, and must not block for long. An error of a reporter ends
    no run: it is logged.

    Three things may be left out: `can_answer(kind) -> bool`, whether requests of a kind are answered (without it, all are), `keeps_lines`,
    whether lines of runs are kept so well that they need not be shown on stderr (without it, they are shown), and
    `states(run, before, state)`, which hears of two states that `run` has entered one right after the other (without it, `state` does).
    """

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
            f"{kind} is done by a server, and a script is connected to none; docs/prefect.md says what to do instead"
        )


SILENT = SilentReporter()


class CurrentReporter:
    """The reporter of a context: the one that was set, or else that of the process. This is asked for when it is first needed, and not when
    the module is imported: an interpreter may have imported it before it was given a run."""

    def __init__(self) -> None:
        self._set: ContextVar[RunReporter | None] = ContextVar("whenthen.reporter", default=None)
        self._of_process: RunReporter | None = None

    def get(self) -> RunReporter:
        found = self._set.get()
        if found is not None:
            return found
        if self._of_process is None:
            self._of_process = reporter_of() or SILENT
        return self._of_process

    def set(self, reporter: RunReporter) -> Token[RunReporter | None]:
        return self._set.set(reporter)

    def reset(self, token: Token[RunReporter | None]) -> None:
        self._set.reset(token)


REPORTER: Final = CurrentReporter()


def answers(kind: str) -> bool:
    """Whether somebody answers requests of this kind."""
    reporter = REPORTER.get()
    asked = getattr(reporter, "can_answer", None)
    return reporter is not SILENT and (asked is None or bool(asked(kind)))


def keeps_lines() -> bool:
    """Whether lines of runs are kept elsewhere than on stderr."""
    return bool(getattr(REPORTER.get(), "keeps_lines", False))


def ask(kind: str, body: dict[str, Any]) -> Any:
    """What the server answers to `kind`.

    Raises:
        NeedsServer: no reporter connects the run to a server.
    """
    return REPORTER.get().request(kind, body)
