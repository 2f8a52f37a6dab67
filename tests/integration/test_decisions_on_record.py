"""Decisions on record and `why`, asked of an API that evaluates nothing, before and after everything was killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import sqlalchemy as sa

from tests.chaos.oracle import read_stream
from tests.chaos.processes import Supervised, child_of, whenthen
from tests.integration.conftest import NatsServer
from tests.integration.engine.projection.test_projection import projecting
from tests.patience import limit, until
from tests.plain_http import plain_async_client
from tests.ports import free_ports
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import DECISIONS, ENGINE, EVENTS
from whenthen.engine.bus.subjects import marker_subject
from whenthen.engine.decisions import CommittedBatches, DecisionReader
from whenthen.engine.evaluation import NatsEngineStore, read_offset
from whenthen.history import Database, read_stats
from whenthen.history.history_tables import tallies
from whenthen.schemas.decision_records import DecisionBatch

pytestmark = [pytest.mark.anyio, pytest.mark.takes(20)]

TOKEN = "token-of-this-test-0123456789"
START_S = 90.0
RULES = """
automations:
  - name: failing
    trigger: {expect: job.failed, threshold: 3, within: 10m, for_each: [id], match: {team: data}}
    actions: [do-nothing]
  - name: paid
    trigger: {expect: order.paid, when: event.payload.total > 10}
    actions: [do-nothing]
  - name: both
    trigger:
      type: compound
      require: all
      within: 1h
      triggers: [{expect: a.done}, {expect: b.done}]
    actions: [do-nothing]
