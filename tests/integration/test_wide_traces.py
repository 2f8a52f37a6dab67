"""Traces with 10,000 branches: the answer is bounded, soon there, and says what it leaves out."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import orjson
import pytest

from tests.deployment_set import DeploymentSet
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import Offset
from whenthen.engine.bus.subjects import decisions_subject, offset_subject
from whenthen.engine.http import why_models
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.queries.event_positions import EventPositions
from whenthen.engine.process.queries.event_queries import EventQueries
from whenthen.engine.process.queries.history.history_questions import HistoryQuestions
from whenthen.engine.process.queries.lists.known_names import KnownNames
from whenthen.engine.process.queries.lists.merged_lists import MergedLists
from whenthen.engine.process.queries.lists.whole_ids import WholeIds
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.process.why.trace_query import MOST_ITEMS, TraceQuery
from whenthen.rules import Rules
from whenthen.runs import BuiltInOrchestrator
from whenthen.runs.memory_stores import memory_stores

pytestmark = [pytest.mark.anyio, pytest.mark.requires("nats-server"), pytest.mark.takes(15)]

MANY = 10_000
FIRING = "f" * 32


def event(id: str, **fields: Any) -> bytes:
    document = {
        "id": id, "event": "wide.thing", "occurred": "2027-01-15T08:00:00Z", "received": "2027-01-15T08:00:00Z", "source": "api",
        "resource": {"id": "r"}, "related": [], "payload": None, **fields,
    }  # fmt: skip
    return orjson.dumps(document)


async def trace(bus: Bus, wanted: str) -> why_models.TraceReport:
    orchestrator = BuiltInOrchestrator(memory_stores(), DeploymentSet())
    ids, history = IdPrefixes(bus.client), HistoryQuestions(bus)
    names = KnownNames(RuleRegistry(Rules(), shards=1, resolve_secret=str))
    events = EventQueries(bus, EventPositions(), ids, MergedLists(bus, history), names, WholeIds(ids, history))
    return await TraceQuery(bus, orchestrator, ids, events, shards=1).trace(wanted)


async def commit(bus: Bus, position: int, rows: list[list[Any]], automations: list[str]) -> None:
    """Put decisions on record as a shard does."""
    batch = {
        "batch": uuid.uuid4().hex, "prev": 0, "part": 0, "parts": 1, "shard": 0, "writer": "w", "rules": 1, "after": position - 1,
        "seq": position, "automations": automations, "counts": [], "rows": rows,
    }  # fmt: skip
    stored = await bus.store(decisions_subject(0), orjson.dumps(batch))
    await bus.store(offset_subject(0), Offset(seq=position, decisions=stored.seq).encode())


async def test_an_event_that_10_000_automations_decided_on_says_how_many_are_left_out(bus: Bus) -> None:
    position = (await bus.store("events.wide.thing", event("wide"))).seq
    rows = [[n, "", "cooldown", position, "wide", 1_800_000_000_000_000, "k", "", None] for n in range(MANY)]
    await commit(bus, position, rows, [f"automation-{n}" for n in range(MANY)])
    report = await trace(bus, "wide")
    assert report.cut
    assert len(report.items) == MOST_ITEMS
    assert len(report.links) <= 2 * MOST_ITEMS
    assert report.notes == ["1,000 things are shown; left out are 9,001 decisions, and what came of them"]


async def test_a_firing_that_led_to_10_000_events_says_up_to_where_it_was_followed(bus: Bus) -> None:
    position = (await bus.store("events.wide.thing", event("cause"))).seq
    firing: dict[str, Any] = {
        "id": FIRING, "automation": "wide", "state": "Triggered", "at": "2027-01-15T08:00:00Z", "key": {}, "event": None, "by_seq": True,
        "seq": position, "refs": [["cause", position, 1]], "total": 1, "depth": 1, "automations": ["wide"], "edge": None,
    }  # fmt: skip
    await bus.store(f"engine.firing.wide.{FIRING}", orjson.dumps(firing))
    lineage = {"firing": FIRING, "depth": 1, "automations": ["wide"]}
    for start in range(0, MANY, 100):  # each of which is answered within the seconds of one request
        await asyncio.gather(
            *(bus.store("events.wide.thing", event(f"e{start + n}", lineage=lineage)) for n in range(100))
        )
    await commit(bus, position + MANY, [], [])
    report = await trace(bus, FIRING)
    assert report.cut
    assert len(report.items) == MOST_ITEMS
    assert report.id == f"firing:{FIRING}"
    assert {each.kind for each in report.items} == {"event", "firing"}
    assert report.notes == [
        f"events behind position {position + MOST_ITEMS - 2} were not looked through for what came of it"
    ]
