"""A key-value bucket of JetStream's, as the stores use it: the newest revision from the stream's leader, and compare-and-set.

Read from the leader, not from a replica, so that what was acknowledged to anybody is seen. Errors of JetStream are
recognised by `err_code`. Layout and headers are those of ADR-8, which nats-py and the nats command share.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, NamedTuple

import nats.errors
import orjson

from whenthen.engine.bus.protocol import encode_headers
from whenthen.engine.bus.request_client import RequestClient, refusal
from whenthen.engine.bus.stream_reader import Received, stored_messages
from whenthen.schemas.errors import InvalidInput

__all__ = ["KvBucket", "Revision", "WrongRevision", "publish_expecting", "publish_with", "purge_subject"]

EXPECTED_REVISION = "Nats-Expected-Last-Subject-Sequence"
_TTL = "Nats-TTL"

_WRONG_SEQUENCE = frozenset({10071, 10164})  #: JetStream's error codes of a failed compare-and-set
_NO_MESSAGE = 10037  #: JetStream's error code of a subject without a message


class WrongRevision(Exception):
    """The key has another revision than the one that was expected. Not an error of the user's: each store says its own."""


class Revision(NamedTuple):
    """What a key holds."""

    value: bytes  #: empty for the marker of a deletion
    number: int  #: the position in the stream
    time: datetime  #: when the server stored it


class KvBucket:
    """The bucket called `name`. It exists (`ensure_streams`, `ensure_flow_stores`)."""

    def __init__(self, client: RequestClient, name: str) -> None:
        self.client = client
        self.stream = f"KV_{name}"
        self.prefix = f"$KV.{name}."

    async def get(self, key: str) -> Revision | None:
        """The newest revision; None when there is none or it is a deletion.

        Raises:
            BusUnavailable: no answer.
        """
        found = await self._newest(key)
        return found if found is not None and found.value else None

    async def create(self, key: str, value: bytes) -> int:
        """Store the first revision of a key that has none, or was deleted. Gives its number.

        Raises:
            WrongRevision: it exists. BusUnavailable: not stored, or not known to be. InvalidInput: too large.
        """
        try:
            return await self.update(key, value, revision=0)
        except WrongRevision:
            marker = await self._newest(key)
            if marker is None or marker.value:
                raise
        return await self.update(key, value, revision=marker.number)

    async def update(self, key: str, value: bytes, *, revision: int) -> int:
        """Store the revision after `revision`. Gives its number. Errors: see `create`."""
        return await publish_expecting(self.client, self.prefix + key, value, revision)

    async def put(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Store a revision, whatever is there. It goes after `ttl_s` seconds, where the stream has `allow_msg_ttl`. Errors: see `create`."""
        headers = {} if ttl_s is None else {_TTL: f"{ttl_s}s"}
        return await publish_with(self.client, self.prefix + key, value, headers)

    async def purge(self, key: str, *, revision: int | None = None, ttl_s: int | None = None) -> None:
        """Forget a key and its revisions; a marker of the deletion stays, as long as `put` has it. With a `revision` only if that is the newest.

        Raises:
            WrongRevision: it is not. BusUnavailable: not done, or not known to be.
        """
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        if revision is not None:
            headers[EXPECTED_REVISION] = str(revision)
        if ttl_s is not None:
            headers[_TTL] = f"{ttl_s}s"
        head = encode_headers(headers)
        await _publish(self.client, self.prefix + key, b"", head)

    def newest(self, keys: str = ">") -> AsyncGenerator[Received, None]:
        """The newest revision of each key that the pattern matches, in the order of their storing; a key may come again.

        Markers of deletions are among them, and have no data. Errors: see `engine.bus.stored_messages`.
        """
        return stored_messages(self.client, self.stream, self.newest_config(keys))

    def newest_config(self, keys: str = ">") -> dict[str, object]:
        """The configuration of a consumer that gives the newest revision of each key and then each further one."""
        return {"deliver_policy": "last_per_subject", "filter_subject": self.prefix + keys}

    async def _newest(self, key: str) -> Revision | None:
        answer = await self.client.api(f"STREAM.MSG.GET.{self.stream}", {"last_by_subj": self.prefix + key})
        if error := answer.get("error"):
            if error.get("err_code") == _NO_MESSAGE:
                return None
            raise refusal(f"{self.stream} can not be read", error)
        message = answer["message"]
        value = base64.b64decode(message.get("data") or "")
        return Revision(value, message["seq"], datetime.fromisoformat(message["time"]))


async def publish_expecting(client: RequestClient, subject: str, data: bytes, revision: int | None) -> int:
    """Store a message whose subject's last one has the position `revision` (0: there is none; None: whatever it has).

    Gives the position of the message. Errors: see `KvBucket.create`.
    """
    head = b"" if revision is None else encode_headers({EXPECTED_REVISION: str(revision)})
    return await _publish(client, subject, data, head)


async def publish_with(client: RequestClient, subject: str, data: bytes, headers: dict[str, str]) -> int:
    """Store a message with headers. Gives its position. Errors: see `KvBucket.create`."""
    return await _publish(client, subject, data, encode_headers(headers) if headers else b"")


async def purge_subject(client: RequestClient, stream: str, subject: str) -> None:
    """Remove all messages of a subject. Raises `BusUnavailable`."""
    answer = await client.api(f"STREAM.PURGE.{stream}", {"filter": subject})
    if error := answer.get("error"):
        raise refusal(f"{stream} can not be purged of {subject}", error)


async def _publish(client: RequestClient, subject: str, data: bytes, head: bytes) -> int:
    try:
        answer: dict[str, Any] = orjson.loads((await client.request(subject, data, head)).data)
    except nats.errors.MaxPayloadError:
        raise InvalidInput(
            f"{len(data)} bytes are more than the NATS server takes in a message (`max_payload`)"
        ) from None
    error = answer.get("error")
    if error is None:
        seq: int = answer["seq"]
        return seq
    if error.get("err_code") in _WRONG_SEQUENCE:
        raise WrongRevision(subject)
    raise refusal("JetStream did not store the message", error)
