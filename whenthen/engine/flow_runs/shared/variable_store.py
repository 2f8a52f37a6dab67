"""Variables in the bucket `WT_variables`: a record for each, and nothing of those that were unset (`runs.stores.VariableStore`)."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import orjson

from whenthen.engine.bus.buckets import KvBucket, WrongRevision
from whenthen.engine.bus.request_client import RequestClient, refusal, stream_info
from whenthen.engine.flow_runs.flow_streams import VARIABLES
from whenthen.runs.shared import variables
from whenthen.schemas.errors import Conflict

__all__ = ["NatsVariableStore"]

log = logging.getLogger(__name__)


class NatsVariableStore:
    """See `runs.stores.VariableStore`."""

    def __init__(self, client: RequestClient) -> None:
        self._client = client
        self._bucket = KvBucket(client, VARIABLES)

    async def get(self, name: str) -> tuple[variables.VariableRecord, int] | None:
        found = await self._bucket.get(name)
        return None if found is None else (_record(orjson.loads(found.value)), found.number)

    async def put(self, record: variables.VariableRecord, version: int) -> int:
        data = orjson.dumps(asdict(record))
        try:
            return await self._bucket.update(record.name, data, revision=version)
        except WrongRevision:
            raise Conflict(f"variable {record.name!r} changed since version {version} was read") from None

    async def delete(self, name: str, version: int) -> None:
        # not a marker of the deletion, which would stay: the message itself, which is gone when there is a newer one
        answer = await self._client.api(f"STREAM.MSG.DELETE.{self._bucket.stream}", {"seq": version, "no_erase": True})
        if error := answer.get("error"):
            found = await self._bucket.get(name)
            if found is None or found.number != version:
                raise Conflict(f"variable {name!r} changed since version {version} was read")
            raise refusal(f"variable {name!r} can not be unset", error)

    async def count(self) -> int:
        found: int = (await stream_info(self._client, self._bucket.stream))["state"]["messages"]
        return found

    async def all(self) -> list[variables.VariableRecord]:
        found = {}
        async for message in self._bucket.newest():
            if message.data:
                try:
                    record = _record(orjson.loads(message.data))
                except (ValueError, KeyError, TypeError) as error:  # the others must not wait for it for ever
                    log.error("the variable at sequence %d can not be read and is passed over: %r", message.seq, error)
                    continue
                found[record.name] = record
        return [found[name] for name in sorted(found)]


def _record(fields: dict[str, Any]) -> variables.VariableRecord:
    return variables.VariableRecord(
        name=fields["name"],
        value=fields["value"],
        tags=tuple(fields["tags"]),
        changed=fields["changed"],
        by=str(fields.get("by", "")),
    )
