"""The two hot routes, `POST /api/events` and `POST /hooks/<name>`: a request becomes acknowledged events.

Plain ASGI: nothing between the server and this but a comparison of the path. 202 is sent only after JetStream has
acknowledged every event of the request. Of a list all events are checked before the first one is published, and when the bus
fails on the way the answer says which were accepted; sending the same list again with the ids it names changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

import orjson

from whenthen.engine.http.answers import Answer, HttpError, Receive, Scope, Send, answer_of, send_answer
from whenthen.engine.http.api_port import Api, Hook
from whenthen.engine.http.bodies import (
    BodyBudget,
    ClientGone,
    header,
    media_type,
    read_body,
    refuse_compressed,
    refuse_other_than_json,
    trace_of,
)
from whenthen.engine.http.monitoring.refusal_log import RefusalLog
from whenthen.engine.http.rate_limits import RateLimits
from whenthen.engine.metrics import Metrics
from whenthen.engine.spans import RequestSpan, Spans
from whenthen.schemas.errors import (
    BusUnavailable,
    InvalidEvent,
    InvalidInput,
    NotFound,
    WhenthenError,
    near_names,
)
from whenthen.schemas.events import (
    Event,
    EventLimits,
    check_outside,
    read_event,
)
from whenthen.sources import (
    HandshakeAnswer,
    Request,
    cloudevent_of_message,
    decode_json,
    event_of_cloudevent,
    is_binary_cloudevent,
    is_cloudevent,
    trace_of_cloudevent,
)

__all__ = ["Ingest"]

_CLOUDEVENT = "application/cloudevents+json"
_CLOUDEVENTS = "application/cloudevents-batch+json"
_SPAN = "whenthen.span"  #: the span of a request, in its scope
_AT_ONCE = 250  #: events of one request that are published at one time

Answering = Coroutine[Any, Any, int | None]


class Ingest:
    """Takes events. `clock` gives the time that an event is received, timezone-aware."""

    def __init__(
        self,
        api: Api,
        *,
        metrics: Metrics,
        clock: Callable[[], datetime],
        body_limit: int,
        budget: BodyBudget,
        rates: RateLimits,
        refusals: RefusalLog,
        events_per_request: int,
        limits: EventLimits | None = None,
        allow_reserved_names: bool = False,
        spans: Spans | None = None,
    ) -> None:
        self._api = api
        self._metrics = metrics
        self._clock = clock
        self._body_limit = body_limit
        self._budget = budget
        self._rates = rates
        self._refusals = refusals
        self._most = events_per_request
        self._limits = limits or EventLimits()
        self._reserved_names = allow_reserved_names
        self._spans = spans or Spans()

    def events(self, scope: Scope, receive: Receive, send: Send) -> Answering:
        """Answer `POST /api/events`; gives the status that was sent."""
        answering = self._events(scope, receive, send)
        return self._spanned(scope, "POST /api/events", answering) if self._spans.on else answering

    async def _events(self, scope: Scope, receive: Receive, send: Send) -> int | None:
        share = self._budget.share()
        try:
            refuse_compressed(scope)
            kind = media_type(scope)
            binary = is_binary_cloudevent(scope["headers"], kind)
            # of any content type in binary mode: a page of another site can not add its headers without asking first
            if kind and not binary:
                refuse_other_than_json(scope)
            body = await read_body(receive, self._body_limit, header(scope, b"content-length"), share)
            if binary:
                items = [cloudevent_of_message(scope["headers"], body)]
                data = event_of_cloudevent(items[0])
            else:
                if body and not kind:
                    # says that there is no content type; a body that is too large says so first
                    refuse_other_than_json(scope)
                data = decode_json(body)
                if data == [] and kind == _CLOUDEVENTS:
                    return await self._accept_nothing(send)
                items = data if isinstance(data, list) else [data]
                data = _native(data, kind)
            events = self._read(data, trace_of(scope))
            for event, item in zip(events, items, strict=True):
                own = trace_of_cloudevent(item)
                if own is not None:  # the request may be that of a broker, which brings events of many traces
                    event.data["trace"] = own
        except ClientGone:
            return None
        except Exception as error:  # noqa: BLE001 - each is answered; what nobody expected is logged and 500
            return await self._refuse(scope, send, error, "api")
        else:
            return await self._publish(scope, send, events, "api")
        finally:
            share.give_back()

    async def _accept_nothing(self, send: Send) -> int:
        """The answer to a batch of CloudEvents without any, which the specification allows."""
        await send_answer(send, _accepted(200, [], [], ()))
        return 200

    def hook(self, scope: Scope, receive: Receive, send: Send, name: str) -> Answering:
        """Answer a request to `/hooks/<name>`; gives the status that was sent."""
        answering = self._hook(scope, receive, send, name)
        if not self._spans.on:
            return answering
        known = name if name in self._api.hook_names() else "<name>"  # what is named otherwise is without bounds
        return self._spanned(scope, f"{scope['method']} /hooks/{known}", answering)

    async def _spanned(self, scope: Scope, name: str, answering: Answering) -> int | None:
        """Answer a request, with its span, which `_publish` finds in its scope."""
        span = RequestSpan(self._spans, name, trace_of(scope), now_us=time.time_ns() // 1000)
        scope[_SPAN] = span
        try:
            span.status = await answering
            return span.status
        finally:
            span.end(now_us=time.time_ns() // 1000)

    async def _hook(self, scope: Scope, receive: Receive, send: Send, name: str) -> int | None:
        share = self._budget.share()
        source = "webhook"
        request: Request | None = None
        try:
            hook = self._found(name)
            source = f"webhook:{name}"
            method = scope["method"]
            if method != "POST" and method not in hook.methods:
                allowed = ", ".join(sorted(hook.methods))
                raise HttpError(
                    405, "method_not_allowed", f"this webhook is called with {allowed}", (b"allow", allowed.encode())
                )
            limit = hook.rate_limit
            if limit is not None:
                self._rates.check(name, limit, scope)
            headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
            if "content-encoding" in headers:
                refuse_compressed(scope)
            query = scope.get("query_string", b"")
            request = Request(
                method=method,
                headers=headers,
                query=dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {},
                raw_query=query.decode("latin-1"),
            )
            if len(headers) != len(scope["headers"]):
                request.repeated = _repeated(scope)
            if "traceparent" in headers:
                request.trace = trace_of(scope)
            if self._rates.behind_proxies:
                request.from_proxy = self._rates.from_proxy(scope)
            if hook.needs_keys:
                await self._api.fetch_keys(name, request)
            hook.check_head(request, self._clock())
            # what comes with other methods says all in its headers and its address
            most = (hook.body_limit or self._body_limit) if method == "POST" else 0
            request.body = await read_body(receive, most, headers.get("content-length"), share)
            hook = self._found(name)  # as it is now: while the body came, other rules may have come into force
            if hook.needs_keys:
                await self._api.fetch_keys(name, request)
            result = hook.translate(request, self._clock())
            share.take(result.extra_bytes)
        except ClientGone:
            return None
        except Exception as error:  # noqa: BLE001 - each is answered; what nobody expected is logged and 500
            if isinstance(error, WhenthenError) and source != "webhook":
                self._api.count_refused(name, error.reason)
                if isinstance(error, InvalidInput) and request is not None and request.proven:
                    self._api.keep_refused(name, request, error)
            return await self._refuse(scope, send, error, source)
        else:
            self._api.heard(name)
            if result.answer is not None:
                await send_answer(send, _handshake(result.answer))
                return result.answer.status
            if result.confirm is not None:
                self._api.confirm(name, result)
            if not result.events:
                await send_answer(send, _accepted(200, [], [], result.dropped))
                return 200
            return await self._publish(scope, send, result.events, source, result.dropped)
        finally:
            share.give_back()

    def _found(self, name: str) -> Hook:
        found = self._api.hook(name)
        if found is None:
            near = near_names(name, self._api.hook_names())
            raise NotFound(f'no webhook is named "{name[:200]}"' + (f'; did you mean "{near[0]}"?' if near else ""))
        return found

    def _read(self, data: Any, trace: dict[str, str] | None) -> list[Event]:
        now = self._clock()
        if not isinstance(data, list):
            return [self._read_one(data, now, trace)]
        if not data:
            raise InvalidEvent("the list is empty; send at least one event", path=("events",))
        if len(data) > self._most:
            raise InvalidEvent(f"{len(data)} events in one request; at most {self._most} are taken", path=("events",))
        events = []
        for index, item in enumerate(data):
            try:
                events.append(self._read_one(item, now, trace))
            except InvalidEvent as error:
                raise error.below(index) from None
        return events

    def _read_one(self, data: Any, now: datetime, trace: dict[str, str] | None) -> Event:
        event = read_event(data, now=now, source="api", trace=trace, limits=self._limits)
        check_outside(event, reserved_names=self._reserved_names)
        return event

    def _publish(
        self, scope: Scope, send: Send, events: Sequence[Event], source: str, dropped: Sequence[str] = ()
    ) -> Awaitable[int]:
        if self._spans.on:
            scope[_SPAN].carry(events)
        if len(events) == 1:
            return self._publish_one(scope, send, events[0], source, dropped)
        return self._publish_many(scope, send, events, source, dropped)

    async def _publish_one(self, scope: Scope, send: Send, event: Event, source: str, dropped: Sequence[str]) -> int:
        """What nearly every request comes to, without the lists and tasks of many."""
        try:
            ack = await self._api.publish(event)
        except Exception as error:  # noqa: BLE001 - answered here
            return await self._refuse(scope, send, error, source, more={"ids": [event.id], "accepted": []})
        duplicate = ack.duplicate
        self._metrics.received(source, duplicate=duplicate)
        ids = [event.id]
        await send_answer(send, _accepted(202, ids, ids if duplicate else [], dropped))
        return 202

    async def _publish_many(
        self, scope: Scope, send: Send, events: Sequence[Event], source: str, dropped: Sequence[str]
    ) -> int:
        # some hundred are in flight before the first acknowledgement is awaited, in order; more would be many times in memory
        results: list[Any] = []
        for begin in range(0, len(events), _AT_ONCE):
            part = events[begin : begin + _AT_ONCE]
            results += await asyncio.gather(*map(self._api.publish, part), return_exceptions=True)
        accepted: list[str] = []
        duplicates: list[str] = []
        failed: Exception | None = None
        for event, result in zip(events, results, strict=True):
            if isinstance(result, Exception):
                failed = failed if isinstance(failed, BusUnavailable) else result
            elif isinstance(result, BaseException):
                raise result
            else:
                accepted.append(event.id)
                if result.duplicate:
                    duplicates.append(event.id)
                self._metrics.received(source, duplicate=result.duplicate)
        if failed is not None:
            more = {"ids": [event.id for event in events], "accepted": accepted}
            return await self._refuse(scope, send, failed, source, more=more)
        await send_answer(send, _accepted(202, accepted, duplicates, dropped))
        return 202

    async def _refuse(
        self, scope: Scope, send: Send, error: Exception, source: str, *, more: dict[str, Any] | None = None
    ) -> int:
        answer = answer_of(error, more=more)
        if isinstance(error, WhenthenError):
            self._metrics.refused(source, error.reason)
            self._refusals.refused(source, error, answer.status, scope)
        else:  # which `answer_of` logs with all that is known of it
            self._metrics.refused(source, "internal")
        # of most of them the body is not read, or not to its end
        unread = answer.status in (401, 403, 404, 405, 413, 415) or isinstance(error, HttpError)
        await send_answer(send, answer, close=unread)
        return answer.status


def _repeated(scope: Scope) -> frozenset[str]:
    """The headers that came more than once."""
    counts = Counter(key for key, _ in scope["headers"])
    return frozenset(key.decode("latin-1") for key, count in counts.items() if count > 1)


def _handshake(answer: HandshakeAnswer) -> Answer:
    """The answer to a handshake, which repeats parts of a request: so nothing of it is to be guessed to be a page."""
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"x-content-type-options", b"nosniff"),
        *((name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in answer.headers),
    ]
    return Answer(answer.status, answer.body, tuple(headers))


def _native(data: Any, kind: str) -> Any:
    """Events in their native form: CloudEvents are told by the content type, or each by its `specversion`."""
    declared = kind in (_CLOUDEVENT, _CLOUDEVENTS)
    if not isinstance(data, list):
        return event_of_cloudevent(data) if declared or is_cloudevent(data) else data
    events = []
    for index, item in enumerate(data):
        try:
            events.append(event_of_cloudevent(item) if declared or is_cloudevent(item) else item)
        except InvalidEvent as error:
            raise error.below(index) from None
    return events


def _accepted(status: int, ids: list[str], duplicates: list[str], dropped: Sequence[str]) -> Answer:
    body: dict[str, Any] = {"ids": ids, "duplicates": duplicates}
    if dropped:
        body["dropped"] = list(dropped)
    return Answer(status, orjson.dumps(body))
