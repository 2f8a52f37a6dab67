"""What is kept for how long: the settings hold in a real server, and nothing unread goes without a warning."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from tests.integration.conftest import NatsServer
from tests.patience import limit, until
from tests.plain_http import plain_async_client
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.request_client import BusReason
from whenthen.engine.bus.streams import StreamSettings, ensure_streams, make_room_in_engine
from whenthen.engine.execution import CONSUMER, DeadLetters
from whenthen.engine.flow_runs.flow_streams import ensure_flow_stores
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.maintenance import Maintenance, unread_share
from whenthen.engine.process.roles import Role
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.events import Event, new_event

pytestmark = pytest.mark.anyio

RULES = f"""
automations:
  - name: run
    trigger: {{expect: order.created}}
    actions: [{{run-deployment: hello}}]
deployments:
  - {{name: hello, command: ["{sys.executable}", -c, "print('hello')"]}}
"""


def event(number: int = 0, size: int = 0) -> Event:
    return new_event(
        "order.created",
        id=f"e-{number}",
        resource={"id": "o"},
        payload={"x": "x" * size},
        now=datetime.now(UTC),
        source="test",
    )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(RULES)
    settings = load_settings(
        {
            "data_dir": tmp_path / "data",
            "port": 0,
            # time for a run, and to look at what it left
            **dict.fromkeys(["retain_events", "retain_firings", "retain_outcomes", "retain_logs"], f"{limit(2):g}s"),
            "retain_runs": f"{limit(4):g}s",
        }
    )
    async with Server(settings, rules, roles=Role.all() - {Role.HISTORY}) as server:  # which keeps it longer
        yield server


async def test_everything_is_kept_as_long_as_the_settings_say_and_then_gone(server: Server) -> None:
    async with plain_async_client(base_url=server.address, timeout=limit(10)) as client:

        async def listed(path: str) -> list[object]:
            found = (await client.get(f"/api/{path}")).raise_for_status().json()
            return list(found["lines"] if isinstance(found, dict) else found)

        async def ran() -> bool:
            runs = (await client.get("/api/runs")).json()
            return bool(runs) and runs[0]["state"] == "Completed"

        sent = await client.post("/api/events", json={"event": "order.created", "resource": {"id": "o"}})
        assert sent.status_code == 202
        await until(ran)
        run = (await client.get("/api/runs")).json()[0]["id"]
        assert await listed("events")
        assert await listed("firings")
        assert await listed("actions")
        assert await listed(f"runs/{run}/logs")
        await until(lambda: _empty(listed, f"runs/{run}/logs"))
        for what in ("firings", "events", "actions", "runs"):
            await until(lambda what=what: _empty(listed, what))


async def _empty(listed: Callable[[str], Awaitable[list[object]]], what: str) -> bool:
    return not await listed(what)


SIZED = """
automations:
  - name: each
    trigger: {expect: order.created}
    actions: [do-nothing]
  - name: all
    trigger: {expect: order.created, for_each: shop, threshold: 3000, within: 1h}
    actions: [do-nothing]
