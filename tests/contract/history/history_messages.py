"""Messages of streams as the projection gets them, for tests of the history."""

from __future__ import annotations

from typing import Any

import orjson

from whenthen.history import Cursor, Message, Projection, Rows, message_rows

HOUR_US = 3_600_000_000
START_US = 1_800_000_000_000_000 // HOUR_US * HOUR_US
IDENTITY = "2026-01-01T00:00:00Z"
_RUNS_BY = {
    "deployment": "deployment",
    "deployment_state": "deployment, state",
    "state": "state",
    "work_pool": "work_pool",
}
#: statements that make of the tables what they were before a migration
BEFORE_0005 = ("ALTER TABLE tries DROP COLUMN sent",)
BEFORE_0004 = (
    *BEFORE_0005,
    "DROP INDEX runs_by_creation",
    *(f"DROP INDEX runs_by_{name}" for name in _RUNS_BY),
    "ALTER TABLE runs DROP COLUMN created_us",
    *(f"CREATE INDEX runs_by_{name} ON runs ({columns}, pos)" for name, columns in _RUNS_BY.items()),
)
BEFORE_0003 = (
    *BEFORE_0004,
    "DROP TABLE tries",
    "CREATE TABLE tries (action TEXT NOT NULL, attempt BIGINT NOT NULL, at TEXT NOT NULL, pos BIGINT NOT NULL, "
    "at_us BIGINT NOT NULL, state TEXT NOT NULL, error TEXT NOT NULL, PRIMARY KEY (action, attempt, at))",
    "CREATE INDEX tries_by_pos ON tries (pos)",
)


def event(seq: int, name: str = "order.paid", *, time_us: int | None = None, **fields: Any) -> Message:
    document = {
        "id": f"event-{seq}",
        "event": name,
        "occurred": "2027-01-15T08:00:00Z",
        "resource": {"id": f"shop.{seq % 3}", "kind": "shop"},
        "related": [],
        "payload": {"number": seq},
        **fields,
    }
    at = START_US + seq * 1_000_000 if time_us is None else time_us
    return Message(f"events.{name}", seq, at, orjson.dumps(document))


def firing(seq: int, automation: str = "ship", **fields: Any) -> Message:
    document = {
        "id": f"firing-{seq}",
        "automation": automation,
        "state": "Triggered",
        "at": "2027-01-15T08:00:00Z",
        "key": f"k{seq % 2}",
        "event": {"id": f"event-{seq}"},
        "by_seq": False,
        "seq": seq,
        "refs": [[f"event-{seq}", seq, START_US]],
        "total": 1,
        "depth": 1,
        "automations": [automation],
        "edge": None,
        **fields,
    }
    return Message(
        f"engine.firing.{automation}.{document['id']}", seq, START_US + seq * 1_000_000, orjson.dumps(document)
    )


def outcome(
    seq: int, state: str, attempt: int, *, firing: str = "firing-1", automation: str = "ship", **fields: Any
) -> Message:
    document = {
        "key": f"{firing}.0",
        "automation": automation,
        "firing": firing,
        "action": "call-webhook",
        "state": state,
        "attempt": attempt,
        "at": f"2027-01-15T08:00:0{attempt}Z",
        "error": "" if state == "executed" else "HTTP 500",
        "result": {"status": 200},
        "next_at": "2027-01-15T08:01:00Z" if state == "retrying" else None,
        **fields,
    }
    return Message(f"engine.outcome.{automation}.{firing}.0", seq, START_US + seq * 1_000_000, orjson.dumps(document))


def failed(
    seq: int, attempt: int, *, firing: str, final: bool = False, time_us: int | None = None, **payload: Any
) -> Message:
    """The event of a try that failed."""
    key = f"{firing}.0"
    return event(
        seq,
        "automation.action.failed",
        time_us=time_us,
        id=f"{key}.failed.{attempt}",
        occurred=f"2027-01-15T08:00:0{attempt}Z",
        resource={"id": "automation.ship", "name": "ship"},
        payload={"key": key, "attempt": attempt, "message": "HTTP 500", "final": final, **payload},
    )


def task(seq: int, *, firing: str = "firing-1", automation: str = "ship") -> Message:
    document = {
        "key": f"{firing}.0",
        "index": 0,
        "firing": {"id": firing, "automation": automation},
        "type": "call-webhook",
    }
    return Message(f"engine.action.{automation}.{firing}.0", seq, START_US + seq * 1_000_000, orjson.dumps(document))


def run(seq: int, state: str, *, run_id: str = "run-1", deployment: str = "load", **fields: Any) -> Message:
    document = {
        "id": run_id,
        "deployment": deployment,
        "work_pool": "default",
        "state": state,
        "parameters": {},
        "key": "k",
        "created": "2027-01-15T08:00:00Z",
        "scheduled_for": "2027-01-15T08:00:00Z",
        "changed": f"2027-01-15T08:00:{seq:02}Z",
        "attempt": 1,
        **fields,
    }
    return Message(f"$KV.WT_runs.{run_id}", seq, START_US + seq * 1_000_000, orjson.dumps(document))


def note(seq: int, kind: str = "request-refused", **fields: Any) -> Message:
    document = {
        "id": f"note-{seq}", "at": "2027-01-15T08:00:00Z", "kind": kind, "who": "10.0.0.7", "what": "/hooks/x",
        "detail": "", "cause": "signature", "count": 1, **fields,
    }  # fmt: skip
    return Message(f"audit.{kind}", seq, START_US + seq * 1_000_000, orjson.dumps(document))


def rows_of(cursor: Cursor, *messages: Message) -> Rows:
    rows = Rows()
    for message in messages:
        message_rows(rows, message, pos=cursor.position(message.seq), at_us=message.time_us)
    return rows


def project(projection: Projection, stream: str, *messages: Message, identity: str = IDENTITY) -> Cursor:
    """Write messages from where the stream's cursor is, as a projector does."""
    last = max(message.seq for message in messages)
    old = projection.cursor(stream, identity=identity, last_seq=last)
    fresh = [message for message in messages if message.seq > old.taken]
    new = Cursor(stream, 0, old.identity, old.incarnation, max(last, old.taken), max(m.time_us for m in messages))
    projection.write([(old, new)], rows_of(old, *fresh))
    return new
