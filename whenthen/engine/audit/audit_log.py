"""The audit trail of one process: notes are taken at once, and stored by a task.

    audit.note("automation-paused", what="nightly")      # never waits, never fails

A kind is a bounded set of words. Of one kind and cause `MOST_WHOLE` notes in `SPAN_S` are kept whole; further ones are counted, and one note at
the end of the span stands for them, so that a flood of refused requests costs bounded room. While NATS is away the newest
`MOST_WAITING` wait; how many went is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

from whenthen.cancellation import wait_event
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.subjects import audit_subject
from whenthen.schemas.errors import BusUnavailable, InvalidInput
from whenthen.schemas.times import format_time

__all__ = ["CALLER", "AuditLog"]

log = logging.getLogger(__name__)

MOST_WHOLE = 10  #: of one kind and cause in a span
SPAN_S = 10.0
MOST_WAITING = 1000
MOST_SPANS = 1000  #: kinds and causes that are counted at one time
MOST_CHARS = 500  #: of a field
RETRY_S = 1.0
#: from where the request comes that is being answered, as its address
CALLER: ContextVar[str] = ContextVar("CALLER", default="")


class _Span:
    """The notes of one kind and cause since `started`."""

    __slots__ = ("count", "last", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self.count = 0
        self.last: dict[str, Any] | None = None  #: the last one that is not kept whole


class AuditLog:
    """Notes of one process. `process` names it where nobody else is known to be the cause."""

    def __init__(
        self,
        bus: Bus,
        *,
        process: str = "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._process = process
        self._clock = clock
        self._monotonic = monotonic
        self._waiting: deque[dict[str, Any]] = deque()
        self._spans: dict[tuple[str, str], _Span] = {}
        self._arrived = asyncio.Event()
        self._lost = 0

    def note(self, kind: str, *, what: str, who: str = "", detail: str = "", cause: str = "") -> None:
        """Take note. Without `who` it is the address of the request that is being answered, else the process. `cause` is a word of
        a bounded set that tells notes of one kind apart."""
        note = {
            "at": format_time(self._clock()),
            "kind": kind,
            "who": (who or CALLER.get() or self._process)[:MOST_CHARS],
            "what": what[:MOST_CHARS],
            "detail": detail[:MOST_CHARS],
            "cause": cause,
            "count": 1,
        }
        key = (kind, cause)
        span = self._spans.get(key)
        now = self._monotonic()
        if span is None or now - span.started >= SPAN_S:
            if span is not None:
                self._close(span)
            elif len(self._spans) >= MOST_SPANS:
                self._close_spans(now)
                while len(self._spans) >= MOST_SPANS:
                    self._close(self._spans.pop(next(iter(self._spans))))
            span = self._spans[key] = _Span(now)
        span.count += 1
        if span.count <= MOST_WHOLE:
            self._put(note)
        else:
            span.last = note

    async def run(self, stop: asyncio.Event) -> None:
        """Store notes until `stop` is set, and what waits then."""
        while not stop.is_set():
            await wait_event(self._arrived, RETRY_S)
            self._arrived.clear()
            self._close_spans(self._monotonic())
            await self._store()
        self._close_spans(float("inf"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._store(), RETRY_S)

    def _close_spans(self, now: float) -> None:
        for key in [key for key, span in self._spans.items() if now - span.started >= SPAN_S]:
            self._close(self._spans.pop(key))

    def _close(self, span: _Span) -> None:
        if span.last is not None:
            self._put({**span.last, "count": span.count - MOST_WHOLE})

    def _put(self, note: dict[str, Any]) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._lost += self._waiting.popleft()["count"]
        self._waiting.append(note)
        self._arrived.set()

    async def _store(self) -> None:
        if self._lost:
            log.warning("%d notes of the audit trail were dropped, as NATS did not take them", self._lost)
            self._lost = 0
        while self._waiting:
            note = self._waiting[0]
            # two processes, or a repeated note, are told apart; a publish that is tried again is not
            identity = note.setdefault("id", uuid.uuid4().hex)
            try:
                await self._bus.store(audit_subject(note["kind"]), orjson.dumps(note), identity)
            except BusUnavailable as error:
                log.debug("a note of the audit trail is not stored yet: %s", error)
                return
            except (InvalidInput, TypeError, ValueError) as error:
                log.warning("a note of the audit trail can not be stored: %s", error)
            if self._waiting and self._waiting[0] is note:
                self._waiting.popleft()
