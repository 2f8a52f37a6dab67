"""What lies in `ENGINE`: offsets, windows, firings, action tasks and outcomes, as bytes. Pure.

Written by the evaluation and execution loops, read by them and by the API. JSON throughout, so that `nats` on a
command line shows what is there; a window's state follows its JSON line as it is.

`FORMAT` numbers the whole of what a version stores (docs/reliability.md, "Formats"). The bus bears it in one record
(`engine.process.wiring.format_record`), and each offset bears `LOWEST_READER`: no older process can read it, so none can commit.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NotRequired, TypedDict, Unpack

import orjson

from whenthen.schemas.base import known_fields
from whenthen.schemas.errors import SetupError
from whenthen.schemas.firings import (
    ActionTask,
    Firing,
    FiringState,
    Ref,
)

__all__ = [
    "FORMAT",
    "LOWEST_READER",
    "Message",
    "NewPosition",
    "Offset",
    "Outcome",
    "OutcomeState",
    "decode_firing",
    "decode_task",
    "decode_window",
    "encode_firing",
    "encode_task",
    "encode_window",
    "pack",
    "unpack",
]

#: of everything that this version stores; 1 is that of the versions without a record of it
FORMAT = 2
#: the lowest format that a process has to know to work on what this version stores
LOWEST_READER = 2
#: a larger triggering event is not copied into each of its tasks; the task names its position in `EVENTS`
EMBED_BYTES = 64 << 10
_FRAME = struct.Struct(">III")  #: seconds to live, length of the subject, length of the data


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a commit. `ttl_s` 0 keeps it for ever."""

    subject: str
    data: bytes
    ttl_s: int = 0


class NewPosition(TypedDict):
    """What a commit makes of a shard's offset (`Offset`); what is not given, or None, stays as it was, but for `rules`."""

    seq: int
    clock_us: int
    rules: NotRequired[int]  #: 0 unless given
    uncounted: NotRequired[bool | None]
    decisions: NotRequired[tuple[int, int] | None]  #: the offset's `decisions` and `decisions_from`


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """Where a shard is. `revision` is the offset message's own sequence in `ENGINE`, 0 when there is none yet."""

    seq: int = 0  #: last position of `EVENTS` that is dealt with
    clock_us: int = 0  #: the evaluator's clock there
    commit: str = ""  #: names the commit, so that whoever lost its acknowledgement recognises it
    writer: str = ""  #: which process wrote it
    prepared: int = 0  #: packs of a commit larger than an atomic batch
    applied: int = 0  #: how many of them are applied
    rules: int = 0  #: the revision of the rules that is in force there; 0 in offsets of earlier versions
    uncounted: bool = (
        False  #: whether firings were stored after the record of their numbers (`evaluation.firing_counts`)
    )
    decisions: int = 0  #: the last batch of decisions that is committed, by its sequence in `DECISIONS`; 0 without one
    decisions_from: int = 0  #: batches after this sequence may not be in the shard's records of its decisions yet
    packed: bytes = b""  #: the changes of a small commit, packed; behind the JSON line
    revision: int = 0

    def moved(self, *, commit: str, writer: str = "", **to: Unpack[NewPosition]) -> Offset:
        """The offset of the commit that follows, with no changes of its own to be applied yet."""
        uncounted, decisions = to.get("uncounted"), to.get("decisions")
        head, low = (self.decisions, self.decisions_from) if decisions is None else decisions
        return Offset(
            seq=to["seq"],
            clock_us=to["clock_us"],
            commit=commit,
            writer=writer,
            rules=to.get("rules", 0),
            uncounted=self.uncounted if uncounted is None else uncounted,
            decisions=head,
            decisions_from=low,
            revision=self.revision,
        )

    def encode(self) -> bytes:
        line = orjson.dumps([LOWEST_READER, {name: getattr(self, name) for name in _OFFSET_LINE}])
        return line + b"\n" + self.packed if self.packed else line

    @classmethod
    def decode(cls, data: bytes, revision: int) -> Offset:
        """Read an offset message; fields that a later version added are left out.

        In format 1 the line was the object alone. That version takes no list for an offset, and so commits nothing any more.

        Raises:
            SetupError: a later version wrote it, whose data this one can not read.
        """
        line, _, packed = data.partition(b"\n")
        found = orjson.loads(line)
        if isinstance(found, list):
            needed, found = found[0], found[1]
            if needed > FORMAT:
                raise SetupError(
                    f"the shard was evaluated by a later version of whenthen, whose data needs format {needed}; this version "
                    f"knows {FORMAT}. Start the later version, or restore a backup"
                )
        fields = {key: value for key, value in found.items() if key in _OFFSET_LINE}
        return cls(**fields, packed=packed, revision=revision)


_OFFSET_LINE = tuple(field.name for field in dataclasses.fields(Offset) if field.name not in ("packed", "revision"))


