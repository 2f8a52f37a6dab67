"""What is sent back: JSON bodies, and which error has which status.

`{"error": {"reason", "field", "message"}}` is the form of every error, from every route.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from whenthen.schemas.errors import (
    BusUnavailable,
    Conflict,
    FieldPath,
    InvalidInput,
    KeysUnavailable,
    NotFound,
    Refused,
    RenderError,
    Unproven,
    UnsupportedMediaType,
    WhenthenError,
)

__all__ = [
    "RETRY_AFTER_S",
    "Answer",
    "HttpError",
    "Receive",
    "Scope",
    "Send",
    "answer_of",
    "error_answer",
    "send_answer",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

RETRY_AFTER_S = 2
_UNPROVEN = "the request does not prove who it is from; the server's log and `whenthen audit` say what of it fails"
_JSON = (b"content-type", b"application/json")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Answer:
    """A whole response, read-only. Not frozen: there is one for every request, and frozen ones take longer to make."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)


class HttpError(WhenthenError):
    """A request that is refused for its form."""

    def __init__(
        self, status: int, reason: str, detail: str, *headers: tuple[bytes, bytes], path: FieldPath = ()
    ) -> None:
        super().__init__(detail, path=path)
        self.status = status
        self.reason = reason
        self.headers = headers


def error_answer(
    status: int,
    reason: str,
    message: str,
    *headers: tuple[bytes, bytes],
    field: str | None = None,
    more: dict[str, Any] | None = None,
) -> Answer:
    """An error in its one form; `more` stands beside it."""
    message = message.encode("utf-8", "replace").decode()
    if field is not None:
        field = field.encode("utf-8", "replace").decode()
    body = orjson.dumps({"error": {"reason": reason, "field": field, "message": message}, **(more or {})})
    return Answer(status, body, (_JSON, *headers))


def answer_of(error: Exception, *, more: dict[str, Any] | None = None) -> Answer:
    """The answer that an error means. What nobody expected is logged and answered 500 without its text."""
    if isinstance(error, HttpError):
        return error_answer(
            error.status, error.reason, error.detail, *error.headers, field=error.field or None, more=more
        )
    if isinstance(error, UnsupportedMediaType):
        return error_answer(415, error.reason, str(error), more=more)
    if isinstance(error, Refused):
        challenge = ((b"www-authenticate", b"Bearer"),) if error.status == 401 else ()
        if isinstance(error, Unproven):  # what of the proof fails would help whoever guesses at it
            return error_answer(error.status, Refused.reason, _UNPROVEN, *challenge, more=more)
        return error_answer(error.status, error.reason, str(error), *challenge, more=more)
    if isinstance(error, NotFound):
        return error_answer(404, error.reason, str(error), more=more)
    if isinstance(error, Conflict):
        return error_answer(409, error.reason, str(error), more=more)
    if isinstance(error, (InvalidInput, RenderError)):
        return error_answer(400, error.reason, error.detail, field=error.field or None, more=more)
    if isinstance(error, (BusUnavailable, KeysUnavailable)):
        again = (b"retry-after", str(RETRY_AFTER_S).encode())
        return error_answer(503, error.reason, str(error), again, more=more)
    log.error("a request failed for an unexpected reason", exc_info=error)
    return error_answer(500, "internal", "the request failed inside the server; its log has the details", more=more)


async def send_answer(send: Send, answer: Answer, *, close: bool = False) -> None:
    """Send a whole response; `close` ends the connection, as a body that is not read has to."""
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
