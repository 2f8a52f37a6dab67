"""What the shards keep in `ENGINE` for everybody to see, whichever process evaluates them: orphans, and what was set aside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing

import orjson

from whenthen.engine.bus.records import decode_window
from whenthen.engine.bus.request_client import RequestClient
from whenthen.engine.bus.stream_reader import stored_messages
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import short_token, window_subject
from whenthen.engine.evaluation import FIRED, FiredTotal, decode_totals
from whenthen.engine.http import answer_models as answers
from whenthen.schemas.times import format_us
from whenthen.triggers import SET_ASIDE

__all__ = ["MOST_WINDOWS", "fired_records", "open_windows", "orphan_records", "set_aside_records"]

_ORPHAN = "orphan"
MOST_ORPHANS = 10_000  #: in one list
MOST_WINDOWS = 10_000  #: that are counted
_EXPIRES = b"Nats-TTL:"  #: in the head of a tombstone: the window is forgotten


async def orphan_records(client: RequestClient) -> list[tuple[answers.Orphan, int]]:
    """The orphans, those that are away the longest first, and since when as stored."""
    found: dict[str, tuple[answers.Orphan, int]] = {}
    async for trigger, state in _windows(client, _ORPHAN):
        if not state:
            found.pop(trigger, None)
            continue
        since_us, automation, keys, size = orjson.loads(state)[:4]
        orphan = answers.Orphan(
            trigger=trigger,
            automation=automation or None,
            keys=keys,
            bytes=size,
            since=format_us(since_us),
        )
        found[trigger] = orphan, since_us
    return sorted(found.values(), key=lambda each: (each[1], each[0].trigger))[:MOST_ORPHANS]


async def set_aside_records(client: RequestClient) -> dict[str, str]:
    """The automations that are set aside, in whatever shard, and why."""
    found: dict[str, str] = {}
    async for automation, state in _windows(client, SET_ASIDE):
        found.pop(automation, None)
        if state:
            found[automation] = orjson.loads(state)[3]
    return found


async def fired_records(client: RequestClient) -> dict[str, FiredTotal]:
    """How often each automation has fired, and when last, as the shards last stored it: seconds ago."""
    found: dict[str, FiredTotal] = {}
    async for _, state in _windows(client, FIRED):
        try:
            totals = decode_totals(state)[1]
        except (ValueError, TypeError, KeyError, IndexError):  # the head of a record that is larger than a message
            continue
        for name, total in totals.items():
            if name not in found or total.count > found[name].count:
                found[name] = total
    return found


async def open_windows(client: RequestClient, triggers: Iterable[str]) -> int:
    """How many windows the triggers with these ids have in all shards together, `MOST_WINDOWS` for those and more. Without what
    they hold.

    Raises:
        BusUnavailable: no answer.
    """
    shard = window_subject(0, "", "").partition(".window.")[0].rpartition(".")[0]
    subjects = [f"{shard}.*.window.{short_token(trigger)}.*" for trigger in triggers]
    config = {"filter_subjects": subjects, "deliver_policy": "last_per_subject", "headers_only": True}
    found = set()
    async with aclosing(stored_messages(client, ENGINE, config)) as messages:
        async for message in messages:
            if _EXPIRES in message.head:
                found.discard(message.subject)
            else:
                found.add(message.subject)
            if len(found) >= MOST_WINDOWS:
                break
    return len(found)


async def _windows(client: RequestClient, trigger: str) -> AsyncIterator[tuple[str, bytes]]:
    """Key and state of each window of a trigger in every shard; an empty state for one that is forgotten."""
    shard, window = window_subject(0, trigger, "").split(".window.")
    subject = f"{shard.rpartition('.')[0]}.*.window.{window.partition('.')[0]}.*"
    config = {"filter_subject": subject, "deliver_policy": "last_per_subject"}
    async with aclosing(stored_messages(client, ENGINE, config)) as messages:
        async for message in messages:
            if message.data:
                _, key, state = decode_window(message.data)
                yield key, state
