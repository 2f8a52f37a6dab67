"""Windows that can not be read when their shard is loaded: put away for people to look at, and their automations set aside.

Called by the loop of a shard. One damaged window must not keep the shard from being loaded for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

import orjson

from whenthen.engine.bus.records import Message, encode_window
from whenthen.engine.bus.subjects import unreadable_subject
from whenthen.engine.evaluation.commits.commit_messages import MessageEncoder
from whenthen.engine.evaluation.log_ports import ShardLog
from whenthen.engine.evaluation.loop_ports import EventEvaluator
from whenthen.schemas.events import Event

__all__ = ["UNREADABLE", "SetAside", "put_away"]

log = logging.getLogger(__name__)

#: how long windows that can not be read are kept for people to look at
UNREADABLE_KEPT_S = 30 * 86400
#: what reading a state raises that is damaged, or that a defect wrote
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)


#: sets an automation aside for a reason, with the windows that are dropped; gives the event that says so
SetAside = Callable[[str, str, Iterable[tuple[str, str]]], Event]


def put_away(
    unreadable: Mapping[tuple[str, str], tuple[bytes, Exception]],
    shard_log: ShardLog,
    evaluator: EventEvaluator,
    encoder: MessageEncoder,
    set_aside: SetAside,
) -> tuple[list[Event], list[Message]]:
    """Set the automations of windows that can not be read aside; gives the events that say so, and the messages of a commit that stores
    the windows elsewhere for a while, where nobody but people reads them."""
    shard = shard_log.shard
    most = shard_log.largest - len(orjson.dumps(["", ""])) - (8 << 10)
    by_owner: dict[str, list[tuple[str, str]]] = {}
    messages: list[Message] = []
    notices: list[Event] = []
    for (trigger, key), (state, error) in unreadable.items():
        subject = unreadable_subject(shard, trigger, key)
        log.error(
            "shard %d: the window of trigger %s, key %r can not be read: %r; it is put away under %s for %d days",
            shard,
            trigger,
            key[:200],
            error,
            subject,
            UNREADABLE_KEPT_S // 86400,
        )
        messages.append(Message(subject, encode_window(trigger, key, state)[:most], UNREADABLE_KEPT_S))
        messages.append(encoder.window(trigger, key, None))
        if owner := evaluator.owner(trigger):
            by_owner.setdefault(owner, []).append((trigger, key))
    for automation, names in by_owner.items():
        subject = unreadable_subject(shard, *names[0])
        detail = (
            f"{len(names)} of its windows can not be read, among them that of key {names[0][1][:200]!r}: they are put away "
            f"(subject {subject}), and forgotten when the automation is resumed"
        )
        notices.append(set_aside(automation, detail, names))
    return notices, messages
