"""Tokens and sessions in the buckets `WT_tokens` and `WT_sessions`, changed by compare-and-set.

Only the account of the role `api` may read or write them (deploy/nats/users.conf). Nothing is remembered between two requests: what is
revoked is refused by whichever process is asked next. Reads of tokens are shared, so that however many requests come at once, one read
is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from whenthen.engine.access.access_records import (
    OwnerRecord,
    TokenRecord,
    decode_owner,
    decode_tokens,
    encode_owner,
    encode_tokens,
)
from whenthen.engine.bus.buckets import KvBucket, Revision, WrongRevision
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.streams import SESSIONS, TOKENS
from whenthen.schemas.errors import Conflict

__all__ = ["AccessStore", "nats_access_store"]

KEY = "tokens"  #: of all tokens together
MOST_TRIES = 20  #: of a change, when others change the same record meanwhile


class Bucket(Protocol):
    """A key-value bucket. Every operation may raise `BusUnavailable`."""

    async def get(self, key: str) -> Revision | None: ...

    async def create(self, key: str, value: bytes) -> int: ...

    async def update(self, key: str, value: bytes, *, revision: int) -> int: ...

    async def purge(self, key: str, *, revision: int | None = None) -> None: ...


class AccessStore:
    """What is kept. Every method may raise `BusUnavailable`, and `Conflict` for records that can not be read."""

    def __init__(self, tokens: Bucket, sessions: Bucket) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._running: asyncio.Task[list[TokenRecord]] | None = None
        self._waiting: asyncio.Task[list[TokenRecord]] | None = None
        self._decoded: tuple[bytes, list[TokenRecord]] = (b"", [])

    async def tokens(self) -> list[TokenRecord]:
        """All tokens, as a read found them that began after this was asked."""
        if self._waiting is None:
            self._waiting = asyncio.ensure_future(self._read_after(self._running))
            self._waiting.add_done_callback(_taken_note_of)
        return list(await asyncio.shield(self._waiting))

    async def change_tokens(self, change: Callable[[list[TokenRecord]], list[TokenRecord]]) -> list[TokenRecord]:
        """Put what `change` makes of the tokens in their place, whoever else does so at the same time. Gives what is kept then.

        `change` may be called several times, and what it raises is raised.
        """
        for _ in range(MOST_TRIES):
            found = await self._tokens.get(KEY)
            changed = change([] if found is None else decode_tokens(found.value))
            if await _stored(self._tokens, KEY, encode_tokens(changed), found):
                return changed
        raise Conflict("others keep changing the tokens; try again")

    async def owner(self, owner: str) -> OwnerRecord:
        """What is kept of a token's sessions."""
        found = await self._sessions.get(owner)
        return OwnerRecord() if found is None else decode_owner(found.value)

    async def change_owner(self, owner: str, change: Callable[[OwnerRecord], OwnerRecord]) -> None:
        """As `change_tokens`, for the sessions and one-time addresses of one token."""
        for _ in range(MOST_TRIES):
            found = await self._sessions.get(owner)
            changed = change(OwnerRecord() if found is None else decode_owner(found.value))
            if await _stored(self._sessions, owner, encode_owner(changed), found):
                return
        raise Conflict("others keep changing the sessions of this token; try again")

    async def forget_owner(self, owner: str) -> None:
        """Drop the sessions of a token that is gone."""
        await self._sessions.purge(owner)

    async def _read_after(self, before: asyncio.Task[list[TokenRecord]] | None) -> list[TokenRecord]:
        if before is not None:
            await asyncio.wait([before])
        # whoever asks from here on may have seen a change that this read does not find
        running = self._running = self._waiting
        self._waiting = None
        try:
            found = await self._tokens.get(KEY)
            if found is None:
                return []
            if self._decoded[0] != found.value:
                self._decoded = (found.value, decode_tokens(found.value))
            return self._decoded[1]
        finally:
            if self._running is running:
                self._running = None


async def _stored(bucket: Bucket, key: str, value: bytes, found: Revision | None) -> bool:
    """Whether `value` took the place of what was found."""
    try:
        if found is None:
            await bucket.create(key, value)
        else:
            await bucket.update(key, value, revision=found.number)
    except WrongRevision:
        return False
    return True


def _taken_note_of(task: asyncio.Task[list[TokenRecord]]) -> None:
    if not task.cancelled():
        task.exception()  # those who wait for it have it; where all of them are gone, nobody needs it


def nats_access_store(client: RequestClient) -> AccessStore:
    """The store over a connection. Its buckets exist (`ensure_streams`)."""
    return AccessStore(KvBucket(client, TOKENS), KvBucket(client, SESSIONS))
