"""Targets for what comes in over HTTP: bodies, events, webhooks, signatures, whole requests."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import orjson

from fuzz.draws import Draws
from whenthen.engine.bus.connection import Ack
from whenthen.engine.bus.subjects import event_subject, unescape_token
from whenthen.engine.http import HttpApp, create_app
from whenthen.engine.metrics import Metrics
from whenthen.schemas.errors import InvalidInput, InvalidJson, NotFound, Refused, WhenthenError
from whenthen.schemas.events import Event, decode_event, read_event
from whenthen.schemas.times import format_time
from whenthen.schemas.webhooks import Webhook
from whenthen.sources import Request, WebhookTranslator, decode_json
from whenthen.sources.cloudevents import cloudevent_of_message, event_of_cloudevent, is_cloudevent

__all__ = ["check_event", "events", "requests", "signatures", "webhooks"]

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
HOOKS: dict[str, dict[str, Any]] = {
    "github": {"preset": "github", "when": "event.resource.branch != 'x' || event.payload.size > 1"},
    "s3": {"preset": "s3"},
    "text": {
        "map": {
            "event": "e.{{ body.a }}",
            "resource": {"id": "$.body.id", "b": "{{ body.b | upper }}", "c": "{{ headers['x-id'] | default('none') }}"},
            "id": "$.body.b",
        }
    },
    "each": {
        "map": {
            "each": "$.body",
            "event": "e",
            "resource": {"id": "{{ item }}"},
            "when": "item.a > 0 && item.b.startsWith('x')",
            "occurred": "$.item.a",
        }
    },
    "deep": {
        "map": {
            "each": "$..a",
            "event": "e",
            "resource": {"id": "$.headers.x-id"},
            "payload": "$",
            "related": [{"id": "$.query.q", "role": "{% for x in body %}{{ x }}{% endfor %}"}],
        }
    },
}  # fmt: skip


def check_event(event: Event) -> None:
    """What holds for every event that was accepted."""
    wire = event.encode()
    assert decode_event(wire).data == orjson.loads(wire), "not the same after writing and reading"
    assert event.occurred <= NOW + timedelta(hours=2)
    assert event.occurred.year >= 1970
    assert format_time(event.occurred) == event.data["occurred"]
    assert event.time_us >= 0
    assert event.depth == 0
    assert event.variables["event"]["occurred"] == event.occurred
    subject = event_subject(event.name)
    assert ".".join(map(unescape_token, subject.removeprefix("events.").split("."))) == event.name
    assert subject.isascii()
    assert not set(subject) & set(" *>\t\r\n")


def events(data: bytes) -> None:
    """A body of `POST /api/events`: JSON, one event, a list of them, or CloudEvents; or header lines and the body of binary mode."""
    head, empty, body = data.partition(b"\n\n")
    if empty:
        lines = [line.partition(b":") for line in head.split(b"\n")[:32]]
        with contextlib.suppress(WhenthenError):
            message = cloudevent_of_message([(name.strip().lower(), value) for name, _, value in lines], body)
            check_event(read_event(event_of_cloudevent(message), now=NOW, source="fuzz"))
    try:
        value = decode_json(data)
    except InvalidJson as refused:
        assert str(refused)
        return
    for item in value if isinstance(value, list) else [value]:
        with contextlib.suppress(WhenthenError):
            check_event(read_event(event_of_cloudevent(item) if is_cloudevent(item) else item, now=NOW, source="fuzz"))


@cache
def _hooks() -> dict[str, WebhookTranslator]:
    return {
        name: WebhookTranslator(
            Webhook.model_validate({"name": name, "verify": "none", **form}),
            resolve_secret=lambda reference: "",
        )
        for name, form in HOOKS.items()
    }


def _message(data: bytes) -> tuple[dict[str, str], bytes]:
    """Header lines, an empty line, and the body."""
    head, _, body = data.partition(b"\n\n")
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\n")[:32]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers, body


def webhooks(data: bytes) -> None:
    """A request to each kind of webhook: lines of headers, an empty line, the body."""
    headers, body = _message(data)
    request = Request.of(headers=headers, query={"q": headers.get("x-query", "q")}, body=body)
    for hook in _hooks().values():
        with contextlib.suppress(WhenthenError):
            found = hook.translate(request, NOW)
            for event in found.events:
                check_event(event)
            again = [event.id for event in hook.translate(request, NOW).events]
            same = [event.id for event in found.events] == again
            # without an id in the request each event gets a random one
            assert same or "x-github-delivery" not in request.headers or hook.name != "github", "a redelivery differs"


def signatures(data: bytes) -> None:
    """A signature, right or altered: accepted exactly when another computation of HMAC agrees."""
    draws = Draws(data)
    algorithm = draws.pick(("sha256", "sha1", "sha512"))
    encoding = draws.pick(("hex", "base64"))
    prefix = draws.pick(("", "sha256=", "v1,", "\u00fc="))
    stamped = draws.one_in(2)
    secrets = {f"env:S{number}": draws.text() for number in range(draws.number(1, 3))}
    stamp = draws.pick(
        ("1769846400", "1769846100", "1769846099", "1769846701", "0", "99999999999", "x", "\u0661", "-1")
    )
    secret = draws.pick([*secrets.values(), "other"])
    change = draws.pick(("none", "none", "drop", "upper", "bits", "empty", "text", "prefix", "twice"))
    body = draws.bytes(draws.number(0, 40))
    signed = (stamp.encode() + b"." if stamped else b"") + body
    right = _hmac(secret.rstrip("\r\n").encode(), signed, algorithm)
    written = right.hex() if encoding == "hex" else base64.b64encode(right).decode()
    given = prefix + _changed(written, change, draws)
    how: dict[str, Any] = {"type": "hmac", "secret": list(secrets), "header": "X-Sign", "algorithm": algorithm}
    how |= {"encoding": encoding, "prefix": prefix}
    if stamped:
        how["timestamp_header"] = "X-Time"
    hook = _verifying(orjson.dumps(how))
    headers = {"X-Sign": given, "X-Time": stamp}
    request = Request.of(headers=headers, body=body)
    try:
        hook(request, secrets)
        accepted = True
    except Refused as refused:
        assert refused.status in (401, 403)
        accepted = False
    known = [text.rstrip("\r\n") for text in secrets.values()]
    digests = [_hmac(text.encode(), signed, algorithm) for text in known if text.strip()]
    due = any(_reads_as(given.strip()[len(prefix) :], digest, encoding) for digest in digests)
    due = due and given.strip().startswith(prefix)
    if stamped:
        due = due and stamp.isascii() and stamp.isdigit() and abs(1_769_846_400 - int(stamp)) <= 300
    assert accepted == due, f"accepted {accepted}, by the other computation {due}"


def _hmac(key: bytes, text: bytes, algorithm: str) -> bytes:
    """RFC 2104, from the hash alone."""
    block = hashlib.new(algorithm).block_size
    if len(key) > block:
        key = hashlib.new(algorithm, key).digest()
    key = key.ljust(block, b"\0")
    inner = hashlib.new(algorithm, bytes(byte ^ 0x36 for byte in key) + text).digest()
    return hashlib.new(algorithm, bytes(byte ^ 0x5C for byte in key) + inner).digest()


def _reads_as(given: str, digest: bytes, encoding: str) -> bool:
    if encoding == "hex":
        return given.lower() == digest.hex()
    return given == base64.b64encode(digest).decode()


def _changed(written: str, change: str, draws: Draws) -> str:
    position = draws.number(0, len(written) - 1)
    match change:
        case "drop":
            return written[:position] + written[position + 1 :]
        case "upper":
            return written.upper()
        case "bits":
            return (
                written[:position] + chr((ord(written[position]) ^ draws.number(1, 127)) or 1) + written[position + 1 :]
            )
        case "empty":
            return ""
        case "text":
            return draws.text()
        case "prefix":
            return draws.text() + written
        case "twice":
            return written + written
    return written


@cache
def _verifying(how: bytes) -> Any:
    resolved: dict[str, str] = {}
    webhook = Webhook.model_validate(
        {"name": "hook", "verify": orjson.loads(how), "map": {"event": "e", "resource": {"id": "r"}, "payload": {}}}
    )
    hook = WebhookTranslator(webhook, resolve_secret=resolved.__getitem__)

    def verify(request: Request, secrets: Mapping[str, str]) -> None:
        resolved.clear()
        resolved.update(secrets)
        with contextlib.suppress(InvalidInput):  # genuine, and no JSON
            hook.translate(request, NOW)

    return verify


class _MemoryApi:
    """Takes every event, and has nothing to show."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def publish(self, event: Event) -> Ack:
        check_event(event)
        self.events.append(event)
        return Ack(len(self.events), False)

    def hook(self, name: str) -> WebhookTranslator | None:
        return _hooks().get(name)

    def hook_names(self) -> Collection[str]:
        return _hooks()

    def notes(self) -> list[str]:
        return []

    def ready(self) -> list[str]:
        return []

    def metrics(self) -> bytes:
        return b""

    def __getattr__(self, name: str) -> Any:
        async def answer(*_arguments: Any, **_options: Any) -> Any:
            raise NotFound(f"{name}: there is nothing here")

        return answer


