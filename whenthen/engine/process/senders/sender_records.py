"""What lies in the stream `SENDERS`, as bytes: refused requests whose proof held and messages of sources that fit no event, whole, and
when each webhook was heard last. Pure.

What proved a request is not kept: neither its headers nor cookies.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import orjson

from whenthen.schemas.base import known_fields
from whenthen.schemas.errors import InvalidInput, WhenthenError
from whenthen.sources import Request
from whenthen.sources.readings import SourceMessage

__all__ = ["MOST_WEBHOOK_BYTES", "AsideMessage", "RefusedRequest", "heard_record", "read_heard", "read_refused"]

MOST_WEBHOOK_BYTES = 8 << 20  #: of the bodies of one process that wait to be stored
_NEVER_KEPT = frozenset({"authorization", "proxy-authorization", "cookie"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRequest:
    """A request that is genuine and did not fit its webhook."""

    id: str
    webhook: str
    at: str
    reason: str
    field: str
    detail: str
    method: str
    headers: dict[str, str]
    query: dict[str, str]
    signed: str | None  #: what was signed beside the body, for the id of its events
    body: bytes | None  #: None: too large to be kept

    @classmethod
    def of(
        cls,
        request: Request,
        error: InvalidInput,
        *,
        id: str,
        webhook: str,
        at: str,
        detail: str,
        proof: Collection[str],
    ) -> RefusedRequest:
        left_out = _NEVER_KEPT | set(proof)
        return cls(
            id=id,
            webhook=webhook,
            at=at,
            reason=error.reason,
            field=error.field or "",
            detail=detail,
            method=request.method,
            headers={name: value for name, value in request.headers.items() if name not in left_out},
            query=dict(request.query),
            signed=request.signed_at,
            body=request.body,
        )

    @property
    def label(self) -> str:
        """What it was sent to, as its events would say: `webhook:<name>`."""
        return f"webhook:{self.webhook}"

    def encode(self, *, whole: bool = True) -> bytes:
        """As it is stored; without `whole` the body is left out."""
        return _encoded(self, whole=whole)

    def request(self) -> Request:
        """It again, without what proved it."""
        made = Request(method=self.method, headers=self.headers, query=self.query, body=self.body or b"")
        made.signed_at = self.signed or f"refused-{self.id}"
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class AsideMessage:
    """A message of a source that became no event. Its broker was told that it is done."""

    id: str
    source: str
    at: str
    reason: str
    field: str
    detail: str
    headers: dict[str, str]
    delivery: str | None
    about: dict[str, Any]
    asked: bool  #: whether it is asked for again by itself
    body: bytes | None  #: None: too large to be kept

    @classmethod
    def of(cls, source: str, message: SourceMessage, error: WhenthenError, *, at: str, detail: str) -> AsideMessage:
        """A message that has a name of its own has one id, however often it comes; of what is asked for again the newest is kept."""
        if message.delivery is None and not message.asked:
            id = uuid.uuid4().hex
        else:
            place = f"{source}\x00{message.delivery or ''}".encode("utf-8", "surrogatepass")
            id = hashlib.blake2b(place + (b"" if message.asked else message.body), digest_size=16).hexdigest()
        return cls(
            id=id,
            source=source,
            at=at,
            reason=error.reason,
            field=(error.field or "") if isinstance(error, InvalidInput) else "",
            detail=detail,
            headers={_plain(name): _plain(value) for name, value in message.headers.items()},
            delivery=_plain(message.delivery),
            about={name: _plain(value) for name, value in message.about.items()},
            asked=message.asked,
            body=message.body,
        )

    @property
    def label(self) -> str:
        """What it was read from, as its events would say: `source:<name>`."""
        return f"source:{self.source}"

    def encode(self, *, whole: bool = True) -> bytes:
        """As it is stored; without `whole` the body and what goes with it are left out."""
        return _encoded(self if whole else replace(self, headers={}, about={}), whole=whole)

    def message(self) -> SourceMessage:
        """It again. One without a name gets one, so that it becomes the same event however often it is sent."""
        delivery = self.delivery if self.delivery is not None else f"refused-{self.id}"
        return SourceMessage(body=self.body or b"", headers=self.headers, delivery=delivery, about=self.about)


def read_refused(data: bytes) -> RefusedRequest | AsideMessage | None:
    """A stored request or message; None when it is neither, or was sent again."""
    if not data:
        return None
    try:
        fields = orjson.loads(data)
        body = fields["body"]
        fields["body"] = None if body is None else base64.b64decode(body)
        kind = AsideMessage if "source" in fields else RefusedRequest
        return kind(**known_fields(kind, fields))
    except (orjson.JSONDecodeError, binascii.Error, KeyError, TypeError):
        return None


def _encoded(kept: RefusedRequest | AsideMessage, *, whole: bool) -> bytes:
    fields: dict[str, Any] = {name: getattr(kept, name) for name in kept.__slots__}
    fields["body"] = base64.b64encode(kept.body).decode() if kept.body is not None and whole else None
    return orjson.dumps(fields)


def _plain(value: Any) -> Any:
    """Text as JSON can have it, for what a broker may have in names and headers."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def heard_record(webhook: str, at: str) -> bytes:
    """That a webhook took a request."""
    return orjson.dumps({"webhook": webhook, "at": at})


def read_heard(data: bytes) -> tuple[str, str] | None:
    """The webhook and the time of a record; None when it is none."""
    try:
        fields = orjson.loads(data)
        return str(fields["webhook"]), str(fields["at"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
