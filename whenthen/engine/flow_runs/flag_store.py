"""Pause flags of deployments and schedules in the bucket `WT_state`, where those of automations are, too (`runs.stores.FlagStore`).

Their keys start with `flow.`; the value holds the key as text.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import orjson

from whenthen.engine.bus.buckets import KvBucket, WrongRevision
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.streams import STATE
from whenthen.engine.bus.subjects import legal_key
from whenthen.runs import Flag
from whenthen.schemas.errors import Conflict

__all__ = ["NatsFlagStore"]

log = logging.getLogger(__name__)

_PREFIX = "flow."


class NatsFlagStore:
    """See `runs.stores.FlagStore`."""

    def __init__(self, client: RequestClient) -> None:
        self._bucket = KvBucket(client, STATE)

    async def get(self, key: str) -> tuple[Flag, int] | None:
        found = await self._bucket.get(_PREFIX + legal_key(key))
        return None if found is None else (_flag(orjson.loads(found.value)), found.number)

    async def put(self, key: str, flag: Flag, version: int) -> int:
        name = _PREFIX + legal_key(key)
        data = orjson.dumps({"key": key, **asdict(flag)})
        try:
            if version == 0:
                return await self._bucket.create(name, data)
            return await self._bucket.update(name, data, revision=version)
        except WrongRevision:
            raise Conflict(f"flag {key!r} changed since version {version} was read; read it again") from None

    async def delete(self, key: str, version: int) -> None:
        try:
            await self._bucket.purge(_PREFIX + legal_key(key), revision=version)
        except WrongRevision:
            raise Conflict(f"flag {key!r} changed since version {version} was read; read it again") from None

    async def all(self) -> dict[str, Flag]:
        flags = {}
        async for message in self._bucket.newest(_PREFIX + ">"):
            if message.data:
                try:
                    record = orjson.loads(message.data)
                    flags[record["key"]] = _flag(record)
                except (ValueError, KeyError, TypeError) as error:  # the other flags must not wait for it for ever
                    log.error("the flag at sequence %d can not be read and is passed over: %r", message.seq, error)
        return flags


def _flag(record: dict[str, Any]) -> Flag:
    texts = {name: str(record.get(name, "")) for name in ("note", "until", "reason", "by")}
    return Flag(paused=record["paused"], changed=record["changed"], **texts)