@cache
def _app() -> tuple[HttpApp, asyncio.AbstractEventLoop]:
    app = create_app(
        _MemoryApi(), metrics=Metrics(version="0"), clock=lambda: NOW, body_limit=4096, events_per_request=20
    )
    return app, asyncio.new_event_loop()


def requests(data: bytes) -> None:
    """A whole request, `METHOD path?query` and lines of headers: answered once, never 5xx, errors in the one form."""
    line, _, rest = data.partition(b"\n")
    method, _, target = line.partition(b" ")
    raw_path, _, query = target.partition(b"?")
    headers, body = _message(rest)
    path = raw_path.decode("latin-1")
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method.decode("latin-1").upper() or "GET",
        "scheme": "http",
        "path": path if path.startswith("/") else "/" + path,
        "raw_path": raw_path if raw_path.startswith(b"/") else b"/" + raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    sent: list[Any] = []
    half = len(body) // 2
    parts = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]

    async def receive() -> Any:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    app, loop = _app()
    loop.run_until_complete(app(scope, receive, send))
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1, f"{len(starts)} answers"
    status = starts[0]["status"]
    assert status < 500, f"answered {status}"
    answered = b"".join(message.get("body", b"") for message in sent)
    if status >= 400 and scope["method"] != "HEAD":
        error = orjson.loads(answered)["error"]
        assert error["reason"]
        assert error["message"]
