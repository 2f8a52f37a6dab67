"""Every error of whenthen, one tree.

WhenthenError
├── InvalidInput          what came in is wrong; nothing was changed (HTTP 400)
│   ├── InvalidEvent      an event's field is missing or wrong
│   ├── InvalidRules      a set of rules is refused; carries every problem found
│   ├── InvalidTemplate   a template or path can not be compiled
│   └── UnsupportedMediaType   a body of a kind that is not read (HTTP 415)
├── Refused               understood, but not allowed (HTTP 401, 403)
├── NotFound              no such automation, deployment, run, webhook
├── Conflict              somebody else changed it first, or it is in another state
├── RenderError           a parameter could not be rendered for this event
├── ActionError           an action's try failed; `retryable` says whether another may help
├── BusUnavailable        NATS or a stream can not be reached or is full (HTTP 503)
└── SetupError            the process can not start: port, directory, server version

`reason` is stable: the same word in logs, metrics and the API.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

__all__ = [
    "ActionError",
    "BusUnavailable",
    "Conflict",
    "InvalidEvent",
    "InvalidInput",
    "InvalidRules",
    "InvalidTemplate",
    "NotFound",
    "Problem",
    "Refused",
    "RenderError",
    "SetupError",
    "UnsupportedMediaType",
    "WhenthenError",
]


class WhenthenError(Exception):
    """Root of all errors that whenthen raises on purpose. The message carries the remedy."""

    reason: str = "error"


class InvalidInput(WhenthenError):
    """What came in is wrong. Nothing was changed."""

    reason = "invalid_input"


class InvalidEvent(InvalidInput):
    """An event is refused. `field` is the path of the field at fault, such as `resource.id`."""

    reason = "invalid_event"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong in a set of rules. Lines and columns count from 1; 0 means unknown."""

    file: str
    line: int
    column: int
    field: str  #: `automations[2].trigger.expct`
    message: str  #: what was found and the remedy

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        return where + (f"{self.field}: " if self.field else "") + self.message


class InvalidRules(InvalidInput):
    """A set of rules is refused as a whole. `problems` lists everything found, in file order."""

    reason = "invalid_rules"

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class InvalidTemplate(InvalidInput):
    """A template, path or glob does not compile. The message names the position."""

    reason = "invalid_template"


class UnsupportedMediaType(InvalidInput):
    """A request body of a content type or encoding that is not read. The message names those that are."""

    reason = "unsupported_media_type"
    status = 415


class Refused(WhenthenError):
    """The request is understood and not allowed. `status` is 401 or 403."""

    reason = "refused"

    def __init__(self, message: str, *, status: int = 401) -> None:
        super().__init__(message)
        self.status = status


class NotFound(WhenthenError):
    """The named thing does not exist. The message lists near names where there are any."""

    reason = "not_found"


class Conflict(WhenthenError):
    """The thing is not in the state that the call needs, or another writer came first."""

    reason = "conflict"


class RenderError(WhenthenError):
    """A parameter could not be rendered: a missing value, a wrong type, or a spent budget."""

    reason = "render_error"


class ActionError(WhenthenError):
    """One try of an action failed. `retry_after` is the earliest next try that the other side asked for."""

    reason = "action_failed"

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = True,
        reason: str | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after
        if reason is not None:
            self.reason = reason


class BusUnavailable(WhenthenError):
    """The bus did not acknowledge in time, is away, or its stream is full. Try again later."""

    reason = "bus_unavailable"


class SetupError(WhenthenError):
    """The process can not start. The message says what to change."""

    reason = "setup_error"
