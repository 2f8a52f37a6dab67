"""The messages for `ENGINE` that a commit of a batch of evaluated events consists of: windows, firings, action tasks.

Called by the evaluation loop, which commits a batch as one. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import orjson

from whenthen.actions import actions_of, encode_spec, spec_digest
from whenthen.engine.bus import (
    Message,
    action_subject,
    encode_firing,
    encode_task,
    encode_window,
    firing_subject,
    window_subject,
)
from whenthen.engine.evaluation.log_ports import Received
from whenthen.schemas import Automation, Event, Firing

__all__ = ["CommitBatch", "EvaluationSettings", "MessageEncoder"]

TOMBSTONE_S = 3600  #: how long a forgotten window stays in the stream as an empty one


class EvaluationSettings:
    """How long firings, and tasks that nobody finished, are kept."""

    __slots__ = ("firing_ttl_s", "task_ttl_s")

    def __init__(self, *, firing_ttl_s: int = 30 * 86400, task_ttl_s: int = 30 * 86400) -> None:
        self.firing_ttl_s = firing_ttl_s
        self.task_ttl_s = task_ttl_s


class CommitBatch:
    """What was evaluated and is not committed yet. `started` is by the loop's monotonic clock."""

    __slots__ = ("events", "firings", "messages", "notices", "size", "specs", "started")

    def __init__(self, started: float) -> None:
        self.events = 0
        self.firings: list[Firing] = []
        self.messages: list[Message] = []
        #: by digest, of actions that tasks of this batch are the first to name; published before the commit
        self.specs: dict[str, bytes] = {}
        self.notices: list[Event] = []  #: published before the commit: their ids make a repetition harmless
        self.size = 0  #: bytes of `messages`
        self.started = started


class MessageEncoder:
    """Encodes the windows and firings of one shard. Action specifications are encoded once for each kind of firing."""

    def __init__(self, shard: int, settings: EvaluationSettings) -> None:
        self._shard = shard
        self._settings = settings
        self._actions: dict[str, list[tuple[str, str, int]]] = {}

    def forget_actions(self) -> None:
        """Forget the actions of the rules so far, and that their specifications were published."""
        self._actions = {}

    def add_firings(
        self,
        batch: CommitBatch,
        firings: Iterable[Firing],
        message: Received,
        automation: Callable[[str], Automation],
        *,
        largest: int,
    ) -> list[tuple[Firing, int]]:
        """Add firings, their messages and those of their tasks to `batch`. `message` is the event at hand, which most of them
        carry; `automation` gives the automation of a firing by its name.

        Gives the firings that were left out, as a message of theirs would have more than `largest` bytes, with its bytes.
        """
        left_out: list[tuple[Firing, int]] = []
        for firing in firings:
            event = None
            if firing.event is not None:
                event = message.data if message.seq == firing.seq else orjson.dumps(firing.event)
            encoded = encode_firing(firing, event)
            specs = self._specs(batch, firing, automation)
            messages = [
                Message(
                    firing_subject(firing.automation, firing.id), orjson.dumps(encoded), self._settings.firing_ttl_s
                )
            ]
            for index, (kind, digest, _) in enumerate(specs):
                messages.append(
                    Message(
                        action_subject(firing.automation, firing.id, index),
                        encode_task(firing, encoded, index, kind, digest),
                        self._settings.task_ttl_s,
                    )
                )
            sizes = [len(each.data) for each in messages]
            most = max([*sizes, *(size for _, _, size in specs)])
            if most > largest:
                left_out.append((firing, most))
                for _, digest, size in specs:
                    if size > largest:
                        batch.specs.pop(digest, None)
                continue
            batch.firings.append(firing)
            batch.messages += messages
            batch.size += sum(sizes)
        return left_out

    def window(self, trigger: str, key: str, state: bytes | None) -> Message:
        """A window as it is now; a state of None, which means forgotten, as a tombstone."""
        subject = window_subject(self._shard, trigger, key)
        return Message(subject, encode_window(trigger, key, state or b""), 0 if state else TOMBSTONE_S)

    def _specs(
        self, batch: CommitBatch, firing: Firing, automation: Callable[[str], Automation]
    ) -> list[tuple[str, str, int]]:
        """The type of each action of a firing, and digest and bytes of its specification."""
        kind = f"{firing.automation}/{firing.state}/{firing.edge}"
        specs = self._actions.get(kind)
        if specs is None:
            specs = self._actions[kind] = []
            for action in actions_of(automation(firing.automation), firing):
                spec = encode_spec(action)
                digest = spec_digest(spec)
                batch.specs[digest] = spec
                specs.append((action.type, digest, len(spec)))
        return specs
