"""Which request lies inside the envelope of a cloud's queue? SNS and Pub/Sub carry other senders' bodies. Pure.

Called by `sources.translator` when the envelope is verified. Meaning: docs/sources.md, "Envelopes".
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Literal

import orjson

from whenthen.schemas.errors import InvalidEvent
from whenthen.sources.json_bodies import decode_json
from whenthen.sources.requests import Request, kind_of

__all__ = ["unwrap"]

#: attributes of one message; SNS takes ten, Pub/Sub a hundred
MOST_ATTRIBUTES = 100


def unwrap(request: Request, kind: Literal["sns", "pubsub"]) -> tuple[Request, str | None] | str:
    """The request inside, and the id of its message; or the reason why there is none.

    Its headers are the message's attributes, in lower case, and nothing of the envelope's own.

    Raises:
        InvalidEvent: it is no such envelope; names the field.
    """
    body = decode_json(request.body)
    if not isinstance(body, dict):
        raise InvalidEvent(f"a JSON object is expected, found {kind_of(body)}", path=("body",))
    return _of_sns(request, body) if kind == "sns" else _of_pubsub(request, body)


def _of_sns(request: Request, body: dict[str, Any]) -> tuple[Request, str | None] | str:
    kind = body.get("Type")
    if kind in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
        return f"SNS {kind}: it carries no event"
    message = body.get("Message")
    if kind != "Notification" or not isinstance(message, str):
        raise InvalidEvent("no Notification of SNS with a text in Message", path=("body", "Message"))
    given = body.get("MessageAttributes")
    attributes = {
        name: each.get("Value")
        for name, each in (given if isinstance(given, dict) else {}).items()
        if isinstance(each, dict)
    }
    return _inside(request, message.encode("utf-8", "replace"), attributes), _text(body.get("MessageId"))


def _of_pubsub(request: Request, body: dict[str, Any]) -> tuple[Request, str | None]:
    message = body.get("message")
    if not isinstance(message, dict):
        raise InvalidEvent(f"an object is expected, found {kind_of(message)}", path=("body", "message"))
    data = message.get("data", "")
    try:
        inside = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise InvalidEvent("base64 is expected", path=("body", "message", "data")) from None
    attributes = message.get("attributes")
    return _inside(request, inside, attributes if isinstance(attributes, dict) else {}), _text(message.get("messageId"))


def _inside(request: Request, body: bytes, attributes: dict[str, Any]) -> Request:
    if len(attributes) > MOST_ATTRIBUTES:
        raise InvalidEvent(f"more than {MOST_ATTRIBUTES} attributes", path=("body",))
    headers = {name: value for name, value in attributes.items() if isinstance(value, str)}
    if not any(name.lower() == "content-type" for name in headers):
        headers["content-type"] = "application/json" if _is_json(body) else "text/plain"
    made = Request.of(method=request.method, headers=headers, query=request.query, body=body)
    made.trace = request.trace
    return made


def _is_json(body: bytes) -> bool:
    if body.lstrip()[:1] not in (b"{", b"["):
        return False
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
