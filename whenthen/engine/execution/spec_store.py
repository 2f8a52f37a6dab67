"""Specifications of actions in the bucket `WT_specs`, by digest: what action tasks name in place of spelling it out.

Written by the evaluation, which publishes the specifications of its rules before it commits the first task that names them, and
again twice a day while they are used; read by executors. `SpecStore.collect` deletes what nobody needs: a specification that was
not published for `KEPT_S` and that no waiting task and no dead letter names, twice in a row.

Two evaluations with different rules do not disturb each other: a digest always means the same bytes, and a specification goes by its
age and by the tasks that exist, not by anybody's rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import nats.errors
import orjson

from whenthen.actions import spec_digest
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.request_client import (
    BusReason,
    RequestClient,
    refusal,
    unavailable,
)
from whenthen.engine.bus.stream_pages import StoredMessage
from whenthen.engine.bus.stream_reader import stored_messages
from whenthen.engine.bus.streams import ENGINE, SPECS
from whenthen.schemas.errors import BusUnavailable

__all__ = ["SpecStore"]

log = logging.getLogger(__name__)

KEPT_S = (
    2 * 86400.0
)  #: without being published; far above how often what is used is published, and what clocks may differ by
COLLECT_EVERY_S = 3600.0
AT_ONCE = 500  #: specifications in flight
_STREAM = f"KV_{SPECS}"
_PREFIX = f"$KV.{SPECS}."


class SpecStore:
    """The bucket, over a connection. One object publishes for all shards of a process."""

    def __init__(self, client: RequestClient) -> None:
        self._client = client
        self._unnamed: set[str] = set()  #: digests that the last `collect` found unneeded

    async def publish(self, specs: Mapping[str, bytes]) -> None:
        """Store specifications by digest; returns when all are stored. What is there already is renewed.

        One that is larger than the server takes is left out with an error in the log: executors that have the rule perform
        its tasks, others refuse them.

        Raises:
            BusUnavailable: at least one is not known to be stored; publish them again.
        """
        waiting = list(specs.items())
        for start in range(0, len(waiting), AT_ONCE):
            futures: list[asyncio.Future[Delivery]] = []
            try:
                for digest, spec in waiting[start : start + AT_ONCE]:
                    try:
                        futures.append(await self._client.start(_PREFIX + digest, spec, timeout_s=5.0))
                    except nats.errors.MaxPayloadError:
                        log.error(
                            "the specification %s of an action has %d bytes, too many for NATS", digest, len(spec)
                        )
                for future in futures:
                    answer = orjson.loads((await future).data or b"{}")
                    if error := answer.get("error"):
                        raise refusal("the specification of an action is not stored", error)
            finally:
                for future in futures:
                    future.cancel()

    async def find(self, digest: str) -> bytes | None:
        """The specification that has this digest, as it was published; None when there is none.

        Raises:
            BusUnavailable: no answer.
        """
        found = await self._last(digest)
        return None if found is None or spec_digest(found.data) != digest else found.data

    async def run(self, stop: asyncio.Event) -> None:
        """`collect` every hour until `stop` is set."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), COLLECT_EVERY_S)
                return
            try:
                await self.collect(datetime.now(UTC))
            except (BusUnavailable, ValueError, LookupError, TypeError) as error:
                log.warning("specifications of actions that nobody needs are not deleted yet: %r", error)

    async def collect(self, now: datetime) -> int:
        """Delete what nobody needs; gives how many went. Reads waiting tasks and dead letters only when something is old.

        A task that becomes a dead letter while both are read, or the other way round, may be missed in one reading: only what two
        calls in a row find unnamed is deleted.

        Raises:
            BusUnavailable: no answer.
        """
        old = set()
        async for message in stored_messages(self._client, _STREAM, {"deliver_policy": "all"}):
            if message.time_us < (now - timedelta(seconds=KEPT_S)).timestamp() * 1e6:
                old.add(message.subject.removeprefix(_PREFIX))
        unnamed = old - await self._named() if old else set()
        gone = 0
        for digest in unnamed & self._unnamed:
            found = await self._last(digest)
            if found is None or now - datetime.fromisoformat(found.time) < timedelta(seconds=KEPT_S):
                continue  # it is published again
            answer = await self._client.api(f"STREAM.PURGE.{_STREAM}", {"filter": _PREFIX + digest})
            gone += int(answer.get("purged", 0))
        self._unnamed = unnamed
        if gone:
            log.info("deleted %d specifications of actions that no task names any more", gone)
        return gone

    async def _named(self) -> set[str]:
        """The digests that waiting tasks and dead letters name."""
        named = set()
        for subject in ("engine.action.>", "engine.dead.>"):
            config = {"deliver_policy": "all", "filter_subject": subject}
            async for message in stored_messages(self._client, ENGINE, config):
                if message.data:
                    fields = orjson.loads(message.data)
                    task = fields.get("task", fields)
                    named.add(task.get("digest") or spec_digest(orjson.dumps(task.get("action"))))
        return named

    async def _last(self, digest: str) -> StoredMessage | None:
        request = orjson.dumps({"last_by_subj": _PREFIX + digest})
        message = await self._client.request(f"$JS.API.DIRECT.GET.{_STREAM}", request)
        headers = message.headers
        status = headers.get("Status")
        if status == "404":
            return None
        if status is not None:
            reason = BusReason.NO_STREAM if status == "503" else BusReason.REFUSED
            raise unavailable(f"{_STREAM} can not be read: {headers.get('Description') or status}", reason)
        return StoredMessage(
            headers["Nats-Subject"], int(headers["Nats-Sequence"]), headers["Nats-Time-Stamp"], message.data
        )
