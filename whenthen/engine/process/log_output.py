"""Log output: JSON lines or text for people, with ids of events, firings and runs as fields, secrets redacted.

Called once by the command line. Modules log with `logging.getLogger(__name__)` and pass ids as
`extra={"event": ..., "firing": ...}`. The given redactor is applied to every text before it is written: message,
arguments, extra fields and tracebacks.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

__all__ = ["ConsoleFormatter", "JsonFormatter", "configure_logs"]

Redact = Callable[[str], str]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
#: logged from level `warning`
_QUIET = ("httpx", "httpcore", "watchfiles", "uvicorn.access", "apprise", "asyncio", "alembic")
#: one record a minute of each logger below: while a receiver of spans or a broker is away, its client says so every second
_RARE = ("opentelemetry.", "aiokafka", "aiormq", "aio_pika", "zmqtt")
_RARE_S = 60.0


def _unredacted(text: str) -> str:
    return text


class _Formatter(logging.Formatter):
    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def message(self, record: logging.LogRecord) -> str:
        """The text of the record; with arguments that do not fit its format, the format and the arguments."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):
            text = f"{record.msg} {record.args!r}"
        return self._redact(text)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The fields given as `extra`, as JSON values."""
        return {
            name: self.clean(value)
            for name, value in vars(record).items()
            if name not in _STANDARD and not name.startswith("_") and value is not None
        }

    def clean(self, value: Any) -> Any:
        if isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {self._redact(str(key)): self.clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.clean(item) for item in value]
        return self._redact(str(value))

    def traceback_text(self, record: logging.LogRecord) -> str:
        """The traceback, if there is one."""
        parts = []
        if record.exc_info:
            parts.append(self.formatException(record.exc_info))
        elif record.exc_text:
            parts.append(record.exc_text)
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return self._redact("\n".join(parts))


class JsonFormatter(_Formatter):
    """One JSON object a record: time, level, logger, message, the extra fields, and `error` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
        }
        for name, value in self.fields(record).items():
            line.setdefault(name, value)
        if traceback := self.traceback_text(record):
            line["error"] = traceback
        try:
            return orjson.dumps(line, option=orjson.OPT_NON_STR_KEYS).decode()
        except (TypeError, orjson.JSONEncodeError):  # a lone surrogate, a number past 64 bits
            plain = {key: str(value).encode("utf-8", "backslashreplace").decode() for key, value in line.items()}
            return orjson.dumps(plain).decode()


class _Rarely(logging.Filter):
    """Of each logger of a library that says the same for every failed attempt, one record a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_RARE):
            return True
        if record.created < self._told.get(record.name, 0.0) + _RARE_S:
            return False
        self._told[record.name] = record.created
        return True


class ConsoleFormatter(_Formatter):
    """`12:30:01 warning engine.bus  the message  event=... firing=...`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        name = record.name.removeprefix("whenthen.")
        fields = "".join(f"  {key}={value}" for key, value in self.fields(record).items())
        message = self.message(record).replace("\n", "\n    ")
        text = f"{moment} {record.levelname.lower():<7} {name}  {message}{fields}"
        if traceback := self.traceback_text(record):
            text += "\n" + traceback
        return text.encode("utf-8", "backslashreplace").decode()


def configure_logs(
    *, form: str = "console", level: str = "info", redact: Redact | None = None, stream: TextIO | None = None
) -> logging.Handler:
    """Write all records of the process to `stream` (standard error); `form` is console or json. Returns the handler.

    `redact` returns a text without secrets; it must not raise or log.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(_Rarely())
    formatter: type[_Formatter] = JsonFormatter if form == "json" else ConsoleFormatter
    handler.setFormatter(formatter(redact or _unredacted))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("uvicorn", "uvicorn.error", "faststream", "nats"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    return handler