"""


async def test_events_firings_and_outcomes_keep_to_their_sizes_and_nothing_that_is_needed_makes_room(
    tmp_path: Path,
) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(SIZED)
    sizes = {"EVENTS": 2_000_000, "ENGINE": 4_000_000}
    settings = load_settings(
        {"data_dir": tmp_path / "data", "port": 0, "retain_events_bytes": sizes["EVENTS"]}
    ).model_copy(update={"engine_bytes": sizes["ENGINE"]})  # less than it may be, so that few events fill it
    async with Server(settings, rules) as server, plain_async_client(base_url=server.address) as client:

        async def sent(first: int) -> bool:
            batch = [
                {
                    "id": f"o-{n}",
                    "event": "order.created",
                    "resource": {"id": f"{n}", "shop": "s"},
                    "payload": "x" * 1000,
                }
                for n in range(first, first + 50)
            ]
            answer = await client.post("/api/events", json=batch)
            assert answer.status_code == 202 or answer.json()["error"]["reason"] == "stream_full"
            return answer.status_code == 202

        for first in range(0, 3000, 50):  # twice as much as either may hold
            await until(lambda first=first: sent(first))
        value = server.metrics.registry.get_sample_value

        async def acted() -> bool:
            done = [
                value("whenthen_actions_total", {"automation": name, "type": "do-nothing", "outcome": "executed"})
                for name in ("each", "all")
            ]
            return done == [3000, 1]

        await until(acted, within_s=60)
        for stream, limit in sizes.items():
            assert (await server.bus.js.stream_info(stream)).state.bytes <= limit
            assert value("whenthen_stream_made_room_total", {"stream": stream}) > 100
        firings = (await client.get("/api/firings", params={"limit": 500, "automation": "each"})).json()
        kept = [firing["event"] for firing in firings]
        assert kept[0] == "o-2999"
        assert "o-0" not in kept

        async def caught_up() -> bool:
            return value("whenthen_evaluation_lag_messages", {"shard": "0"}) == 0

        await until(caught_up)


async def test_the_outcome_of_a_task_that_still_waits_makes_no_room(nats_server: NatsServer) -> None:
    bus = Bus(nats_server.url)
    await bus.connect()
    settings = StreamSettings(engine_max_bytes=400_000)
    try:
        await ensure_streams(bus.js, settings)
        await bus.store("engine.outcome.a.before.0", b"done")
        await bus.store("engine.action.a.waits.0", b"task")
        await bus.store("engine.outcome.a.waits.0", b"retrying")
        for number in range(80):
            await bus.store(f"engine.firing.a.f{number}", b"x" * 4000)
            await bus.store(f"engine.outcome.a.f{number}.0", b"done")
        assert await make_room_in_engine(bus.client, settings, needed_from=1 << 62) > 10
        kept = (await bus.js.stream_info("ENGINE", subjects_filter=">")).state.subjects or {}
        assert "engine.outcome.a.before.0" not in kept
        assert "engine.outcome.a.waits.0" in kept
        assert "engine.firing.a.f0" not in kept
        assert "engine.firing.a.f79" in kept
        assert "engine.outcome.a.f0.0" in kept
    finally:
        await bus.close()


async def test_lines_of_runs_keep_to_their_size_and_the_newest_stay(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    script = "for n in range(3000): print(n, 'x' * 500)"
    command = f'["{sys.executable}", -c, "{script}"]'
    (rules / "rules.yaml").write_text(f"deployments:\n  - {{name: chatty, command: {command}}}\n")
    settings = load_settings({"data_dir": tmp_path / "data", "port": 0, "retain_logs_bytes": 300_000})
    async with Server(settings, rules) as server, plain_async_client(base_url=server.address) as client:
        run = (await client.post("/api/deployments/chatty/run", json={})).json()["id"]

        async def ended() -> bool:
            return bool((await client.get(f"/api/runs/{run}")).json()["state"] == "Completed")

        await until(ended)
        state = (await server.bus.js.stream_info("LOGS")).state
        assert 0 < state.bytes <= 300_000
        lines = (await client.get(f"/api/runs/{run}/logs", params={"limit": 1000})).json()["lines"]
        assert lines[-1]["text"].startswith("2999 ")
        assert int(lines[0]["text"].split()[0]) > 1000


async def test_a_full_stream_refuses_new_events_and_keeps_the_unread_ones(nats_server: NatsServer) -> None:
    bus = Bus(nats_server.url)
    await bus.connect()
    settings = StreamSettings(events_max_bytes=200_000)
    try:
        await ensure_streams(bus.js, settings)
        await ensure_flow_stores(bus.js)
        metrics = Metrics(version="test")
        maintenance = _maintenance(bus, metrics, settings)
        stored = 0
        with pytest.raises(BusUnavailable) as refused:  # noqa: PT012 - how many fit is the server's business
            for number in range(1000):
                await bus.publish(event(number, size=4000))
                stored += 1
        assert refused.value.reason == BusReason.FULL
        assert (await bus.event_at(1)) is not None
        await maintenance.check(datetime.now(UTC))
        assert (await bus.js.stream_info("EVENTS")).state.messages == stored
        assert metrics.registry.get_sample_value("whenthen_stream_bytes", {"stream": "EVENTS"}) > 160_000
    finally:
        await bus.close()


async def test_events_that_wait_too_long_are_told_before_they_expire(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    bus = Bus(nats_server.url)
    await bus.connect()
    settings = StreamSettings(events_max_age=timedelta(hours=1))
    try:
        await ensure_streams(bus.js, settings)
        await ensure_flow_stores(bus.js)
        metrics = Metrics(version="test")
        maintenance = _maintenance(bus, metrics, settings)
        now = datetime.now(UTC)
        await maintenance.check(now)
        assert metrics.registry.get_sample_value("whenthen_events_unread_age_share") == 0
        await bus.publish(event())
        with caplog.at_level(logging.ERROR):
            await maintenance.check(now + timedelta(minutes=30))
            assert not caplog.records
            await maintenance.check(now + timedelta(minutes=54))
            await maintenance.check(now + timedelta(minutes=55))
        share = metrics.registry.get_sample_value("whenthen_events_unread_age_share")
        assert share == pytest.approx(55 / 60, abs=0.02)
        assert len(caplog.records) == 1
        assert "will expire unread" in caplog.text
    finally:
        await bus.close()


async def test_action_tasks_that_wait_are_counted_once_an_executor_has_made_its_consumer(
    nats_server: NatsServer,
) -> None:
    bus = Bus(nats_server.url)
    await bus.connect()
    settings = StreamSettings()
    try:
        await ensure_streams(bus.js, settings)
        await ensure_flow_stores(bus.js)
        metrics = Metrics(version="test")
        maintenance = _maintenance(bus, metrics, settings, DeadLetters(bus.client, outcome_ttl_s=60))
        await bus.store("engine.action.a.f.0", b"task")
        await bus.store("engine.action.a.f.1", b"task")
        await maintenance.check(datetime.now(UTC))
        assert metrics.registry.get_sample_value("whenthen_actions_waiting") == 0
        config = ConsumerConfig(filter_subject="engine.action.>", ack_policy=AckPolicy.EXPLICIT)
        await bus.js.add_consumer("ENGINE", config, durable_name=CONSUMER)
        await maintenance.check(datetime.now(UTC))
        assert metrics.registry.get_sample_value("whenthen_actions_waiting") == 2
    finally:
        await bus.close()


def test_the_share_of_its_time_is_that_of_the_oldest_unread_event() -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    assert unread_share(None, now=now, max_age_s=60) == 0
    assert unread_share(now - timedelta(seconds=30), now=now, max_age_s=60) == 0.5
    assert unread_share(now + timedelta(seconds=1), now=now, max_age_s=60) == 0
    assert unread_share(now, now=now, max_age_s=0) == 0


def _maintenance(
    bus: Bus, metrics: Metrics, settings: StreamSettings, dead_letters: DeadLetters | None = None
) -> Maintenance:
    return Maintenance(
        bus.js, bus.client, metrics=metrics, settings=settings, shards=1, dead_letters=dead_letters, automations=list
    )
