"""How often processes have hung on the same work, in the bucket `WT_hangs`.

A process that was started again after a hang counts it before it evaluates or performs anything. Keys are `event.<shard>.<position>`
and `action.<key>`. A count says nothing of what is done about it: that is the shard's and the executor's matter. Entries go
with the bucket's age limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import nats.errors
import nats.js.errors
import orjson
from nats.js.kv import KeyValue

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.request_client import BusReason, unavailable
from whenthen.engine.bus.streams import HANGS
from whenthen.engine.bus.subjects import legal_key
from whenthen.supervision import Ended, Item, Work

__all__ = ["HangCounts", "Hangs"]

MOST_READ = 1000  #: entries of one shard; more can not be there unless as many processes hung


@dataclass(frozen=True, slots=True, kw_only=True)
class Hangs:
    """How often a process hung on one thing."""

    tries: int
    process: str  #: the last one, as machine and process id
    cause: str  #: `hung` or `crashed`
    automation: str | None = None  #: whose trigger was being looked at, when that is known


class HangCounts:
    """The bucket, over a connection."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._bucket: KeyValue | None = None

    async def add(self, item: Item, ended: Ended, *, machine: str) -> int:
        """Count a hang on `item`; gives how many there are now.

        Raises:
            BusUnavailable: not counted, or not known to be.
        """
        key = f"event.{item.shard}.{item.position}" if item.kind is Work.EVENT else _action_key(item.text)
        try:
            bucket = await self._open()
            while True:
                before, revision = await _read(bucket, key)
                tries = before.tries
                record = {
                    "tries": tries + 1,
                    "automation": ended.automation or before.automation,
                    "process": f"{machine}-{ended.pid}",
                    "cause": ended.cause.name.lower(),
                }
                try:
                    await bucket.update(key, orjson.dumps(record), last=revision)
                except nats.js.errors.KeyWrongLastSequenceError:
                    continue  # another process hung on the same
                return tries + 1
        except (nats.errors.Error, OSError) as error:
            raise unavailable(f"the bucket {HANGS} can not be used: {error!r}", BusReason.REFUSED) from error

    async def of_action(self, key: str) -> int:
        """How often a process hung on an action. Errors: see `add`."""
        try:
            return (await _read(await self._open(), _action_key(key)))[0].tries
        except (nats.errors.Error, OSError) as error:
            raise unavailable(f"the bucket {HANGS} can not be read: {error!r}", BusReason.REFUSED) from error

    async def of_shard(self, shard: int) -> dict[int, Hangs]:
        """The positions of the event log on which processes hung in a shard. Errors: see `add`."""
        prefix = f"$KV.{HANGS}.event.{shard}."
        found: dict[int, Hangs] = {}

        def receive(message: Delivery) -> None:
            position = message.headers["Nats-Subject"].removeprefix(prefix)
            if message.data and position.isascii() and position.isdigit():
                found[int(position)] = _decode(message.data)

        request = {"seq": 1, "next_by_subj": f"{prefix}*", "batch": MOST_READ}
        await self._bus.client.read_stored(f"KV_{HANGS}", request, receive)
        return found

    async def _open(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._bus.js.key_value(HANGS)
        return self._bucket


def _action_key(key: str) -> str:
    return f"action.{legal_key(key)}"


async def _read(bucket: KeyValue, key: str) -> tuple[Hangs, int]:
    """The record of a key and its revision; without tries and 0 when there is none."""
    try:
        entry = await bucket.get(key)
    except nats.js.errors.KeyNotFoundError:
        return Hangs(tries=0, process="", cause="hung"), 0
    return _decode(entry.value or b""), entry.revision or 0


def _decode(data: bytes) -> Hangs:
    """A record; one that can not be read counts as one try."""
    try:
        fields = orjson.loads(data)
        name = fields.get("automation")
        return Hangs(
            tries=int(fields["tries"]),
            process=str(fields["process"])[:200],
            cause=str(fields["cause"])[:20],
            automation=None if name is None else str(name)[:500],
        )
    except (ValueError, KeyError, TypeError):
        return Hangs(tries=1, process="", cause="hung")
