"""What becomes of a message of a stream in the history: rows and counts. Pure.

Called by `engine.projection`, which reads the streams for the history, and by `engine.live`, which shows them as they come; written by
`history.projection`. Meaning: docs/history.md, "Tables and natural keys".
Texts of others are cut, so that each fits into an index, and are free of NUL, which PostgreSQL takes in no text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from whenthen.schemas.decision_records import DecisionBatch
from whenthen.schemas.times import format_us, parse_us

__all__ = [
    "HOUR_US",
    "INCARNATION_BITS",
    "INDEXED_CHARS",
    "LEFT_OUT",
    "KeyedRow",
    "Message",
    "Rows",
    "Tally",
    "event_marks",
    "label_mark",
    "message_rows",
    "position",
    "related_mark",
    "shown_row",
]

RUN_SUBJECTS = "$KV.WT_runs."  #: before the id of a run
PAYLOAD_BYTES = 8 << 10  #: of an event's payload, a run's parameters or an action's result; a larger one is left out
SENT_BYTES = 8 << 10  #: of what a try sent and what came back
DOC_BYTES = 32 << 10  #: of a row's document; of a larger one the named columns stay
MOST_MARKS = 64  #: of an event
INDEXED_CHARS = 512  #: of a text in an index
HOUR_US = 3_600_000_000
INCARNATION_BITS = (
    44  #: of a place: below them is the sequence, above them which of the streams that had the name it was
)
LEFT_OUT = "payload_bytes"  #: in place of a payload that was left out: how large it was
FAILED_ACTION = "automation.action.failed"  #: the engine's event of a try that failed
#: its id, which no event from outside has (`schemas.events.check_outside`): the action, and which try it was
_FAILED_ID = re.compile(r"([0-9a-f]{32}\.[0-9]+)\.failed\.([0-9]{1,18})")
_MARK = 1 << 63
_INNER = ("pos", "row", "created_us")  #: columns for finding rows
_TIMES = {"at_us": "stored", "decided_us": "decided"}


class Message(NamedTuple):
    """A message of a stream as the projection gets it."""

    subject: str
    seq: int
    time_us: int  #: when the server stored it
    data: bytes


class Tally(NamedTuple):
    """What is counted, in which hour."""

    kind: str
    first: str
    second: str
    hour: int


#: a row, what it counts as, and how often
KeyedRow = tuple[dict[str, Any], Tally, int]


@dataclass(slots=True)
class Rows:
    """What some messages become: rows by table, each as the values of its columns, and counts.

    Rows with natural keys bring their counts along, as one that is there already is not counted again.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    marks: set[tuple[int, int]] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    firings: dict[tuple[Any, ...], KeyedRow] = field(default_factory=dict)
    tries: dict[tuple[Any, ...], KeyedRow] = field(default_factory=dict)
    run_states: dict[tuple[Any, ...], KeyedRow] = field(default_factory=dict)
    audit: dict[tuple[Any, ...], KeyedRow] = field(default_factory=dict)
    actions: dict[str, dict[str, Any]] = field(default_factory=dict)  #: the newest row of each
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    forgotten_runs: set[str] = field(default_factory=set)  #: whose rows go before the others are written
    counts: Counter[Tally] = field(default_factory=Counter)
    unreadable: int = 0  #: messages that are none of ours

    def __len__(self) -> int:
        """About how many rows it will be."""
        return (
            len(self.events)
            + len(self.marks)
            + len(self.decisions)
            + len(self.firings)
            + len(self.tries)
            + len(self.run_states)
            + len(self.audit)
            + len(self.forgotten_runs)
        )

    def forget_run(self, run_id: str) -> None:
        """A run was deleted: nothing of it stays but counts."""
        self.forgotten_runs.add(run_id)
        self.runs.pop(run_id, None)
        for key in [key for key in self.run_states if key[0] == run_id]:
            del self.run_states[key]

    def add_decisions(self, batch: DecisionBatch, *, pos: int, at_us: int, row: int) -> int:
        """Add a committed part of a batch, whose rows are numbered from `row`; gives the number of the next one."""
        hour = at_us // HOUR_US
        for automation, reasons in batch.counts.items():
            name = _text(automation)
            for reason, count in reasons.items():
                self.counts[Tally("decisions", name, _text(reason), hour)] += count
        for number, each in enumerate(batch.rows, row):
            self.decisions.append(
                {
                    "pos": pos,
                    "row": number,
                    "at_us": at_us,
                    "shard": batch.shard,
                    "automation": _text(each.automation),
                    "reason": _text(each.reason),
                    "event": _text(each.event),
                    "firing": _text(each.firing),
                    "key": _text(each.key),
                    "path": _text(each.path),
                    "detail": _text(each.detail),
                    "seq": each.seq,
                    "decided_us": each.at_us,
                    "rules": each.rules,
                }
            )
        return row + len(batch.rows)

    def add_try(self, row: dict[str, Any], automation: str) -> None:
        """Add how a try ended. Of two of one try the event's stays, else the later one: `history.projection` does the same."""
        key = (row["action"], row["attempt"], row["state"])
        there = self.tries.get(key)
        if there is None or row["told"] >= there[0]["told"]:
            self.tries[key] = (row, Tally("actions", automation, row["state"], row["at_us"] // HOUR_US), 1)


def shown_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for people: times as text, and nothing of how it is stored."""
    shown = {name: value for name, value in row.items() if name not in _TIMES and name not in _INNER}
    for stored, name in _TIMES.items():
        if stored in row:
            shown[name] = format_us(row[stored])
    return shown


def position(incarnation: int, seq: int) -> int:
    """The place of a message among all that its stream, and those before it with the same name, ever had."""
    return incarnation << INCARNATION_BITS | seq


def label_mark(name: str, value: str) -> int:
    """The mark of events whose resource has the label."""
    return _hash(f"l{name}\0{value}")


def related_mark(resource_id: str) -> int:
    """The mark of events with a related resource of that id."""
    return _hash(f"r{resource_id}")


def event_marks(event: Mapping[str, Any]) -> list[int]:
    """The marks of an event, the same ones each time."""
    resource, related = event.get("resource") or {}, event.get("related") or ()
    marks = {label_mark(str(key), str(value)) for key, value in _first(resource.items())}
    marks.update(related_mark(str(each["id"])) for each in _first(related) if "id" in each)
    return sorted(marks)[:MOST_MARKS]


def _hash(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") - _MARK


def message_rows(rows: Rows, message: Message, *, pos: int, at_us: int) -> None:
    """Add what a message becomes to `rows`; one that is none of ours is counted as unreadable."""
    if not message.data:
        if message.subject.startswith(RUN_SUBJECTS):
            rows.forget_run(message.subject.removeprefix(RUN_SUBJECTS))
        return
    kind = message.subject.partition(".")[0]
    try:
        if kind == "events":
            _event(rows, message.data, pos, at_us)
            return
        fields = orjson.loads(message.data)
        if kind == "engine":
            _ENGINE[message.subject.split(".", 2)[1]](rows, fields, pos, at_us)
        elif kind == "$KV":
            _run(rows, fields, pos, at_us)
        elif kind == "audit":
            _audit(rows, fields, pos, at_us)
        else:
            rows.unreadable += 1
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        rows.unreadable += 1


def _event(rows: Rows, data: bytes, pos: int, at_us: int) -> None:
    event = orjson.loads(data)
    name = _needed(event["event"])
    event_id = _needed(event["id"])
    if name == FAILED_ACTION:
        _failed_try(rows, event, at_us)
    if len(data) > PAYLOAD_BYTES:
        data = _bounded(event, "payload")
        event = orjson.loads(data)  # marks are made of what is kept, as retention makes them again
    marks = event_marks(event)
    rows.events.append({"pos": pos, "at_us": at_us, "id": event_id, "name": name, "doc": data.decode()})
    rows.marks.update((mark, pos) for mark in marks)
    rows.names.add(name)
    rows.counts[Tally("events", name, "", at_us // HOUR_US)] += 1


def _failed_try(rows: Rows, event: Mapping[str, Any], at_us: int) -> None:
    """The try that a failure of an action tells of: `ENGINE` forgets it once another one has followed."""
    found, payload, resource = _FAILED_ID.fullmatch(event["id"]), event.get("payload"), event.get("resource")
    if found is None or not isinstance(payload, dict) or not isinstance(resource, dict):
        return  # somebody else's, who may use our names
    row: dict[str, Any] = {
        "action": found[1],
        "attempt": int(found[2]),
        "state": "dead" if payload.get("final") else "retrying",
        "told": 1,
        "at": _text(event.get("occurred")),
        "at_us": at_us,
        "error": _text(payload.get("message")),
        "sent": _sent(payload.get("sent")),
    }
    rows.add_try(row, _text(resource.get("name")))


def _first(items: Iterable[Any]) -> Iterable[Any]:
    return [item for item, _ in zip(items, range(MOST_MARKS), strict=False)]


def _firing(rows: Rows, firing: dict[str, Any], pos: int, at_us: int) -> None:
    event, by_seq = firing.get("event"), firing.get("by_seq")
    refs = firing["refs"]
    event_id = event["id"] if event else next((ref[0] for ref in refs if by_seq and ref[1] == firing.get("seq")), None)
    doc = {
        "at": firing["at"],
        "events": [ref[0] for ref in refs],
        "total": firing.get("total", len(refs)),
        "depth": firing.get("depth", 0),
        "trace": firing.get("trace"),
    }
    row: dict[str, Any] = {
        "id": _needed(firing["id"]),
        "pos": pos,
        "at_us": at_us,
        "automation": _needed(firing["automation"]),
        "state": _needed(firing["state"]),
        "key": _text(firing["key"] if isinstance(firing["key"], str) else orjson.dumps(firing["key"]).decode()),
        "event": _text(event_id),
        "doc": _bounded(doc, "events").decode(),
    }
    tally = Tally("firings", row["automation"], row["state"], at_us // HOUR_US)
    rows.firings.setdefault((row["id"],), (row, tally, 1))


def _task(rows: Rows, task: dict[str, Any], pos: int, at_us: int) -> None:
    firing = task["firing"]
    kind = task["action"].get("type") if "action" in task else task["type"]
    row: dict[str, Any] = {
        "id": _needed(task["key"]),
        "pos": pos,
        "at_us": at_us,
        "automation": _needed(firing["automation"]),
        "firing": _needed(firing["id"]),
        "type": _text(kind),
        "state": "waiting",
        "attempt": 0,
        "doc": "{}",
    }
    rows.actions[row["id"]] = row


def _outcome(rows: Rows, outcome: dict[str, Any], pos: int, at_us: int) -> None:
    attempt = outcome["attempt"]
    if not isinstance(attempt, int):
        raise TypeError("the attempt is no number")
    doc = {name: outcome.get(name) for name in ("at", "error", "result", "next_at")}
    row: dict[str, Any] = {
        "id": _needed(outcome["key"]),
        "pos": pos,
        "at_us": at_us,
        "automation": _needed(outcome["automation"]),
        "firing": _needed(outcome["firing"]),
        "type": _text(outcome["action"]),
        "state": _needed(outcome["state"]),
        "attempt": attempt,
        "doc": _bounded(doc, "result").decode(),
    }
    rows.actions[row["id"]] = row
    if row["state"] == "retrying" and outcome.get("next_at") is None:
        return  # the try has begun, or a dead letter was sent again: neither is the end of one
    tried: dict[str, Any] = {
        "action": row["id"],
        "attempt": attempt,
        "state": row["state"],
        "told": 0,
        "at": _text(outcome["at"]),
        "at_us": at_us,
        "error": _text(outcome.get("error")),
        "sent": _sent(outcome.get("sent")),
    }
    rows.add_try(tried, row["automation"])


def _sent(record: Any) -> str:
    """As JSON; empty where there is none, or one that no version of ours has made."""
    data = orjson.dumps(record) if isinstance(record, dict) else b""
    return data.decode() if len(data) <= SENT_BYTES else ""


def _nothing(rows: Rows, _fields: dict[str, Any], _pos: int, _at_us: int) -> None:
    """Dead letters: the outcome says the same."""


_ENGINE = {"firing": _firing, "action": _task, "outcome": _outcome, "dead": _nothing}


def _run(rows: Rows, run: dict[str, Any], pos: int, at_us: int) -> None:
    attempt = run.get("attempt") or 0
    row: dict[str, Any] = {
        "id": _needed(run["id"]),
        "pos": pos,
        "at_us": at_us,
        "deployment": _needed(run["deployment"]),
        "state": _needed(run["state"]),
        "work_pool": _needed(run["work_pool"]),
        "doc": _bounded(run, "parameters", "result", "related", "inputs", "pause").decode(),
        "created_us": _created_us(run, at_us),
    }
    rows.runs[row["id"]] = row
    entered: dict[str, Any] = {
        "run": row["id"],
        "changed": _needed(run["changed"]),
        "state": row["state"],
        "attempt": attempt,
        "pos": pos,
        "at_us": at_us,
        "message": _text(run.get("message")),
    }
    tally = Tally("runs", row["deployment"], row["state"], at_us // HOUR_US)
    rows.run_states.setdefault((row["id"], entered["changed"], row["state"], attempt), (entered, tally, 1))


def _created_us(run: Mapping[str, Any], at_us: int) -> int:
    try:
        return parse_us(run["created"])
    except (ValueError, KeyError, TypeError):
        return at_us


def _audit(rows: Rows, note: dict[str, Any], pos: int, at_us: int) -> None:
    row: dict[str, Any] = {
        "id": _needed(note["id"]),
        "pos": pos,
        "at_us": at_us,
        "kind": _needed(note["kind"]),
        "who": _text(note.get("who")),
        "doc": _bounded(note, "detail").decode(),
    }
    tally = Tally("audit", row["kind"], _text(note.get("cause")), at_us // HOUR_US)
    rows.audit.setdefault((row["id"],), (row, tally, max(1, int(note.get("count", 1)))))


def _text(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    if "\0" in text:
        text = text.replace("\0", "�")
    return text if len(text) <= INDEXED_CHARS else f"{text[:INDEXED_CHARS]}…"


def _needed(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a name is missing")
    return _text(value)


def _bounded(fields: Mapping[str, Any], *large: str) -> bytes:
    """As JSON, without the fields in `large` that are too large, and without most where that is not enough."""
    data = orjson.dumps(fields)
    if len(data) <= PAYLOAD_BYTES:
        return data
    kept = dict(fields)
    for name in large:
        size = len(orjson.dumps(kept.get(name)))
        if size > PAYLOAD_BYTES:
            del kept[name]
            kept[LEFT_OUT] = size
    data = orjson.dumps(kept)
    if len(data) <= DOC_BYTES:
        return data
    return orjson.dumps(
        {
            name: value
            for name, value in kept.items()
            if isinstance(value, str | int) and len(str(value)) <= INDEXED_CHARS
        }
    )