"""


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def gone(pid: int) -> None:
    async def ended() -> bool:
        return not is_there(pid)

    await until(ended, what="the child ends with its parent")


class House:
    """An API and an evaluator, two processes on one NATS server."""

    def __init__(self, folder: Path, url: str, rules: str) -> None:
        self.rules = folder / "rules"
        self.rules.mkdir()
        (self.rules / "rules.yaml").write_text(rules)
        (self.port,) = free_ports(1)
        env = {"WHENTHEN_API_TOKEN": TOKEN, "WHENTHEN_LEASE": "1s", "WHENTHEN_RULES_FROM": "files, api"}
        common = ["serve", self.rules, "--nats", url]
        self.api = Supervised("api", whenthen(*common, "--role", "api", "--port", str(self.port)), folder, env=env)
        self.evaluator = Supervised("evaluator", whenthen(*common, "--role", "evaluator"), folder, env=env)
        self.client = plain_async_client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=limit(30),
        )

    async def ready(self) -> None:
        async def answers() -> bool:
            try:
                return (await self.client.get("/readyz")).is_success
            except httpx.TransportError:
                return False

        await until(answers, within_s=START_S, what="the API is ready")

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.client.get(path, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    async def emit(self, *events: dict[str, Any]) -> list[str]:
        answer = await self.client.post("/api/events", json=list(events))
        assert answer.status_code == 202, answer.text
        ids: list[str] = answer.json()["ids"]
        return ids

    async def decided(self, automation: str) -> dict[str, int]:
        counts: dict[str, int] = (await self.get(f"/api/automations/{automation}"))["decided"]
        return counts

    async def kill_all(self) -> None:
        """SIGKILL to both and to their parents; they are started again at once."""
        for process in (self.api, self.evaluator):
            child = child_of(process.pid)
            process.kill()
            if child is not None:
                await gone(child)


@asynccontextmanager
async def house(folder: Path, url: str, rules: str = RULES) -> AsyncIterator[House]:
    found = House(folder, url, rules)
    try:
        found.api.start()
        await found.ready()
        found.evaluator.start()
        yield found
    finally:
        await found.client.aclose()
        await asyncio.gather(found.api.halt(), found.evaluator.halt())


def failed(id: str, team: str = "data", **more: Any) -> dict[str, Any]:
    return {"event": "job.failed", "resource": {"id": id, "team": team}, **more}


async def test_why_is_answered_after_everything_was_killed_by_a_process_that_evaluates_nothing(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    async with house(tmp_path, nats_server.url) as server:
        first, second = await server.emit(
            failed("etl", occurred="2026-01-31T12:00:00Z"), failed("etl", occurred="2026-01-31T12:02:30Z")
        )
        wrong, cheap, part = await server.emit(
            failed("etl", team="web"),
            {"event": "order.paid", "resource": {"id": "o"}, "payload": {"total": 7}},
            {"event": "a.done", "resource": {"id": "x"}},
        )
        # the newest of all, so that no shard ever gets to its position
        (other,) = await server.emit({"event": "nobody.waits", "resource": {"id": "n"}})
        await until(
            lambda: _is(server, "both", {"waiting_for_sibling": 1, "fired": 1}), within_s=START_S, what="decided"
        )

        for round in range(2):
            why = await server.get("/api/why", automation="failing", event=second)
            assert (why["reason"], why["source"], why["fired"]) == ("below_threshold", "record", False), why
            assert why["missing"] == [
                "2 of 3 job.failed within 10m; the third would have had to come before 2026-01-31T12:10:00Z"
            ]
            assert why["key"] == {"id": "etl"}
            assert [each["id"] for each in why["before"][0]["events"]] == [first]
            assert [each["id"] for each in why["after"][0]["events"]] == [first, second]
            assert why["rules"] == 1
            assert why["notes"] == []

            why = await server.get("/api/why", automation="failing", event=wrong)
            assert (why["reason"], why["source"]) == ("label_mismatch", "record")
            assert why["missing"] == ["match.team: data, found web"]

            why = await server.get("/api/why", automation="paid", event=cheap)
            assert why["reason"] == "condition_false"
            assert "event.payload.total is 7" in why["missing"][0]

            why = await server.get("/api/why", automation="paid", event=other)
            assert (why["reason"], why["source"], why["decisions"]) == ("not_expected", "computed", [])
            assert why["missing"] == ["expect: order.paid, found nobody.waits"]
            assert "computed now, with the rules of revision 1" in why["answer"]

            why = await server.get("/api/why", automation="both", event=part)
            assert why["reason"] == "waiting_for_sibling", why
            assert why["missing"][0].startswith("1 of 2 parts fired; triggers[1] would have had to fire by ")

            if round == 0:
                nats_server.kill()
                await server.kill_all()
                nats_server.start()
                await server.ready()

        (third,) = await server.emit(failed("etl", occurred="2026-01-31T12:04:00Z"))
        await until(lambda: _has(server, "failing", "fired", 1), within_s=START_S, what="it fires")
        why = await server.get("/api/why", automation="failing", event=third)
        assert (why["reason"], why["fired"], why["source"]) == ("fired", True, "record")
        assert why["firing"] == (await server.get("/api/firings"))[0]["id"]
        assert await server.decided("failing") == {"below_threshold": 2, "label_mismatch": 1, "fired": 1}

        decisions = "/api/automations/failing/decisions"
        answer = await server.client.get(decisions, params={"limit": 3})
        assert [each["event"] for each in answer.json()] == [third, wrong, second]
        rest = await server.client.get(answer.links["next"]["url"])
        assert [each["event"] for each in rest.json()] == [first]
        assert "next" not in rest.links
        refused = await server.client.get(decisions, params={"before": "nonsense"})
        assert refused.status_code == 400, refused.text

        (between,) = await server.emit({"event": "nobody.waits", "resource": {"id": "n"}})
        (server.rules / "rules.yaml").write_text(RULES.replace("match: {team: data}", "match: {team: web}"))
        await until(lambda: _marked(bus, 2), within_s=START_S, what="events from here on are for the next rules")
        (ops,) = await server.emit(failed("etl", team="ops"))
        await until(lambda: _has(server, "failing", "label_mismatch", 2), within_s=START_S, what="it is decided")
        why = await server.get("/api/why", automation="failing", event=ops)
        assert (why["rules"], why["missing"]) == (2, ["match.team: web, found ops"])
        why = await server.get("/api/why", automation="failing", event=between)
        assert (why["rules"], why["reason"]) == (1, "not_expected")  # although its batch ends with the next rules
        assert "with the rules of revision 1" in why["answer"]

        await server.evaluator.halt()
        waits, passed = await server.emit(failed("etl", team="web"), {"event": "nobody.waits", "resource": {"id": "n"}})
        why = await server.get("/api/why", automation="failing", event=waits)
        assert (why["reason"], why["answer"][:42]) == ("not_evaluated", "failing has not been evaluated for it yet ")
        assert (await server.get("/api/why", automation="failing", event=passed))["reason"] == "not_expected"

        refused = await server.client.get("/api/why", params={"automation": "faling", "event": third})
        assert refused.status_code == 404
        assert "failing" in refused.text
        refused = await server.client.get("/api/why", params={"automation": "failing", "event": "no-such-event"})
        assert refused.status_code == 404
        assert "kept from position" in refused.text
        for query in ({}, {"at": "noon"}, {"at": "2999-01-01T00:00:00Z"}, {"at": "2026-01-31T12:00:00Z", "key": "x"}):
            refused = await server.client.get("/api/why", params={"automation": "failing", **query})
            assert refused.status_code == 400, refused.text


async def _has(server: House, automation: str, reason: str, count: int) -> bool:
    return (await server.decided(automation)).get(reason) == count


async def _marked(bus: Bus, number: int) -> bool:
    return [message.subject async for message in read_stream(bus, EVENTS, marker_subject(number))] != []


async def _goes_on(server: House, before: int) -> bool:
    return sum((await server.decided("failing")).values()) > before


async def _is(server: House, automation: str, counts: dict[str, int]) -> bool:
    return await server.decided(automation) == counts


async def test_counts_are_exact_while_the_evaluator_is_killed_again_and_again(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    sent = 0
    async with house(tmp_path, nats_server.url) as server:
        for round in range(6):
            before = sum((await server.decided("failing")).values())
            for _ in range(20):
                events = [failed(f"job-{round}", occurred=f"2026-01-31T12:00:{n:02d}Z") for n in range(15)]
                await server.emit(*events, failed("x", team="web"))
                sent += 1
            if round < 5:
                await until(lambda before=before: _goes_on(server, before), within_s=START_S, what="events are decided")  # type: ignore[misc]
                child = child_of(server.evaluator.pid)
                server.evaluator.kill()
                if child is not None:
                    await gone(child)
        await until(lambda: _has(server, "failing", "label_mismatch", sent), within_s=START_S, what="all is decided")
        counts = await server.decided("failing")
        firings = {message.subject async for message in read_stream(bus, ENGINE, "engine.firing.>")}
        assert counts["fired"] == len(firings)
        assert sum(counts.values()) == sent * 16

        batches = CommittedBatches()
        found: list[DecisionBatch] = []
        async for message in read_stream(bus, DECISIONS, "decisions.0"):
            found += batches.message(message.seq, DecisionBatch.decode(message.data))
        found += batches.offset((await DecisionReader(bus).offset(0)).decisions)
        total: dict[str, int] = {}
        for batch in found:
            for reason, count in batch.counts.get("failing", {}).items():
                total[reason] = total.get(reason, 0) + count
        assert total == counts
        rows = [row.firing for batch in found for row in batch.rows if row.reason == "fired"]
        assert len(rows) == len(set(rows)) == len(firings)


async def test_what_was_done_and_refused_is_on_record_after_everything_was_killed(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    async with house(tmp_path, nats_server.url) as server:
        await server.client.post("/hooks/nobody", json={})
        await server.client.post("/api/events", json={"event": 3})
        await server.client.get("/api/events", headers={"Authorization": "Bearer wrong"})
        await server.client.post("/api/automations/paid/pause", json={})
        await server.client.post("/api/rules/apply", json={"files": [{"name": "x.yaml", "text": "automations: 3"}]})
        (server.rules / "rules.yaml").write_text("automations: [{name: x}]")
        wanted = {
            ("rules-taken", "revision 1", ""),
            ("request-refused", "webhook /hooks/nobody", "not_found"),
            ("request-refused", "api /api/events", "invalid_event"),
            ("request-refused", "api /api/events", "unauthorized"),
            ("automation-paused", "paid", ""),
            ("rules-refused", "", "invalid_rules"),
            ("rules-refused", "changed rules; the last good ones stay in force", ""),
        }

        async def told() -> set[tuple[str, str, str]]:
            return {(each["kind"], each["what"], each["cause"]) for each in await server.get("/api/audit")}

        async def all_told() -> bool:
            return wanted <= await told()

        await until(all_told, what=f"{wanted} are on record")
        await server.kill_all()
        await server.ready()
        assert wanted <= await told()
        refused = await server.get("/api/audit", kind="request-*", limit=2)
        assert [each["who"] for each in refused] == ["127.0.0.1", "127.0.0.1"]


async def test_what_retention_removed_is_said_and_a_row_outlives_its_event(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    async with house(tmp_path, nats_server.url) as server:
        _, second, third = await server.emit(
            *(failed("etl", occurred=f"2026-01-31T12:0{minute}:00Z") for minute in range(3))
        )
        await until(lambda: _has(server, "failing", "fired", 1), within_s=START_S, what="it fires")
        (later,) = await server.emit(failed("etl", occurred="2026-01-31T12:04:00Z"))
        await until(lambda: _has(server, "failing", "cooldown", 1), what="all is decided")
        last = (await bus.js.stream_info(EVENTS)).state.last_seq
        await bus.js.purge_stream(EVENTS, seq=last)

        with pytest.raises(AssertionError, match="the rules have none of that name; did you mean 'failing'"):
            await server.get("/api/why", automation="failling", event=second)
        why = await server.get("/api/why", automation="failing", event=second)
        assert (why["reason"], why["source"], why["clauses"]) == ("below_threshold", "record", None)
        assert "the event itself is not kept any more (retain_events)" in why["notes"][0]
        why = await server.get("/api/why", automation="failing", event=later)
        assert (why["reason"], why["source"]) == ("cooldown", "record")
        assert any("what came before could matter and is not all there" in note for note in why["notes"])
        why = await server.get("/api/why", automation="failing", event=third)
        assert (why["reason"], why["fired"]) == ("fired", True)


async def test_decisions_are_counted_while_their_stream_is_away_and_recorded_when_it_is_back(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    async with house(tmp_path, nats_server.url) as server:
        await server.emit(failed("a"), failed("b"))
        await until(lambda: _has(server, "failing", "below_threshold", 2), within_s=START_S, what="all is decided")
        config = (await bus.js.stream_info(DECISIONS)).config
        await bus.js.delete_stream(DECISIONS)
        (away,) = await server.emit(failed("c"))

        async def evaluated() -> bool:
            offset = await read_offset(NatsEngineStore(bus.client), 0)
            return offset.seq >= (await bus.js.stream_info(EVENTS)).state.last_seq

        await until(evaluated, within_s=60, what="the shard goes on")
        await bus.js.add_stream(config)
        await server.kill_all()
        await server.ready()
        (back,) = await server.emit(failed("d"))
        await until(lambda: _has(server, "failing", "below_threshold", 4), within_s=START_S, what="nothing is lost")
        for event in (away, back):
            why = await server.get("/api/why", automation="failing", event=event)
            assert why["reason"] == "below_threshold", why
        assert (await bus.js.stream_info(DECISIONS)).state.messages > 0


BUSY = (
    """
