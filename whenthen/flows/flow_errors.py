"""What goes wrong with flows and tasks, as one tree. Names are Prefect's; each is the natural built-in class as well.

`whenthen.exceptions` shows all of them. A message says what, where, what was found, and the remedy; `reason` is the same word in logs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

__all__ = [
    "Abort",
    "AcquireConcurrencySlotTimeoutError",
    "ArgumentError",
    "BlockNotFound",
    "CancelledRun",
    "CircularWait",
    "ConcurrencySlotAcquisitionError",
    "ConfigurationError",
    "CrashedRun",
    "FailedRun",
    "FlowError",
    "FlowInputTimeout",
    "FlowPauseTimeout",
    "FlowRunTimeoutError",
    "FlowRunWaitTimeout",
    "HashError",
    "InvalidNameError",
    "MappingLengthMismatch",
    "MappingMissingIterable",
    "MissingContextError",
    "MissingFlowError",
    "MissingResult",
    "NeedsServer",
    "NotPausedError",
    "NotSupported",
    "ObjectAlreadyExists",
    "ObjectNotFound",
    "ParameterBindError",
    "ParameterTypeError",
    "Pause",
    "PausedRun",
    "ReservedArgumentError",
    "ScriptError",
    "SerializationError",
    "ServerError",
    "Signal",
    "SignatureMismatchError",
    "TaskRunTimeoutError",
    "TerminationSignal",
    "UnfinishedRun",
    "UnspecifiedFlowError",
    "UpstreamTaskError",
]


class FlowError(Exception):
    """Whatever the SDK refuses or reports. `PrefectException` in Prefect."""

    reason: ClassVar[str] = "flow_error"


class CrashedRun(FlowError, RuntimeError):
    """The result of a run was asked for that crashed and left no exception."""

    reason = "crashed"


class FailedRun(FlowError, RuntimeError):
    """The result of a run was asked for that failed and left no exception."""

    reason = "failed"


class CancelledRun(FlowError, RuntimeError):
    """The result of a cancelled run was asked for."""

    reason = "cancelled"


class PausedRun(FlowError, RuntimeError):
    """The result of a paused run was asked for."""

    reason = "paused"


class UnfinishedRun(FlowError, RuntimeError):
    """The result of a run was asked for that has not ended."""

    reason = "unfinished"


class MissingResult(FlowError, LookupError):
    """A state has no data, or its persisted result is gone."""

    reason = "missing_result"


class UpstreamTaskError(FlowError, RuntimeError):
    """A task needs the result of a run that did not complete."""

    reason = "upstream_failed"


class CircularWait(FlowError, RuntimeError):
    """A run waits for a future that, directly or by way of others, waits for that run."""

    reason = "circular_wait"


class TaskRunTimeoutError(FlowError, TimeoutError):
    """A task ran longer than its `timeout_seconds`."""

    reason = "timed_out"


class FlowRunTimeoutError(FlowError, TimeoutError):
    """A flow ran longer than its `timeout_seconds`."""

    reason = "timed_out"


class MissingContextError(FlowError, RuntimeError):
    """Something was called outside a run that makes sense inside one only."""

    reason = "no_run"


class MissingFlowError(FlowError, LookupError):
    """A file has no flow of the given name."""

    reason = "no_flow"


class UnspecifiedFlowError(FlowError, ValueError):
    """A file has several flows and none was named."""

    reason = "several_flows"


class ScriptError(FlowError, RuntimeError):
    """A file raised while a flow was being loaded from it."""

    reason = "script"


class ParameterTypeError(FlowError, TypeError, ValueError):
    """A parameter of a flow does not fit its annotation."""

    reason = "parameter_type"

    lines: tuple[str, ...] = ()  #: one for each parameter

    @classmethod
    def of(cls, what: str, lines: list[str]) -> ParameterTypeError:
        made = cls("\n".join([what, *lines]))
        made.lines = tuple(lines)
        return made


class ParameterBindError(FlowError, TypeError):
    """Arguments do not fit the signature of a function."""

    reason = "parameter_binding"

    @classmethod
    def of(
        cls, fn: Callable[..., Any], problem: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ParameterBindError:
        name = getattr(fn, "__name__", type(fn).__name__)
        shown = ", ".join(
            [*(repr(arg)[:60] for arg in args), *(f"{key}={value!r:.60}" for key, value in kwargs.items())]
        )
        return cls(f"{name}{inspect.signature(fn)}: {problem}; it was called with ({shown})")


class SignatureMismatchError(FlowError, TypeError):
    """A mapping of parameters names one that the function does not have."""

    reason = "signature"


class ReservedArgumentError(FlowError, TypeError):
    """A function has a parameter whose name a call of a flow or task uses itself."""

    reason = "reserved_argument"


class InvalidNameError(FlowError, ValueError):
    """A name has characters that names can not have."""

    reason = "invalid_name"


class MappingLengthMismatch(FlowError, ValueError):
    """`.map` was given sequences of different lengths."""

    reason = "mapping_lengths"


class MappingMissingIterable(FlowError, ValueError):
    """`.map` was given nothing to map over."""

    reason = "mapping_nothing"


class ConfigurationError(FlowError, ValueError):
    """Options contradict each other, or name something that does not exist."""

    reason = "configuration"


class ArgumentError(ConfigurationError, TypeError):
    """A function of the SDK was given a value of the wrong kind, or an argument that it does not have."""

    reason = "argument"


class SerializationError(FlowError, ValueError):
    """A value can not be written, or not be read again."""

    reason = "serialization"


class HashError(FlowError, ValueError):
    """A value has no stable hash, so that it can not be part of a cache key."""

    reason = "hash"


class ObjectNotFound(FlowError, LookupError):
    """The server knows nothing of this name or id."""

    reason = "not_found"


class ObjectAlreadyExists(FlowError, ValueError):
    """The server has something of this name already."""

    reason = "exists"


class NotPausedError(FlowError, RuntimeError):
    """A run was to be resumed that is not paused."""

    reason = "not_paused"


class FlowPauseTimeout(FlowError, RuntimeError):
    """Nobody resumed a paused run in time. As Prefect's no TimeoutError, so that the run is Failed, not TimedOut."""

    reason = "pause_timeout"


