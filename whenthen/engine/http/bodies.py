"""Request bodies, read within a limit, and the headers that say what they are.

Called by `ingest` for each event request and by `routes` for the small bodies of the API. `sources` decodes them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from whenthen.engine.http.answers import RETRY_AFTER_S, HttpError, Receive, Scope
from whenthen.schemas.trace_context import TRACE_HEADERS, read_trace

__all__ = [
    "JSON_TYPES",
    "BodyBudget",
    "BudgetShare",
    "ClientGone",
    "body_of",
    "content_type",
    "header",
    "media_type",
    "read_body",
    "refuse_compressed",
    "refuse_other_than_json",
    "trace_of",
]

JSON_TYPES = ("application/json", "application/cloudevents+json", "application/cloudevents-batch+json")


class ClientGone(Exception):
    """The client went away before its request was complete."""


def header(scope: Scope, name: bytes) -> str | None:
    """A request header; `name` in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


def trace_of(scope: Scope) -> dict[str, str] | None:
    """The trace that a request is part of; None without one, or with one that is malformed."""
    if header(scope, b"traceparent") is None:
        return None
    parents, states = (
        [value.decode("latin-1") for key, value in scope["headers"] if key == name.encode()] for name in TRACE_HEADERS
    )
    return read_trace(parents, states)


def media_type(scope: Scope) -> str:
    """The media type without parameters, in lower case; empty when there is none. Nothing is checked."""
    return (header(scope, b"content-type") or "").lower().partition(";")[0].strip()


def content_type(scope: Scope) -> str:
    """The media type without parameters, in lower case; empty when there is none.

    Raises:
        HttpError: 415 for a compressed body, or a character set that is not UTF-8.
    """
    refuse_compressed(scope)
    kind, _, parameters = (header(scope, b"content-type") or "").lower().partition(";")
    charset = parameters.partition("charset=")[2].partition(";")[0].strip(' "')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise HttpError(415, "unsupported_media_type", f"charset {charset[:40]} is not taken; send UTF-8")
    return kind.strip()


def refuse_other_than_json(scope: Scope) -> None:
    """Take bodies that are declared as JSON, and requests without a body that are declared as nothing or as JSON.

    Raises:
        HttpError: 415.
    """
    kind = content_type(scope)
    if kind in JSON_TYPES:
        return
    if kind:
        raise HttpError(415, "unsupported_media_type", f"content-type {kind[:80]} is not taken; send {JSON_TYPES[0]}")
    if header(scope, b"transfer-encoding") is not None or (header(scope, b"content-length") or "0").strip("0 "):
        raise HttpError(
            415, "unsupported_media_type", f"a body without a content type; send Content-Type: {JSON_TYPES[0]}"
        )


def refuse_compressed(scope: Scope) -> None:
    """Take bodies as they are: what is compressed can grow without bound.

    Raises:
        HttpError: 415.
    """
    encoding = header(scope, b"content-encoding")
    if encoding and encoding.strip().lower() != "identity":
        raise HttpError(415, "unsupported_media_type", f"content-encoding {encoding[:40]} is not taken; send it plain")


class BodyBudget:
    """The bytes of bodies that all requests together may hold at one time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def share(self) -> BudgetShare:
        """What one request holds of it; to be given back with `give_back`."""
        return BudgetShare(self)


class BudgetShare:
    """The bytes of one request."""

    __slots__ = ("_budget", "_held")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._held = 0

    def take(self, size: int) -> None:
        """Hold `size` bytes more.

        Raises:
            HttpError: 503, all of the budget is held; this request holds what it held.
        """
        budget = self._budget
        if budget.held + size > budget.limit:
            raise HttpError(
                503,
                "busy",
                f"the bodies of all requests at this moment are more than {budget.limit} bytes (bodies_limit); "
                "send it again",
                (b"retry-after", b"%d" % RETRY_AFTER_S),
            )
        budget.held += size
        self._held += size

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._budget.held -= self._held
        self._held = 0


async def read_body(receive: Receive, limit: int, announced: str | None, share: BudgetShare) -> bytes:
    """The whole body, at most `limit` bytes of it; no more than that is ever held. `announced` is the content length.

    The body is counted in `share`, which the caller gives back when it is done with it.

    Raises:
        HttpError: 413, before reading when the length is announced, else as soon as the limit is passed; 503, other
            requests hold too much.
        ClientGone: the client went away.
    """
    if announced is not None:
        if not (announced.isascii() and announced.isdigit()):
            raise HttpError(400, "invalid_request", f"content-length {announced[:40]!r} is not a number")
        if int(announced[:20]) > limit:
            raise _too_large(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if len(body) > limit:
        raise _too_large(limit)
    share.take(len(body))
    if message.get("more_body", False):
        whole = bytearray(body)  # not a list of pieces, which may be one byte each
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            if len(whole) + len(part) > limit:
                raise _too_large(limit)
            share.take(len(part))
            whole += part
        body = bytes(whole)
    return body


@asynccontextmanager
async def body_of(scope: Scope, receive: Receive, limit: int, budget: BodyBudget) -> AsyncIterator[bytes]:
    """The whole body of a request, which counts in `budget` as long as the context lasts. Errors: see `read_body`.

    For routes of FastAPI, in place of a parameter: a body is refused by its size before it is decoded.
    """
    share = budget.share()
    try:
        yield await read_body(receive, limit, header(scope, b"content-length"), share)
    finally:
        share.give_back()


def _too_large(limit: int) -> HttpError:
    return HttpError(413, "body_too_large", f"the body has more than {limit} bytes; send less, or raise body_limit")
