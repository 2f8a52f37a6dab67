"""The workers that are at work, in the bucket `WT_heartbeats` beside the heartbeats of runs (`runs.stores.WorkerStore`).

Their keys start with `worker.`; the value holds the name as text. What a worker does not renew expires with the bucket's heartbeats.
"""

from __future__ import annotations

import logging
from dataclasses import asdict

import orjson

from whenthen.engine.bus.buckets import KvBucket
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.subjects import legal_key
from whenthen.engine.flow_runs.flow_streams import HEARTBEATS
from whenthen.schemas.base import known_fields
from whenthen.schemas.times import format_us
from whenthen.schemas.work_pools import WorkerRecord

__all__ = ["NatsWorkerStore"]

log = logging.getLogger(__name__)

_PREFIX = "worker."


class NatsWorkerStore:
    """See `runs.stores.WorkerStore`."""

    def __init__(self, client: RequestClient) -> None:
        self._bucket = KvBucket(client, HEARTBEATS)

    async def put(self, worker: WorkerRecord) -> None:
        record = asdict(worker)
        del record["seen"]
        await self._bucket.put(_PREFIX + legal_key(worker.name), orjson.dumps(record))

    async def remove(self, name: str) -> None:
        await self._bucket.purge(_PREFIX + legal_key(name))

    async def all(self) -> list[WorkerRecord]:
        found = {}
        async for message in self._bucket.newest(_PREFIX + ">"):
            if not message.data:
                continue
            try:
                record = known_fields(WorkerRecord, orjson.loads(message.data))
                found[record["name"]] = WorkerRecord(**{**record, "seen": format_us(message.time_us)})
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                log.error("the worker at sequence %d can not be read and is passed over: %r", message.seq, error)
        return [found[name] for name in sorted(found)]
