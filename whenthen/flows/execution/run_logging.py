"""The loggers of runs: `whenthen.flow_runs` and `whenthen.task_runs`, whose lines name their run.

They show INFO and above without any configuration: on stderr while nothing else handles them, and through the program's own handlers
as soon as it has some. Nothing is set up at import.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, nullcontext
from typing import Any

from whenthen.flows.execution.cancel_scope import GATES
from whenthen.flows.execution.reporter import REPORTER, SILENT, keeps_lines
from whenthen.flows.execution.run_contexts import FLOW, TASK, FlowRunContext, TaskRunContext
from whenthen.flows.execution.run_records import FlowRun, Run, TaskRun
from whenthen.flows.flow_errors import MissingContextError

__all__ = ["RunLogger", "disable_run_logger", "engine_logger", "get_logger", "get_run_logger", "is_logged", "logger_of"]

ROOT = "whenthen"
_OF_RUNS = ("whenthen.flow_runs", "whenthen.task_runs")


class _LastResort(logging.StreamHandler[Any]):
    """Shows lines of runs where the program has no handler for them."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s | %(levelname)-7s | %(run_label)s - %(message)s", "%H:%M:%S"))
        self.addFilter(lambda record: hasattr(record, "run_label"))

    @property
    def stream(self) -> Any:
        return sys.stderr  # as it is now: a test may have replaced it

    @stream.setter
    def stream(self, value: Any) -> None: ...

    def emit(self, record: logging.LogRecord) -> None:
        if keeps_lines():
            return
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(not isinstance(handler, (_LastResort, _Reported)) for handler in logger.handlers):
                return
            logger = logger.parent if logger.propagate else None
        super().emit(record)


class _Reported(logging.Handler):
    """Gives lines of runs to the reporter."""

    def emit(self, record: logging.LogRecord) -> None:
        run = getattr(record, "run", None)
        reporter = REPORTER.get()
        if run is not None and reporter is not SILENT:
            try:
                reporter.log(run, record)
            except Exception:
                engine_logger().exception("the reporter did not take a line of run %r; the run goes on", run.name)


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds run, flow and task to each line: as `extra`, and in front of the message where the SDK shows it itself."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if self.isEnabledFor(level):
            gate = GATES.gate
            with nullcontext() if gate is None else gate.closed():
                super().log(level, msg, *args, **{**kwargs, "stacklevel": kwargs.get("stacklevel", 1) + 1})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs


def get_logger(name: str | None = None) -> logging.Logger:
    """The logger `whenthen`, or one below it."""
    if name is None or name == ROOT:
        return logging.getLogger(ROOT)
    return logging.getLogger(name if name.startswith(f"{ROOT}.") else f"{ROOT}.{name}")


def engine_logger() -> logging.Logger:
    """Of what the SDK itself has to say."""
    return logging.getLogger("whenthen.flows")


def _shared_logger(run: Run) -> logging.Logger:
    """That of all runs of flows or of all runs of tasks."""
    logger = logging.getLogger(_OF_RUNS[0 if isinstance(run, FlowRun) else 1])
    if not any(isinstance(handler, _Reported) for handler in logger.handlers):
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        logger.addHandler(_LastResort())
        logger.addHandler(_Reported())
    return logger


def is_logged(run: Run, level: int) -> bool:
    """Whether a line of this level in `run` goes anywhere. To ask costs less than the logger of the run."""
    return _shared_logger(run).isEnabledFor(level)


def logger_of(run: Run) -> RunLogger:
    """The logger of one run."""
    if isinstance(run, FlowRun):
        label = f"Flow run {run.name!r}"
        extra: Mapping[str, Any] = {
            "run": run,
            "run_label": label,
            "flow_run_id": str(run.id),
            "flow_run_name": run.name,
            "flow_name": run.flow_name,
        }
        return RunLogger(_shared_logger(run), extra)
    assert isinstance(run, TaskRun)
    flow = FLOW.get()
    extra = {
        "run": run,
        "run_label": f"Task run {run.name!r}",
        "task_run_id": str(run.id),
        "task_run_name": run.name,
        "task_name": run.task_name,
        "flow_run_id": None if run.flow_run_id is None else str(run.flow_run_id),
        "flow_run_name": None if flow is None else flow.flow_run.name,
        "flow_name": None if flow is None else flow.flow.name,
    }
    return RunLogger(_shared_logger(run), extra)


def get_run_logger(context: FlowRunContext | TaskRunContext | None = None, **extra: Any) -> RunLogger:
    """The logger of the run in which this is called; outside runs one that says nothing, where `disable_run_logger` says so.

    Raises:
        MissingContextError: this code is in no run.
    """
    if isinstance(context, FlowRunContext):
        run: Run = context.flow_run
    elif isinstance(context, TaskRunContext):
        run = context.task_run
    else:
        task, flow = TASK.get(), FLOW.get()
        if task is not None:
            run = task.task_run
        elif flow is not None:
            run = flow.flow_run
        elif all(logging.getLogger(name).disabled for name in _OF_RUNS):
            silent = logging.Logger("whenthen.disabled")
            silent.disabled = True
            return RunLogger(silent, extra)
        else:
            raise MissingContextError(
                "There is no active flow or task run: get_run_logger() works inside one; elsewhere use logging.getLogger(__name__), and in a "
                "test of a function alone `with disable_run_logger():`"
            )
    logger = logger_of(run)
    if extra:
        logger.extra = {**(logger.extra or {}), **extra}
    return logger


@contextmanager
def disable_run_logger() -> Iterator[None]:
    """In this block no run of the process logs anything, and `get_run_logger` works outside runs too: for tests that call the function of a
    task (`task.fn()`)."""
    loggers = [logging.getLogger(name) for name in _OF_RUNS]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