automations:
  - name: busy
    trigger:
      type: compound
      require: all
      within: 1h
      triggers:
"""
    + "".join(f"        - {{expect: tick, when: event.payload.n > {number}}}\n" for number in range(10))
    + """
    actions: [do-nothing]
"""
)
EVENTS_OF_BURST = 10_000  #: each is decided ten times


async def test_a_burst_of_decisions_of_one_automation_is_counted_exactly_and_takes_bounded_room(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    decisions = 10 * EVENTS_OF_BURST
    async with house(tmp_path, nats_server.url, BUSY) as server:
        for start in range(0, EVENTS_OF_BURST, 1000):
            await asyncio.gather(
                *(
                    bus.store(
                        "events.tick",
                        orjson.dumps(
                            {
                                "id": f"tick-{start + number}",
                                "event": "tick",
                                "occurred": "2026-01-31T12:00:00Z",
                                "received": "2026-01-31T12:00:00Z",
                                "source": "api",
                                "resource": {"id": "clock"},
                                "payload": {"n": 0},
                            }
                        ),
                    )
                    for number in range(1000)
                )
            )
        counts: dict[str, int] = {}

        async def all_decided() -> bool:
            counts.update(await server.decided("busy"))
            return counts == {"condition_false": decisions}

        try:
            await until(all_decided, within_s=START_S, what="all is decided")
        except AssertionError:
            assert counts == {"condition_false": decisions}
            raise
        state = (await bus.js.stream_info(DECISIONS)).state
        # a batch has the counts and the last 20 rows, however much was decided
        assert state.bytes < 10_000 * state.messages
        assert state.messages < EVENTS_OF_BURST / 10, "a batch for each commit, of many events"
        database = Database(tmp_path / "history.db")
        async with projecting(bus, database, shards=1):

            def counted() -> dict[tuple[str, str], int]:
                with database.reading() as connection:
                    rows = connection.execute(
                        sa.select(tallies).where(tallies.c.kind == "decisions", tallies.c.level == 3)
                    )
                    return Counter({(row.first, row.second): row.count for row in rows})

            async def all_there() -> bool:
                return await asyncio.to_thread(counted) == {("busy", "condition_false"): decisions}

            await until(all_there, within_s=60, what="the history has counted them")
            rows = read_stats(database).tables["decisions"].rows
            assert 20 <= rows <= 21 * state.messages
        database.close()
