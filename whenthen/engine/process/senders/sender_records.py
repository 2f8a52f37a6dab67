"""What lies in the stream `SENDERS`, as bytes: refused requests whose proof held, whole, and when each webhook was heard last. Pure.

What proved the request is not kept: neither its headers nor cookies.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import orjson

from whenthen.schemas.errors import InvalidInput
from whenthen.sources import Request

__all__ = ["MOST_WEBHOOK_BYTES", "RefusedRequest", "heard_record", "read_heard", "read_refused"]

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

    def encode(self, *, whole: bool = True) -> bytes:
        """As it is stored; without `whole` the body is left out."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        kept = self.body is not None and whole
        fields["body"] = base64.b64encode(self.body or b"").decode() if kept else None
        return orjson.dumps(fields)

    def request(self) -> Request:
        """It again, without what proved it."""
        made = Request(method=self.method, headers=self.headers, query=self.query, body=self.body or b"")
        made.signed_at = self.signed or f"refused-{self.id}"
        return made


def read_refused(data: bytes) -> RefusedRequest | None:
    """A stored request; None when it is not one, or was sent again."""
    if not data:
        return None
    try:
        fields = orjson.loads(data)
        body = fields["body"]
        fields["body"] = None if body is None else base64.b64decode(body)
        return RefusedRequest(**fields)
    except (orjson.JSONDecodeError, binascii.Error, KeyError, TypeError):
        return None


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
