"""Lists of the API over a real stream and a real history: one list, whatever of it is where."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.contract.history import history_messages as made
from tests.deployment_set import DeploymentSet
from tests.integration.conftest import bus, nats_server
from tests.patience import until
from whenthen.engine.bus import stream_pages
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import EVENTS, StreamSettings, ensure_streams
from whenthen.engine.execution import DeadLetters
from whenthen.engine.flow_runs.run_store import NatsRunStore
from whenthen.engine.http import Listing, Page
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.queries.action_queries import ActionQueries
from whenthen.engine.process.queries.event_positions import EventPositions
from whenthen.engine.process.queries.event_queries import EventQueries
from whenthen.engine.process.queries.firing_queries import FiringQueries
from whenthen.engine.process.queries.history.history_questions import HistoryQuestions
from whenthen.engine.process.queries.lists.known_names import KnownNames
from whenthen.engine.process.queries.lists.merged_lists import MergedLists
from whenthen.engine.process.queries.lists.whole_ids import WholeIds
from whenthen.engine.process.queries.run_queries import RunQueries
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.projection import HistoryLag, HistoryService, HistoryWriter, StreamProjector
from whenthen.history import Database, HistoryQuery, HistoryReader, Keep
from whenthen.rules import Rules
from whenthen.runs import BuiltInOrchestrator
from whenthen.runs.memory_stores import memory_stores
from whenthen.schemas.errors import Conflict, InvalidInput, NotFound

__all__ = ["bus", "nats_server"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.requires("nats-server"), pytest.mark.takes(5)]


class Lists:
    """The lists of a process beside a history that is filled when the test says so."""

    def __init__(self, bus: Bus, database: Database) -> None:
        self.bus, self.database = bus, database
        registry = RuleRegistry(Rules(), shards=1, resolve_secret=str)
        history, ids = HistoryQuestions(bus), IdPrefixes(bus.client)
        lists, names, whole = MergedLists(bus, history), KnownNames(registry), WholeIds(ids, history)
        actions = ActionQueries(DeadLetters(bus.client), lists, names, whole, history)
        firings = FiringQueries(bus.client, lists, names, whole, actions)
        events = EventQueries(bus, EventPositions(), ids, lists, names, whole)
        self.events, self.get_event, self.kept_event = events.list_events, events.get_event, events.kept_event
        stores = dataclasses.replace(memory_stores(), runs=NatsRunStore(bus.client))
        orchestrator = BuiltInOrchestrator(stores, DeploymentSet())
        runs = RunQueries(orchestrator, ids, lists, names, whole)
        self.runs, self.get_run = runs.list_runs, runs.get_run
        self.firings, self.get_firing = firings.list_firings, firings.get_firing
        self.actions, self.get_action = actions.list_actions, actions.get_action

    async def project(self, stream: str, kind: str, newest: str) -> None:
        """Fill the history until it has what has the id `newest`."""
        writer = HistoryWriter(self.database, Keep())
        task = asyncio.create_task(StreamProjector(self.bus.client, writer, stream).run())

        async def there() -> bool:
            query = HistoryQuery(kind=kind, id_prefix=newest)
            rows = (await asyncio.to_thread(HistoryReader(self.database).page, query)).rows
            return any(row["id"] == newest for row in rows)

        try:
            await until(there)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            writer.close()


@contextlib.asynccontextmanager
async def listing(bus: Bus, folder: Path) -> AsyncIterator[Lists]:
    database = Database(folder / "history.db")
    service = HistoryService(
        bus, database, HistoryLag(bus, database, report=Metrics(version="1").set_history_lag, shards=1)
    )
    task = asyncio.create_task(service.run())
    await asyncio.sleep(0)
    await bus.nc.flush()
    try:
        yield Lists(bus, database)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        service.close()
        database.close()


async def store(bus: Bus, *messages: made.Message) -> None:
    for each in messages:
        await bus.store(each.subject, each.data)


async def every(ask: Any, limit: int, **filters: str) -> tuple[list[Any], list[str]]:
    """All items page by page, and the notes."""
    found: list[Any] = []
    notes: list[str] = []
    before = None
    while True:
        page: Listing[Any] = await ask(Page(limit=limit, before=before, filters=filters))
        assert len(page) <= limit
        found += page
        notes += page.notes
        if page.following is None:
            return found, notes
        assert page.following["before"] != before
        before = page.following["before"]


async def test_what_the_history_does_not_have_yet_is_read_from_the_stream(bus: Bus, tmp_path: Path) -> None:
    async with listing(bus, tmp_path) as lists:
        await store(bus, *(made.event(n) for n in range(1, 31)))
        await lists.project(EVENTS, "events", "event-30")
        await store(bus, *(made.event(n) for n in range(31, 46)))
        for limit in (1, 7, 45, 1000):
            found, notes = await every(lists.events, limit)
            assert [each.id for each in found] == [f"event-{n}" for n in range(45, 0, -1)], limit
            assert notes == []
        found, _ = await every(lists.events, 4, resource="shop.1")
        assert [each.id for each in found] == [f"event-{n}" for n in range(45, 0, -1) if n % 3 == 1]
        found, _ = await every(lists.events, 4, text='"NUMBER":4')
        assert [each.seq for each in found] == [45, 44, 43, 42, 41, 40, 4]
        # the `seq` of an item is a place, too
        page = await lists.events(Page(limit=3, before="40"))
        assert [each.seq for each in page] == [39, 38, 37]


async def test_a_stream_that_was_made_again_is_listed_before_what_the_history_has_of_the_old_one(
    bus: Bus, tmp_path: Path
) -> None:
    async with listing(bus, tmp_path) as lists:
        await store(bus, *(made.event(n) for n in range(1, 6)))
        await lists.project(EVENTS, "events", "event-5")
        await bus.js.delete_stream(EVENTS)
        await ensure_streams(bus.js, StreamSettings())
        await store(bus, *(made.event(n, id=f"new-{n}") for n in range(1, 4)))
        names = ["new-3", "new-2", "new-1", *(f"event-{n}" for n in range(5, 0, -1))]
        for limit in (2, 100):
            assert [each.id for each in (await every(lists.events, limit))[0]] == names
        await lists.project(EVENTS, "events", "new-3")
        for limit in (2, 100):
            assert [each.id for each in (await every(lists.events, limit))[0]] == names


async def test_an_action_is_listed_once_as_it_is_now(bus: Bus, tmp_path: Path) -> None:
    def outcome(number: int, state: str) -> made.Message:
        return made.outcome(number, state, 1, firing=f"firing-{number}")

    async def put(message: made.Message, number: int) -> None:
        await bus.store(f"engine.outcome.ship.firing-{number}.0", message.data)

    async with listing(bus, tmp_path) as lists:
        for number in range(1, 7):
            await store(bus, made.firing(number))
            await put(outcome(number, "retrying"), number)
        await lists.project("ENGINE", "actions", "firing-6.0")
        await put(outcome(2, "executed"), 2)
        await put(outcome(5, "executed"), 5)
        for limit in (1, 2, 4, 10):
            found, notes = await every(lists.actions, limit)
            assert [(each.key, each.outcome) for each in found] == [
                ("firing-5.0", "executed"),
                ("firing-2.0", "executed"),
                *((f"firing-{n}.0", "retrying") for n in (6, 4, 3, 1)),
            ], limit
            assert notes == []
            found, _ = await every(lists.actions, limit, outcome="retrying")
            assert [each.key for each in found] == [f"firing-{n}.0" for n in (6, 4, 3, 1)]
        found, _ = await every(lists.actions, 3, firing="firing-5")
        assert [each.key for each in found] == ["firing-5.0"]
        found, _ = await every(lists.actions, 3, firing="firing-5")
        one = await lists.get_action("firing-5.0")
        assert found == [one.model_copy(update={"tries": []})]
        firing = await lists.get_firing("firing-5")
        assert (firing.event, [each.outcome for each in firing.actions]) == ("event-5", ["executed"])
        for ask, wrong in (
            (lists.get_firing, "firing-7"),
            (lists.get_firing, "../x"),
            (lists.get_action, "firing-5"),
            (lists.get_action, "firing-5.7"),
            (lists.get_action, "firing-5.²"),
        ):
            with pytest.raises(NotFound):
                await ask(wrong)
        with pytest.raises(Conflict, match="is the beginning of 6 ids"):
            await lists.get_firing("firing")
        found, _ = await every(lists.firings, 4, automation="ship", id="firing-")
        assert [each.id for each in found] == [f"firing-{n}" for n in range(6, 0, -1)]


async def test_what_a_list_shows_is_also_shown_by_its_id(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = "e7f447132cef5e9d9bdc7165ad3093f1"
    async with listing(bus, tmp_path) as lists:
        await store(
            bus,
            made.event(1, id="order-1"),
            made.event(2, id=f"{run}-4"),
            made.event(3, id="order-12"),
            *(made.event(n) for n in range(4, 10)),
            made.run(1, "Completed", run_id=run),
        )
        await lists.project(EVENTS, "events", "event-9")
        await lists.project("KV_WT_runs", "runs", run)
        for name, value in (("_MAX_SCANNED", 7), ("_BLOCK", 2), ("_MAX_BLOCK", 2)):  # eight events
            monkeypatch.setattr(stream_pages, name, value)
        # the newest that begin so are not what a whole id means
        assert (await lists.get_event("order-1")).id == "order-1"
        assert (await lists.kept_event("order-1"))["seq"] == 1
        assert (await lists.kept_event("e7f44713-4"))["seq"] == 2
        assert (await lists.get_run("e7f44713")).id == run
        await bus.js.purge_stream(EVENTS)
        await bus.js.purge_stream("KV_WT_runs")
        for text, found in (
            ("order-1", "order-1"),
            ("order-12", "order-12"),
            ("e7f44713-4", f"{run}-4"),
            ("e7f447…", f"{run}-4"),
        ):
            assert (await lists.get_event(text)).id == found
            with pytest.raises(NotFound):
                await lists.kept_event(text)
        for text in (run, "e7f44713"):
            assert (await lists.get_run(text)).state == "Completed"
        for ask, wrong in ((lists.get_event, "order-"), (lists.get_event, "order-…")):
            with pytest.raises(Conflict):
                await ask(wrong)
        for ask, wrong in (
            (lists.get_event, "order"),
            (lists.get_event, "nothing-1"),
            (lists.get_run, "e7f44714"),
            (lists.get_run, "0" * 32),
        ):
            with pytest.raises(NotFound):
                await ask(wrong)


async def test_old_runs_are_found_behind_many_newer_ones(bus: Bus, tmp_path: Path) -> None:
    created = [f"2027-01-{day:02}T08:00:00Z" for day in range(1, 29)]
    async with listing(bus, tmp_path) as lists:
        await store(bus, *(made.run(n, "Completed", run_id=f"{n:032}", created=day) for n, day in enumerate(created)))
        await lists.project("KV_WT_runs", "runs", f"{27:032}")
        await bus.js.purge_stream("KV_WT_runs")
        newest = [f"{n:032}" for n in range(27, -1, -1)]
        for limit in (1, 3, 4, 5, 100):
            page = await lists.runs(Page(limit=limit, filters={"until": created[4]}))
            assert [each.id for each in page] == newest[-4:][:limit]
            filters: dict[str, str]
            for filters, expected in (({"until": created[4]}, newest[-4:]), ({}, newest)):
                found, notes = await every(lists.runs, limit, **filters)
                assert [each.id for each in found] == expected
                assert notes == []


RUN_LIST = [f"{n:032x}" for n in range(24)]


def run_of(seq: int, n: int, state: str = "Scheduled", **fields: Any) -> made.Message:
    """The `n`-th run, of two that were created at each moment."""
    message = made.run(
        seq, state, run_id=RUN_LIST[n], created=f"2027-01-15T08:{n // 2:02}:00.000000Z", deployment=f"d{n % 3}"
    )
    return message._replace(data=orjson.dumps({**orjson.loads(message.data), **fields}))


async def test_runs_are_listed_by_their_creation_whatever_of_them_is_in_the_history(bus: Bus, tmp_path: Path) -> None:
    async with listing(bus, tmp_path) as lists:
        await store(bus, *(run_of(n + 1, n, parameters={"large": "x" * 20_000}) for n in range(12)))
        await lists.project("KV_WT_runs", "runs", RUN_LIST[11])
        await store(
            bus, *(run_of(20 + n, n, "Running") for n in range(0, 12, 4)), *(run_of(40, n) for n in (13, 12, 15, 14))
        )
        newest = RUN_LIST[15::-1]
        running = [RUN_LIST[n] for n in (8, 4, 0)]

        async def holds() -> None:
            for limit in (1, 2, 3, 5, 100):
                found, notes = await every(lists.runs, limit)
                assert [each.id for each in found] == newest, limit
                assert notes == []
                assert [each.id for each in found if each.state == "Running"] == running
                assert {len(each.parameters.get("large", "")) for each in found if each.state != "Running"} == {
                    0,
                    20_000,
                }
                for filters, expected in (
                    ({"state": "running"}, running),
                    ({"state": "Scheduled"}, [each for each in newest if each not in running]),
                    ({"deployment": "d1"}, [each for n, each in reversed([*enumerate(RUN_LIST[:16])]) if n % 3 == 1]),
                    ({"since": "2027-01-15T08:03:00Z", "until": "2027-01-15T08:07:00Z"}, RUN_LIST[13:5:-1]),
                    ({"id": RUN_LIST[9]}, [RUN_LIST[9]]),
                ):
                    assert [each.id for each in (await every(lists.runs, limit, **filters))[0]] == expected, filters

        await holds()
        await lists.project("KV_WT_runs", "runs", RUN_LIST[14])
        await holds()
        for wrong in ("", "5", "5.x", "2027-01-15T08:00:00Z/" + RUN_LIST[0], f"-1.{RUN_LIST[0]}"):
            with pytest.raises(InvalidInput, match="follow its `Link`"):
                await lists.runs(Page(before=wrong))


async def test_runs_without_a_history_are_those_that_changed_last_and_the_list_says_so(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listing(bus, tmp_path) as lists:
        await store(bus, *(run_of(n + 1, n) for n in range(24)))
        first = await lists.runs(Page(limit=3))  # nothing of it is in the history yet
        assert [each.id for each in first] == RUN_LIST[:20:-1]
    history = HistoryQuestions(bus)
    ids = IdPrefixes(bus.client)
    merged, whole = MergedLists(bus, history), WholeIds(ids, history)
    names = KnownNames(RuleRegistry(Rules(), shards=1, resolve_secret=str))
    runs = RunQueries(BuiltInOrchestrator(memory_stores(), DeploymentSet()), ids, merged, names, whole)
    found, notes = await every(runs.list_runs, 5)
    assert [each.id for each in found] == RUN_LIST[::-1]
    assert all("no process has the role history" in note for note in notes)
    # a page goes on where another one ended, whoever answered it
    rest = await runs.list_runs(Page(limit=2, before=first.following["before"] if first.following else None))
    assert [each.id for each in rest] == RUN_LIST[20:18:-1]
    for name, value in (("_MAX_SCANNED", 7), ("_BLOCK", 2), ("_MAX_BLOCK", 2)):  # eight runs
        monkeypatch.setattr(stream_pages, name, value)
    found, notes = await every(runs.list_runs, 5)
    assert [each.id for each in found] == RUN_LIST[:15:-1]
    assert any("those that changed last" in note for note in notes)


async def test_a_history_that_is_far_behind_is_not_waited_for(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listing(bus, tmp_path) as lists:
        await store(bus, run_of(1, 0))
        await lists.project("KV_WT_runs", "runs", RUN_LIST[0])
        await store(bus, *(run_of(n + 1, n) for n in range(1, 20)))
        for name, value in (("_MAX_SCANNED", 7), ("_BLOCK", 2), ("_MAX_BLOCK", 2)):  # eight runs
            monkeypatch.setattr(stream_pages, name, value)
        page = await lists.runs(Page(limit=5))
        assert [each.id for each in page] == RUN_LIST[19:14:-1]
        assert any("is being filled" in note for note in page.notes)


async def test_filters_find_the_same_before_and_after_the_history_has_it(bus: Bus, tmp_path: Path) -> None:
    texts = (
        "TRIGGERED", "waiting", "retrying", "automation", "seq", "total", "trace", "null", 'say "ß"', "SAY", '"number":', "back\\slash", "ship",
        "order.1", "number", "call-webhook", "event-2", "note", "ORDER.PAID",
    )  # fmt: skip
    labels = ({"id": "shop.1"}, {"missing": "None"}, {"id": "shop.1", "missing": "None"}, {"kind": "shop"})
    async with listing(bus, tmp_path) as lists:
        await store(
            bus,
            *(made.event(n, payload={"number": n, "note": 'say "ß"', "path": "back\\slash"}) for n in range(1, 5)),
            made.event(5, related=[{"id": "customer.7"}, {"role": "None"}]),
            *(made.firing(n, key={"id": f"order.{n}"}) for n in range(1, 4)),
            made.task(1, firing="firing-1"),
        )
        await bus.store("engine.outcome.ship.firing-2.0", made.outcome(2, "retrying", 1, firing="firing-2").data)

        async def answers() -> dict[str, list[Any]]:
            found = {}
            for name, ask in (("events", lists.events), ("firings", lists.firings), ("actions", lists.actions)):
                for text in texts:
                    found[f"{name} {text}"] = (await every(ask, 2, text=text))[0]
            for label in labels:
                found[f"labels {label}"] = list(await lists.events(Page(labels=label)))
            for related in ("customer.7", "None"):
                found[f"related {related}"] = (await every(lists.events, 2, related=related))[0]
            return found

        before = await answers()
        await lists.project(EVENTS, "events", "event-5")
        await lists.project("ENGINE", "actions", "firing-2.0")
        assert await answers() == before
        counts = {name: len(items) for name, items in before.items() if items}
        assert counts == {
            'events say "ß"': 4, "events SAY": 4, 'events "number":': 5, "events back\\slash": 4, "events number": 5, "events event-2": 1,
            "events note": 4, "events ORDER.PAID": 5, "firings TRIGGERED": 3, "firings ship": 3, "firings order.1": 1, "firings event-2": 1, "actions waiting": 1,
            "actions retrying": 1, "actions ship": 2, "actions call-webhook": 2, "labels {'id': 'shop.1'}": 2, "labels {'kind': 'shop'}": 5,
            "related customer.7": 1,
        }  # fmt: skip


async def test_large_payloads_come_whole_in_pages_of_bounded_bytes(bus: Bus, tmp_path: Path) -> None:
    text = "x" * 3_000_000
    async with listing(bus, tmp_path) as lists:
        await store(bus, *(made.event(n, payload={"text": text}) for n in range(1, 21)))
        await lists.project(EVENTS, "events", "event-20")
        seen: list[str] = []
        before = None
        while True:
            page = await lists.events(Page(limit=1000, before=before))
            assert page
            assert sum(len(each.payload["text"]) for each in page) <= 9_000_000
            seen += [each.id for each in page]
            if page.following is None:
                break
            before = page.following["before"]
        assert seen == [f"event-{n}" for n in range(20, 0, -1)]
        await bus.js.purge_stream(EVENTS)
        page = await lists.events(Page(limit=2))
        assert [(each.id, each.payload, (each.model_extra or {})["payload_bytes"]) for each in page] == [
            (f"event-{n}", None, len(orjson.dumps({"text": text}))) for n in (20, 19)
        ]
        assert page.notes == ["2 large payloads are not kept any more; `payload_bytes` says how large"]


async def test_without_a_history_the_stream_is_looked_through_and_it_is_said(bus: Bus) -> None:
    lists = Lists(bus, Database(Path("/nowhere/history.db")))
    await store(bus, *(made.event(n) for n in range(1, 11)))
    found, notes = await every(lists.events, 3, resource="shop.1", since="1h")
    assert [each.id for each in found] == ["event-10", "event-7", "event-4", "event-1"]
    assert notes
    assert "only what the stream still keeps was looked through: no process has the role history" in notes[0]
    page = await lists.events(Page(filters={"until": "1h"}))
    assert list(page) == []
    page = await lists.firings(Page(filters={"automation": "shpi"}))
    assert "nothing is kept of the automation 'shpi'" in page.notes[-1]


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"since": "yesterday"}, "since"),
        ({"since": "1h", "until": "2h"}, "since"),
        ({"since": "2026-01-31T08:00:00Z", "until": "2026-01-31T08:00:00Z"}, "since"),
        ({"id": "abc"}, "id"),
        ({"before": "'; DROP TABLE events"}, "before"),
        ({"before": "9" * 40}, "before"),
        ({"before": "²"}, "before"),
    ],
)
async def test_what_is_asked_wrongly_is_refused(bus: Bus, tmp_path: Path, filters: dict[str, str], field: str) -> None:
    async with listing(bus, tmp_path) as lists:
        for ask in (lists.events, lists.firings, lists.actions):
            before = filters.get("before")
            asked = {name: value for name, value in filters.items() if name != "before"}
            with pytest.raises(InvalidInput) as caught:
                await ask(Page(before=before, filters=asked))
            assert caught.value.field == field
