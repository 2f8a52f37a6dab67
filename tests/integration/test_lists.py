"""Lists of firings, actions and dead letters: whole and newest first, whatever else the stream holds; dead letters go on by the
rule of today, or are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.patience import until
from tests.plain_http import plain_async_client
from whenthen.engine.bus.batches import publish_batch
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import (
    Message,
    Outcome,
    OutcomeState,
    encode_firing,
    encode_task,
)
from whenthen.engine.bus.streams import ENGINE
from whenthen.engine.bus.subjects import (
    dead_subject,
    firing_prefix,
    outcome_subject,
    window_subject,
)
from whenthen.engine.execution import DeadLetters
from whenthen.engine.http import Page
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.queries.action_queries import ActionQueries
from whenthen.engine.process.queries.firing_queries import FiringQueries
from whenthen.engine.process.queries.history.history_questions import HistoryQuestions
from whenthen.engine.process.queries.lists.known_names import KnownNames
from whenthen.engine.process.queries.lists.merged_lists import MergedLists
from whenthen.engine.process.queries.lists.whole_ids import WholeIds
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings
from whenthen.rules import Rules
from whenthen.schemas.firings import Firing, FiringState

pytestmark = pytest.mark.anyio
AT = "2026-01-31T08:00:00Z"


async def store(bus: Bus, messages: Sequence[Message]) -> None:
    for start in range(0, len(messages), 900):
        await publish_batch(bus.client, messages[start : start + 900], expect=None)


def lists_of(bus: Bus) -> tuple[MergedLists, KnownNames, WholeIds, HistoryQuestions]:
    """Without a history."""
    registry = RuleRegistry(Rules(), shards=1, resolve_secret=str)
    history = HistoryQuestions(bus)
    return MergedLists(bus, history), KnownNames(registry), WholeIds(IdPrefixes(bus.client), history), history


def firing(number: int, automation: str = "a") -> Firing:
    return Firing(
        id=f"f{number}", automation=automation, state=FiringState.TRIGGERED, at=AT, key={}, event=None, total=0
    )


def left_by(number: int, automation: str, kind: str = "do-nothing") -> list[Message]:
    """A firing, the outcome of its action, and the dead letter."""
    one = firing(number, automation)
    encoded = encode_firing(one, None)
    task = encode_task(one, encoded, 0, kind, "0" * 24)
    letter = {"task": orjson.loads(task), "error": "down", "reason": "action_failed", "attempts": 3, "at": AT}
    outcome = Outcome(
        key=f"{one.id}.0",
        automation=automation,
        firing=one.id,
        action=kind,
        state=OutcomeState.DEAD,
        attempt=3,
        at=AT,
    )
    return [
        Message(firing_prefix(automation) + one.id, orjson.dumps(encoded)),
        Message(outcome_subject(automation, one.id, 0), outcome.encode()),
        Message(dead_subject(automation, one.id, 0), orjson.dumps(letter)),
    ]


async def test_lists_are_whole_whatever_windows_write(bus: Bus) -> None:
    """70,000 writes of windows over some firings: more than was looked at before."""
    for number in range(3):
        await store(bus, left_by(number, "a"))
    await store(bus, [Message(window_subject(0, "t", f"k{n}"), b"x") for n in range(70_000)])
    await store(bus, left_by(3, "b"))
    lists, names, whole, history = lists_of(bus)
    actions = ActionQueries(DeadLetters(bus.client), lists, names, whole, history)
    firings = FiringQueries(bus.client, lists, names, whole, actions)

    def page(limit: int = 10, before: int | None = None, **filters: str) -> Page:
        return Page(limit=limit, before=None if before is None else str(before), filters=filters)

    assert [item.id for item in await firings.list_firings(page())] == ["f3", "f2", "f1", "f0"]
    assert [item.id for item in await firings.list_firings(page(automation="a"))] == ["f2", "f1", "f0"]
    assert [item.id for item in await firings.list_firings(page(limit=2))] == ["f3", "f2"]
    for more in ({}, {"outcome": "dead"}):
        assert [item.firing for item in await actions.list_actions(page(**more))] == ["f3", "f2", "f1", "f0"]
        assert [item.firing for item in await actions.list_actions(page(automation="a", **more))] == ["f2", "f1", "f0"]


async def test_all_dead_letters_are_listed_page_by_page_filtered_and_counted(bus: Bus) -> None:
    kinds = ("emit-event", "do-nothing")
    messages = [left_by(n, "b" if n % 10 == 0 else "a", kinds[n % 2])[2] for n in range(2500)]
    await store(bus, messages)
    letters = DeadLetters(bus.client)
    actions = ActionQueries(letters, *lists_of(bus))
    found: list[Any] = []
    before: str | None = None
    while page := await actions.list_actions(Page(limit=1000, before=before, filters={"outcome": "dead"})):
        found += page
        before = str(page[-1].seq)
    assert [item.firing for item in found] == [f"f{n}" for n in reversed(range(2500))]
    some = await letters.letters(automation="b", kind="do-nothing", limit=1000)
    assert some == []
    some = await letters.letters(automation="b", kind="emit-event", limit=1000)
    assert [letter.task.firing.id for letter in some] == [f"f{n}" for n in reversed(range(0, 2500, 10))]
    assert await letters.counts() == {"a": 2250, "b": 250}
    assert (await actions.count_dead(None)).count == 2500
    assert (await actions.count_dead("b")).count == 250
    await letters.drop("f0.0")
    assert [letter.task.firing.id for letter in await letters.letters(automation="b", limit=1000)][-1] == "f10"
    assert await letters.counts() == {"a": 2250, "b": 249}
    # a crash, or a backup, brings back what a message replaced that expired since then
    taken = await bus.js.get_last_msg(ENGINE, dead_subject("b", "f0", 0))
    assert not taken.data
    assert (taken.headers or {})["Nats-TTL"] == f"{30 * 86400}s"
    await store(bus, left_by(0, "b")[2:])  # it was sent again, and died again
    assert await letters.counts() == await DeadLetters(bus.client).counts() == {"a": 2250, "b": 250}


RULE = """
automations:
  - name: tell
    trigger: {{expect: order.created}}
    actions: [{action}]