class FlowInputTimeout(FlowError, TimeoutError):
    """A run received no input in time."""

    reason = "input_timeout"


class FlowRunWaitTimeout(FlowError, TimeoutError):
    """A run did not end in the time that was given for it."""

    reason = "wait_timeout"


class ConcurrencySlotAcquisitionError(FlowError, RuntimeError):
    """Slots of a limit can never be had: it does not exist, or has too few."""

    reason = "no_such_slots"


class AcquireConcurrencySlotTimeoutError(FlowError, TimeoutError):
    """Slots of a limit were not free in time."""

    reason = "slot_timeout"


class ServerError(FlowError, RuntimeError):
    """A server does not answer, or refuses a request."""

    reason = "server"
    status: int | None = None  #: of the answer; None where there is none
    answered: str = ""  #: the reason of the refusal, as the server or the worker has it


class NeedsServer(FlowError, RuntimeError):
    """What was called is done by a server, and there is none to ask."""

    reason = "needs_server"


class BlockNotFound(NeedsServer, ValueError):
    """A secret or another named value is not set here, and there is no server to ask."""


class NotSupported(FlowError, NotImplementedError):
    """A part of Prefect that is not here. The message says what to do instead."""

    reason = "not_supported"


class Signal(BaseException):
    """What ends a run from outside: not caught by `except Exception` in user code."""


class Abort(Signal):
    """The run was told to end and to report nothing more."""


class Pause(Signal):
    """The run is paused and its process ends; it will be started again."""


class TerminationSignal(Signal):
    """The process was told to terminate."""