class OutcomeState(StrEnum):
    RETRYING = "retrying"  #: a try failed; another one follows
    EXECUTED = "executed"
    DEAD = "dead"  #: the last try failed; the task is a dead letter
    DROPPED = "dropped"  #: a dead letter that was given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an action stands after a try."""

    key: str
    automation: str
    firing: str
    action: str  #: its type
    state: OutcomeState
    attempt: int
    at: str
    error: str = ""
    result: Any = None
    next_at: str | None = None
    sent: Any = None  #: what the try sent and what came back, `actions.http.try_records`; None where nothing was sent

    @classmethod
    def of(cls, task: ActionTask, state: OutcomeState, *, attempt: int, at: str, **more: Any) -> Outcome:
        """The outcome of a task's action; `more` are the fields that not every one has."""
        return cls(
            key=task.key,
            automation=task.firing.automation,
            firing=task.firing.id,
            action=str(task.action.get("type")),
            state=state,
            attempt=attempt,
            at=at,
            **more,
        )

    @property
    def final(self) -> bool:
        return self.state is not OutcomeState.RETRYING

    def encode(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def decode(cls, data: bytes) -> Outcome:
        """Read an outcome; fields that a later version added are left out."""
        fields = known_fields(cls, orjson.loads(data))
        return cls(**{**fields, "state": OutcomeState(fields["state"])})


def encode_window(trigger: str, key: str, state: bytes) -> bytes:
    """A window with its trigger and key: one JSON line, then the state as it is."""
    return orjson.dumps([trigger, key]) + b"\n" + state


def decode_window(data: bytes) -> tuple[str, str, bytes]:
    """Trigger id, key and state of a window message."""
    line, _, state = data.partition(b"\n")
    trigger, key = orjson.loads(line)
    return trigger, key, state


def encode_firing(firing: Firing, event: bytes | None) -> orjson.Fragment:
    """A firing as JSON. `event` is its triggering event as JSON already; a large one is named by its position."""
    embed = event is not None and (len(event) <= EMBED_BYTES or not firing.seq)
    fields = {
        "id": firing.id,
        "automation": firing.automation,
        "state": firing.state,
        "at": firing.at,
        "key": firing.key,
        "event": orjson.Fragment(event) if embed and event is not None else None,
        "by_seq": event is not None and not embed,
        "seq": firing.seq,
        "refs": [[ref.id, ref.seq, ref.time_us] for ref in firing.refs],
        "total": firing.total,
        "depth": firing.depth,
        "automations": firing.automations,
        "edge": firing.edge,
    }
    if firing.trace is not None:
        fields["trace"] = firing.trace
    if firing.computed:
        fields["computed"] = firing.computed
    return orjson.Fragment(orjson.dumps(fields))


def decode_firing(data: dict[str, Any]) -> tuple[Firing, int]:
    """A firing, and the position of its event when that is not embedded (0 otherwise)."""
    firing = Firing(
        seq=data["seq"],
        id=data["id"],
        automation=data["automation"],
        state=FiringState(data["state"]),
        at=data["at"],
        key=data["key"],
        event=data["event"],
        refs=tuple(Ref(*ref) for ref in data["refs"]),
        total=data.get("total", len(data["refs"])),  # earlier versions wrote none, and all events
        depth=data["depth"],
        automations=tuple(data["automations"]),
        edge=data["edge"],
        trace=data.get("trace"),
        computed=data.get("computed"),
    )
    return firing, firing.seq if data["by_seq"] else 0


def encode_task(
    firing: Firing, encoded: orjson.Fragment, index: int, kind: str, digest: str, extra: Any = None
) -> bytes:
    """An action task as JSON. `encoded` is the firing, `digest` names the specification, `kind` is the type for people.

    The specification is not in it: the executor performs only what was published (`engine.execution.spec_store`).
    """
    return orjson.dumps(
        {
            "key": f"{firing.id}.{index}",
            "index": index,
            "firing": encoded,
            "type": kind,
            "digest": digest,
            "extra": extra or {},
        }
    )


def decode_task(data: bytes) -> tuple[ActionTask, int]:
    """An action task, and the position of its event when that is not embedded (0 otherwise).

    Of the action it knows the type alone. Tasks of earlier versions have the whole specification, which is nothing to go by.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    fields = orjson.loads(data)
    firing, seq = decode_firing(fields["firing"])
    action = fields["action"] if "action" in fields else {"type": fields["type"]}
    extra, digest = fields["extra"], fields.get("digest", "")  # the first versions wrote none
    if not (isinstance(action, dict) and isinstance(extra, dict)):
        raise TypeError("a field of the task is no object")
    texts = (fields["key"], firing.id, firing.automation, digest, action["type"])
    if not (all(isinstance(text, str) for text in texts) and isinstance(fields["index"], int)):
        raise TypeError("a field of the task has another type")
    if fields["key"] != f"{firing.id}.{fields['index']}" or not isinstance(extra.get("attempts", 0), int):
        raise ValueError("the key is not that of the firing, or `attempts` is no number")
    if firing.event is not None:
        firing.event["id"]
    task = ActionTask(
        key=fields["key"],
        index=fields["index"],
        firing=firing,
        action=action,
        extra=extra,
        digest=digest,
    )
    return task, seq


def pack(messages: Iterable[Message], *, max_bytes: int, max_messages: int) -> Iterator[bytes]:
    """Several messages in one, at most `max_bytes` (one message alone may pass it) and `max_messages` each."""
    parts: list[bytes] = []
    size = count = 0
    for message in messages:
        subject = message.subject.encode()
        frame = _FRAME.pack(message.ttl_s, len(subject), len(message.data)) + subject + message.data
        if parts and (size + len(frame) > max_bytes or count >= max_messages):
            yield b"".join(parts)
            parts, size, count = [], 0, 0
        parts.append(frame)
        size += len(frame)
        count += 1
    if parts:
        yield b"".join(parts)


def unpack(data: bytes) -> Iterator[Message]:
    """The messages of a pack, in order."""
    position = 0
    while position < len(data):
        ttl_s, subject_len, data_len = _FRAME.unpack_from(data, position)
        position += _FRAME.size
        subject = data[position : position + subject_len].decode()
        position += subject_len
        yield Message(subject, data[position : position + data_len], ttl_s)
        position += data_len
