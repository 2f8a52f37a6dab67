"""Whose messages does the store refuse? The automations at fault in a commit that is refused, found by halves.

Called by `engine.evaluation.commits.batch_storing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import orjson

from whenthen.engine.bus.records import Message, decode_window
from whenthen.engine.bus.subjects import shard_subjects
from whenthen.engine.evaluation.log_ports import ShardLog

__all__ = ["is_window", "refused_messages"]


async def refused_messages(
    shard_log: ShardLog, messages: Sequence[Message], owner: Callable[[str], str | None]
) -> dict[str, list[Message]] | None:
    """By automation, the messages of those whose messages the store refuses; under an empty name those that are no automation's.
    None when it refuses everything. `owner` gives the automation of a trigger.

    Raises:
        BusUnavailable: the store can not be asked.
    """
    owners: dict[str, list[Message]] = {}
    for message in messages:
        owners.setdefault(_automation(shard_log.shard, message, owner), []).append(message)
    if not await shard_log.takes([Message("", b"-")] * 2):  # two, which are a batch as nearly every commit
        return None
    return {name: owners[name] for name in await _refused(shard_log, sorted(owners), owners)}


def is_window(shard: int, message: Message) -> bool:
    """Whether a message of a commit is a window of the shard; else it is a firing or a task."""
    return message.subject.startswith(shard_subjects(shard)[:-1])


async def _refused(shard_log: ShardLog, names: list[str], owners: Mapping[str, list[Message]]) -> list[str]:
    """Those of `names` whose messages the store refuses."""
    if await shard_log.takes([message for name in names for message in owners[name]]):
        return []
    if len(names) == 1:
        return names
    half = len(names) // 2
    return await _refused(shard_log, names[:half], owners) + await _refused(shard_log, names[half:], owners)


def _automation(shard: int, message: Message, owner: Callable[[str], str | None]) -> str:
    """The automation that a message comes from; empty when it is none's."""
    if is_window(shard, message):
        return owner(decode_window(message.data)[0]) or ""
    fields = orjson.loads(message.data)
    firing = fields.get("firing", fields)
    return str(firing["automation"])