"""
BROKEN = "{type: emit-event, event: told, payload: {text: '{{ event.payload.nope }}'}}"
MENDED = "{type: emit-event, event: told, payload: {text: '{{ event.payload.x }}'}}"
OTHER = "{type: do-nothing}"


async def test_a_dead_letter_follows_the_rule_of_today(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    file = rules / "rules.yaml"
    file.write_text(RULE.format(action=BROKEN))
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0})
    async with Server(settings, rules) as server, plain_async_client(base_url=server.address) as client:

        async def reload(action: str | None) -> None:
            file.write_text(RULE.format(action=action) if action else "automations: []\n")
            assert (await client.post("/api/rules/reload")).status_code == 200

        async def dead() -> list[str]:
            return [item["key"] for item in (await client.get("/api/actions", params={"outcome": "dead"})).json()]

        body = {"id": "o-1", "event": "order.created", "resource": {"id": "r"}, "payload": {"x": "hello"}}
        assert (await client.post("/api/events", json=body)).status_code == 202
        await until(dead)
        (key,) = await dead()

        async def counted() -> bool:
            return bool((await client.get("/api/actions/dead/count")).json() == {"count": 1})

        await until(counted)

        await reload(OTHER)
        refused = await client.post(f"/api/actions/{key}/redrive")
        assert refused.status_code == 409
        assert "is do-nothing now and was emit-event" in refused.json()["error"]["message"]
        await reload(None)
        refused = await client.post(f"/api/actions/{key}/redrive")
        assert refused.status_code == 409
        assert "there is no automation 'tell' any more" in refused.json()["error"]["message"]
        assert await dead() == [key]

        await reload(MENDED)
        assert (await client.post(f"/api/actions/{key}/redrive")).status_code == 200

        async def told() -> list[Any]:
            return list((await client.get("/api/events", params={"event": "told"})).json())

        await until(told)
        (event,) = await told()
        assert event["payload"] == {"text": "hello"}

        async def none_dead() -> bool:
            return await dead() == []

        await until(none_dead)


async def test_a_dead_letter_is_redriven_under_a_new_key_or_dropped(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(RULE.format(action=BROKEN))
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0})
    async with Server(settings, rules) as server, plain_async_client(base_url=server.address) as client:

        async def dead() -> list[Any]:
            return list((await client.get("/api/actions", params={"outcome": "dead"})).json())

        for number in range(3):
            body = {"id": f"o-{number}", "event": "order.created", "resource": {"id": "r"}, "payload": {"x": "hello"}}
            assert (await client.post("/api/events", json=body)).status_code == 202

        async def three() -> bool:
            return len(await dead()) == 3

        await until(three)
        first, second, third = [item["key"] for item in await dead()]
        (rules / "rules.yaml").write_text(RULE.format(action=MENDED))
        assert (await client.post("/api/rules/reload")).status_code == 200
        assert (await client.post(f"/api/actions/{first}/redrive", params={"new_key": True})).status_code == 200
        dropped = await client.post(f"/api/actions/{second}/drop")
        assert (dropped.status_code, dropped.json()["outcome"]) == (200, "dropped")
        assert (await client.post(f"/api/actions/{second}/drop")).status_code == 404

        async def told() -> list[Any]:
            return list((await client.get("/api/events", params={"event": "told"})).json())

        await until(told)
        (event,) = await told()
        assert event["id"] == f"emitted-{first}.r1", "made of the new key"

        async def third_alone() -> bool:
            return [item["key"] for item in await dead()] == [third]

        await until(third_alone)
