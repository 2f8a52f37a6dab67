"""The messages for `ENGINE` that a commit of a batch of evaluated events consists of: windows, firings, action tasks.

Called by the evaluation loop, which commits a batch as one. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import orjson

from whenthen.actions import actions_of, encode_spec, spec_digest
from whenthen.engine.bus.records import (
    Message,
    encode_firing,
    encode_task,
    encode_window,
)
from whenthen.engine.bus.subjects import (
    action_prefix,
    firing_prefix,
    short_token,
    window_subject,
)
from whenthen.engine.evaluation.log_ports import Received
from whenthen.schemas.automations import Automation
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Firing, FiringState

__all__ = ["LONGEST_PLACE_S", "CommitBatch", "EvaluationSettings", "MessageEncoder"]

#: how long a deleted window keeps its place as an empty one, so that no older message of its subject is there again after a crash
#: of the server or from a backup: as long as it could change a decision, and an hour; 30 days where that has no end
PLACE_S, LONGEST_PLACE_S = 3600, 30 * 86400


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


@dataclass(frozen=True, slots=True)
class _Encoding:
    """What is the same for all firings of one kind, encoded once."""

    firing_subjects: str  #: an id is added
    action_subjects: str  #: an id, a dot and an index are added
    specs: list[tuple[int, str, str]]  #: of each action its index, its type, and the digest of its specification
    largest_spec: int  #: bytes


class MessageEncoder:
    """Encodes the windows and firings of one shard."""

    def __init__(self, shard: int, settings: EvaluationSettings) -> None:
        self._shard = shard
        self._settings = settings
        self._encodings: dict[tuple[str, FiringState, bool], _Encoding] = {}
        self.placed_s = 0  #: how long the places are kept of windows that were deleted since somebody set it to 0

    def forget_actions(self) -> None:
        """Forget the actions of the rules so far, and that their specifications were published."""
        self._encodings = {}

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
        firing_ttl_s, task_ttl_s = self._settings.firing_ttl_s, self._settings.task_ttl_s
        for firing in firings:
            kind = (firing.automation, firing.state, firing.edge)
            encoding = self._encodings.get(kind) or self._encode_actions(kind, batch, firing, automation)
            event = None
            if firing.event is not None:
                event = message.data if message.seq == firing.seq else orjson.dumps(firing.event)
            encoded = encode_firing(firing, event)
            data = orjson.dumps(encoded)
            token = short_token(firing.id)
            size = most = len(data)
            messages = [Message(encoding.firing_subjects + token, data, firing_ttl_s)]
            for index, action, digest in encoding.specs:
                data = encode_task(firing, encoded, index, action, digest)
                length = len(data)
                size += length
                if length > most:
                    most = length
                messages.append(Message(f"{encoding.action_subjects}{token}.{index}", data, task_ttl_s))
            if most > largest or encoding.largest_spec > largest:
                left_out.append((firing, max(most, encoding.largest_spec)))
                for _, _, digest in encoding.specs:
                    if len(batch.specs.get(digest, b"")) > largest:
                        del batch.specs[digest]
                continue
            batch.firings.append(firing)
            batch.messages += messages
            batch.size += size
        return left_out

    def window(self, trigger: str, key: str, state: bytes | None, *, remains_us: int | None = None) -> Message:
        """A window as it is now; a state of None, which means deleted, as a tombstone. `remains_us` says how long the window could
        still change a decision; None that this has no end."""
        subject = window_subject(self._shard, trigger, key)
        place_s = 0
        if not state:
            place_s = LONGEST_PLACE_S
            if remains_us is not None:
                place_s = min(place_s, PLACE_S + remains_us // 1_000_000)
            self.placed_s = max(self.placed_s, place_s)
        return Message(subject, encode_window(trigger, key, state or b""), place_s)

    def _encode_actions(
        self,
        kind: tuple[str, FiringState, bool],
        batch: CommitBatch,
        firing: Firing,
        automation: Callable[[str], Automation],
    ) -> _Encoding:
        """What is the same for the firings of a kind; puts the specifications of their actions into `batch`."""
        specs: list[tuple[int, str, str]] = []
        largest = 0
        for index, action in enumerate(actions_of(automation(firing.automation), firing)):
            spec = encode_spec(action)
            digest = spec_digest(spec)
            batch.specs[digest] = spec
            specs.append((index, action.type, digest))
            largest = max(largest, len(spec))
        made = _Encoding(firing_prefix(firing.automation), action_prefix(firing.automation), specs, largest)
        self._encodings[kind] = made
        return made
