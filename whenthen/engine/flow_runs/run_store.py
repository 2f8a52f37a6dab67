"""Flow runs in the bucket `WT_runs`: one key for each run; the revision is the version (`runs.stores.RunStore`)."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import orjson

from whenthen.engine.bus.buckets import KvBucket, WrongRevision
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.stream_reader import StreamReader
from whenthen.engine.bus.streams import RUN_STATES
from whenthen.engine.bus.subjects import run_key
from whenthen.runs import EVERY_RUN, PAGE_BYTES, RunFilter, RunPage, RunPageCollector, Stored
from whenthen.runs.run_states import run_from_record
from whenthen.schemas.deployments import FlowRun, is_run_id
from whenthen.schemas.errors import Conflict

__all__ = ["NatsRunStore", "run_of_message"]

log = logging.getLogger(__name__)

_WATCH_S = 5.0


def run_of_message(data: bytes, seq: int) -> Stored | None:
    """The revision that a message of the bucket's stream holds; None for the marker of a deletion."""
    return Stored(run_from_record(orjson.loads(data)), seq) if data else None


def _readable(data: bytes, seq: int) -> Stored | None:
    """As `run_of_message`; a record that can not be read is passed over: the others must not wait for it for ever."""
    try:
        return run_of_message(data, seq)
    except (ValueError, KeyError, TypeError) as error:
        log.error("revision %d of the flow runs can not be read and is passed over: %r", seq, error)
        return None


class NatsRunStore:
    """See `runs.stores.RunStore`."""

    def __init__(self, client: RequestClient) -> None:
        self._bucket = KvBucket(client, RUN_STATES)

    async def create(self, run: FlowRun) -> Stored:
        try:
            return Stored(run, await self._bucket.create(run_key(run.id), orjson.dumps(run)))
        except WrongRevision:
            stored = await self.get(run.id)
        if stored is None:
            raise Conflict(f"flow run {run.id} was deleted while it was created; try again")
        return stored

    async def get(self, run_id: str) -> Stored | None:
        if not is_run_id(run_id):
            return None
        found = await self._bucket.get(run_key(run_id))
        return None if found is None else run_of_message(found.value, found.number)

    async def update(self, run: FlowRun, version: int) -> Stored:
        try:
            return Stored(run, await self._bucket.update(run_key(run.id), orjson.dumps(run), revision=version))
        except WrongRevision:
            why = f"flow run {run.id} changed since version {version} was read; read it again"
            raise Conflict(why) from None

    async def delete(self, run_id: str, version: int) -> None:
        try:
            await self._bucket.purge(run_key(run_id), revision=version)
        except WrongRevision:
            why = f"flow run {run_id} changed since version {version} was read; read it again"
            raise Conflict(why) from None

    async def list(self, wanted: RunFilter = EVERY_RUN, *, limit: int = 100, most_bytes: int = PAGE_BYTES) -> RunPage:
        page = RunPageCollector(wanted, limit, most_bytes)
        async for message in self._bucket.newest():
            stored = _readable(message.data, message.seq)
            if stored is not None:
                page.take(stored, len(message.data))
        return page.page()

    async def watch(self, run_id: str | None = None) -> AsyncGenerator[Stored | None, None]:
        reader = StreamReader(self._bucket.client, self._bucket.stream)
        await reader.read(self._bucket.newest_config(">" if run_id is None else run_key(run_id)))
        all_given = False
        try:
            while True:
                while (message := reader.take()) is not None:
                    stored = _readable(message.data, message.seq)
                    if stored is not None:
                        yield stored
                if not all_given and reader.caught_up:
                    all_given = True
                    yield None
                await reader.wait(_WATCH_S)
        finally:
            await reader.stop()
