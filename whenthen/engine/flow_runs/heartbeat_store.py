"""The heartbeats of runs, in the bucket `WT_heartbeats` (`runs.stores.Heartbeats`).

The time of a beat is the server's, so that the clocks of workers do not matter.
"""

from __future__ import annotations

from datetime import datetime

from whenthen.engine.bus.buckets import KvBucket
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.subjects import run_key
from whenthen.engine.flow_runs.flow_streams import HEARTBEATS

__all__ = ["NatsHeartbeats"]


class NatsHeartbeats:
    """See `runs.stores.Heartbeats`."""

    def __init__(self, client: RequestClient) -> None:
        self._bucket = KvBucket(client, HEARTBEATS)

    async def beat(self, run_id: str, worker: str) -> None:
        await self._bucket.put(run_key(run_id), worker.encode())

    async def last(self, run_id: str) -> datetime | None:
        found = await self._bucket.get(run_key(run_id))
        return None if found is None else found.time

    async def clear(self, run_id: str) -> None:
        await self._bucket.purge(run_key(run_id))
