"""Calling a function in a process of its own: a fork of this one, so that the function and its arguments need not be pickled; its result is.

The fork has this thread alone. What another thread held at that moment stays held in it: a library that uses threads of its own, and does
not care for forks, may hang there; then use ThreadPoolTaskRunner. Everything of this package that the function can reach is made anew.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import pickle
import signal
import socket
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from whenthen.flows.execution.cancel_scope import CancelScope, Stopped
from whenthen.flows.execution.reporter import REPORTER, SILENT, keeps_lines
from whenthen.flows.execution.run_contexts import FLOW, IN_CHILD, WORKER
from whenthen.flows.execution.steps import Step
from whenthen.flows.execution.timed_call import run_coroutine
from whenthen.flows.flow_errors import CrashedRun, SerializationError
from whenthen.flows.fork_lock import ForkLock

__all__ = ["ChildCall"]


class ChildCall(Step):
    """As `Call`, in a child process. When the time is over, or the tree is cancelled, the child is killed."""

    __slots__ = ("args", "expired", "fn", "kwargs", "limit_s", "name", "scope")

    def __init__(
        self,
        fn: Callable[..., Any],
        args: list[Any],
        kwargs: dict[str, Any],
        *,
        name: str,
        limit_s: float | None,
        expired: Callable[[], BaseException],
        scope: CancelScope,
    ) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.name = name
        self.limit_s = limit_s
        self.expired = expired
        self.scope = scope

    def perform(self) -> Any:
        ours, theirs = socket.socketpair()
        pid = _forked()
        if pid == 0:
            ours.close()
            self._run_and_exit(theirs)
        theirs.close()
        late = threading.Event()
        timer = None

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

        def kill_late() -> None:
            late.set()
            kill()

        if self.limit_s is not None:
            timer = threading.Timer(self.limit_s, kill_late)
            timer.daemon = True
            timer.start()
        self.scope.add(kill)
        try:
            answer = _hear(ours)
        finally:
            self.scope.remove(kill)
            if timer is not None:
                timer.cancel()
            kill()
            _, status = os.waitpid(pid, 0)
            ours.close()
        if late.is_set():
            raise self.expired()
        if answer is None:
            self.scope.check()
            raise CrashedRun(f"the process of task run {self.name!r} ended without a result: {_how(status)}")
        kind, value = answer
        if kind == "error":
            raise value
        return value

    def _run_and_exit(self, pipe: socket.socket) -> None:
        """In the child. Does not return, whatever happens."""
        try:
            with pipe.makefile("rwb") as file:
                _made_anew(file)
                try:
                    value = self.fn(*self.args, **self.kwargs)
                    if hasattr(value, "__await__"):
                        value = run_coroutine(value)
                    flow = FLOW.get()
                    if flow is not None:
                        flow.task_runner.close(False)
                    _tell(file, ("value", value))
                except BaseException as error:
                    _tell(file, ("error", _portable(error)))
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                logging.shutdown()
            os._exit(0)


#: under it warnings are off while a process forks: since Python 3.12 a fork beside threads warns
_FORKS = ForkLock()


def _forked() -> int:
    with _FORKS.lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


class _Forwarding:
    """The reporter in a child: what it hears, it tells the parent, whose reporter answers requests."""

    def __init__(self, file: Any) -> None:
        self.keeps_lines = keeps_lines()
        self.can_answer: Callable[[str], bool] = getattr(REPORTER.get(), "can_answer", lambda kind: True)
        self._file = file
        self._lock = threading.Lock()

    def state(self, run: Any, state: Any) -> None:
        self._send("state", (_bare(run), state))

    def log(self, run: Any, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None
        record.exc_text = None if not record.exc_info else logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
        record.__dict__.pop("run", None)
        self._send("log", (_bare(run), record))

    def event(self, event: Any) -> None:
        self._send("event", (event,))

    def artifact(self, artifact: Any) -> None:
        self._send("artifact", (artifact,))

    def request(self, kind: str, body: dict[str, Any]) -> Any:
        with self._lock:
            _tell(self._file, ("request", (kind, body)))
            ok, answer = pickle.load(self._file)
        if ok:
            return answer
        raise answer

    def _send(self, method: str, values: tuple[Any, ...]) -> None:
        with self._lock:
            _tell(self._file, (method, values))


def _bare(run: Any) -> Any:
    """A run without those around it."""
    bare = copy.copy(run)
    bare.parent = None
    bare.waiting_for = ()
    return bare


def _made_anew(file: Any) -> None:
    """In the child: nothing is shared with threads that are not there."""
    WORKER.set(None)
    IN_CHILD.set(True)
    if REPORTER.get() is not SILENT:
        REPORTER.set(_Forwarding(file))
    flow = FLOW.get()
    if flow is not None:
        flow.scope = CancelScope()
        flow.task_runner = flow.task_runner.duplicate()


def _tell(file: Any, message: tuple[str, Any]) -> None:
    """Write one message: its length is in the pickle."""
    try:
        data = pickle.dumps(message, protocol=5)
    except Exception as problem:
        kind, value = message
        what = f"a result of class {type(value).__name__}" if kind == "value" else f"what it says ({kind})"
        error = SerializationError(
            f"{what} can not be given to the process that asked for it: {problem}; return something that can be pickled"
        )
        data = pickle.dumps(("error", error), protocol=5)
    file.write(data)
    file.flush()


def _hear(ours: socket.socket) -> tuple[str, Any] | None:
    """The child's result or error, after everything else that it says; None when it ends before."""
    reporter = REPORTER.get()
    with ours.makefile("rwb") as file:
        while True:
            try:
                kind, value = pickle.load(file)
            except (EOFError, ConnectionError, pickle.UnpicklingError):
                return None
            if kind in ("value", "error"):
                return kind, value
            if kind == "request":
                try:
                    answer: tuple[bool, Any] = True, reporter.request(*value)
                except Exception as problem:
                    answer = False, problem
                pickle.dump(answer, file)
                file.flush()
            else:
                getattr(reporter, kind)(*value)


def _portable(error: BaseException) -> BaseException:
    """`error`, or one that says the same and can be pickled. Its traceback goes with it as a note."""
    trace = "".join(traceback.format_exception(error)).rstrip()
    with contextlib.suppress(Exception):
        error.__traceback__ = None
        error.add_note(f"in the process of the task:\n{trace}")
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    if isinstance(error, Stopped):
        return error
    return CrashedRun(f"{type(error).__name__}: {error}\n{trace}")


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.WEXITSTATUS(status)}"
