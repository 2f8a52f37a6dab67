"""The history compared with the replay and the streams, row by row: what was killed, projectors included, lost and doubled nothing.

The processes project on while this reads; so it waits until nothing differs, for a limited time, and what differs then are the faults.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from tests.chaos.oracle import Oracle, read_stream
from tests.chaos.verdict import Found, named
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import AUDIT, EVENTS, RUN_STATES
from whenthen.history import Database, HistoryUnavailable
from whenthen.history import history_tables as tables
from whenthen.schemas.history_rows import INCARNATION_BITS

__all__ = ["judge_histories"]

_DOC_BYTES = 8 << 10  #: up to which an event is kept whole
_SEQ = (1 << INCARNATION_BITS) - 1

#: what each table must have: by key what a row says, and how many rows there are
Expected = dict[str, Mapping[Any, Any]]


async def judge_histories(
    bus: Bus, oracle: Oracle, found: Found, histories: Mapping[str, Path | str], limit_s: float = 120.0
) -> tuple[dict[str, int], list[str]]:
    """How many rows each table has, and what differs in any of the databases."""
    until = time.monotonic() + limit_s
    while True:
        expected = await _expected(bus, oracle, found)
        faults: list[str] = []
        for name, where in histories.items():
            try:
                faults += [
                    f"history of {name}: {fault}" for fault in await asyncio.to_thread(_compare, where, expected)
                ]
            except HistoryUnavailable as error:
                faults.append(f"history of {name}: {error}")
        if not faults or time.monotonic() > until:
            return {table: len(rows) for table, rows in expected.items()}, faults
        await asyncio.sleep(1)


async def _expected(bus: Bus, oracle: Oracle, found: Found) -> Expected:
    events: dict[int, tuple[str, str, Any]] = {}
    tries = _last_tries(found)
    async for message in read_stream(bus, EVENTS, "events.>"):
        event = orjson.loads(message.data)
        if event["event"] == "automation.action.failed":
            told = event["payload"]
            ended = "dead" if told["final"] else "retrying"
            tries[told["key"], told["attempt"], ended] = (event["occurred"], told["message"])
        events[message.seq] = event["id"], event["event"], event if len(message.data) <= _DOC_BYTES else None
    states: dict[tuple[str, str, str, int], int] = {}
    async for message in read_stream(bus, f"KV_{RUN_STATES}", f"$KV.{RUN_STATES}.>"):
        if message.data:
            run = orjson.loads(message.data)
            states[run["id"], run["changed"], run["state"], run["attempt"]] = 1
    notes = {orjson.loads(message.data)["id"]: 1 async for message in read_stream(bus, AUDIT)}
    outcomes = found.outcomes
    return {
        "events": events,
        "decisions": dict(oracle.decided),
        "decisions that fired": dict.fromkeys(oracle.firings, 1),
        "firings": {name: (one["automation"], one["state"], _event_of(one)) for name, one in oracle.firings.items()},
        "actions": {key: (one.firing, one.action, str(one.state), one.attempt) for key, one in outcomes.items()},
        "tries": tries,
        "runs": {run["id"]: (run["deployment"], run["state"]) for run in found.runs.values()},
        "run states": states,
        "audit": notes,
    }


def _last_tries(found: Found) -> dict[Any, Any]:
    """Those that outcomes tell of; one that waits again without a time was sent again, or has begun."""
    return {
        (key, one.attempt, str(one.state)): (one.at, one.error)
        for key, one in found.outcomes.items()
        if one.final or one.next_at is not None
    }


def _event_of(firing: Mapping[str, Any]) -> str:
    if firing["event"]:
        return str(firing["event"]["id"])
    return next((ref[0] for ref in firing["refs"] if firing["by_seq"] and ref[1] == firing["seq"]), "")


def _compare(where: Path | str, expected: Expected) -> list[str]:
    if isinstance(where, Path) and not where.exists():
        return [f"{where.name} is not there"]
    database = Database(where)
    try:
        with database.reading() as connection:
            there, faults = _stored(connection)
            faults += _counts(connection, expected)
    finally:
        database.close()
    for table, rows in expected.items():
        stored = there[table]
        if table == "tries":  # NATS may be killed between an outcome, which the next one replaces, and its event
            stored = {key: row for key, row in stored.items() if key in rows or key[2] != "retrying"}
        faults += named(f"{table} that are missing", rows.keys() - stored.keys())
        faults += named(f"{table} that nothing explains", stored.keys() - rows.keys())
        both = rows.keys() & stored.keys()
        differ = [key for key in both if not _same(rows[key], stored[key])]
        faults += named(
            f"{table} that differ", [f"{key} is {stored[key]}, must be {rows[key]}"[:300] for key in differ]
        )
    return faults


def _same(expected: Any, stored: Any) -> bool:
    if isinstance(expected, tuple) and len(expected) == 3 and expected[2] is None:  # an event that is not kept whole
        return bool(expected[:2] == stored[:2])
    return bool(expected == stored)


def _stored(connection: sa.Connection) -> tuple[dict[str, dict[Any, Any]], list[str]]:
    """The rows of each table by their natural keys, and rows that can not be true."""

    def every(table: sa.Table, *names: str) -> list[Any]:
        select = sa.select(*(table.c[name] for name in names)).order_by(tables.age_order(table))
        return list(connection.execute(select))

    events = every(tables.events, "pos", "at_us", "id", "name", "doc")
    decided = every(tables.decisions, "automation", "reason", "firing")
    tries = {
        (row.action, row.attempt, row.state): (row.at, row.error)
        for row in every(tables.tries, "action", "attempt", "state", "at", "error")
    }
    tallied = connection.execute(
        sa.select(tables.tallies.c.first, tables.tallies.c.second, sa.func.sum(tables.tallies.c.count))
        .where(tables.tallies.c.kind == "decisions", tables.tallies.c.level == 3)
        .group_by(tables.tallies.c.first, tables.tallies.c.second)
    )
    there = {
        "events": {row.pos & _SEQ: (row.id, row.name, orjson.loads(row.doc)) for row in events},
        "decisions": {(first, second): int(count) for first, second, count in tallied},
        "decisions that fired": dict(Counter(row.firing for row in decided if row.firing)),
        "firings": {row.id: tuple(row)[1:] for row in every(tables.firings, "id", "automation", "state", "event")},
        "actions": {
            row.id: tuple(row)[1:] for row in every(tables.actions, "id", "firing", "type", "state", "attempt")
        },
        "tries": tries,
        "runs": {row.id: tuple(row)[1:] for row in every(tables.runs, "id", "deployment", "state")},
        "run states": {tuple(row): 1 for row in every(tables.run_states, "run", "changed", "state", "attempt")},
        "audit": {row.id: 1 for row in every(tables.audit, "id")},
    }
    faults = []
    if any(later.at_us < earlier.at_us for earlier, later in pairwise(events)):
        faults.append("the time of events goes back")
    if len({row.pos >> INCARNATION_BITS for row in events}) > 1:
        faults.append("events of more than one stream")
    return there, faults


def _counts(connection: sa.Connection, expected: Expected) -> list[str]:
    """Totals by hour and by day against what they count."""
    tallies = tables.tallies
    totals = connection.execute(
        sa.select(tallies.c.kind, tallies.c.level, sa.func.sum(tallies.c.count))
        .where(tallies.c.level.in_((0, tables.DAY_LEVELS)))
        .group_by(tallies.c.kind, tallies.c.level)
    )
    tries = connection.execute(sa.select(sa.func.count()).select_from(tables.tries)).scalar_one()
    rows = {
        "events": len(expected["events"]),
        "decisions": sum(expected["decisions"].values()),
        "firings": len(expected["firings"]),
        "actions": tries,
        "runs": len(expected["run states"]),
    }
    return [
        f"{int(total)} {kind} are counted at level {level}, and there are {rows[kind]}"
        for kind, level, total in totals
        if kind in rows and int(total) != rows[kind]
    ]
