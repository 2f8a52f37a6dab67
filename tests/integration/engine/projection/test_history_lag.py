"""How far the history is behind the streams, whether somebody projects or nobody can."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.contract.history import history_messages as made
from tests.integration.conftest import bus, nats_server
from tests.integration.engine.projection.test_projection import Decider, holds, projecting, publish
from tests.patience import until
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import EVENTS, StreamSettings, ensure_streams
from whenthen.engine.metrics import Metrics
from whenthen.engine.projection import HistoryLag
from whenthen.history import Database

__all__ = ["bus", "nats_server"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.requires("nats-server"), pytest.mark.takes(10)]


def measuring(bus: Bus, database: Database) -> tuple[HistoryLag, Metrics]:
    metrics = Metrics(version="1")
    return HistoryLag(bus, database, report=metrics.set_history_lag, shards=2), metrics


def behind(lag: HistoryLag) -> dict[str, int]:
    """Messages by stream, those that have none left out."""
    found: dict[str, int] = {}
    for (stream, _), (messages, seconds) in lag.now().items():
        assert bool(messages) == (seconds > 0), (stream, messages, seconds)
        if messages:
            found[stream] = found.get(stream, 0) + messages
    return found


async def test_what_waits_is_counted_and_what_was_never_committed_is_not(bus: Bus, tmp_path: Path) -> None:
    database = Database(tmp_path / "history.db")
    lag, metrics = measuring(bus, database)
    await lag.measure()
    assert behind(lag) == {}
    first, second = Decider(bus, 0), Decider(bus, 1)
    await publish(bus, *(made.event(n) for n in range(30)), *(made.firing(n) for n in range(4)))
    await publish(bus, *(made.outcome(n, "executed", 1, firing=f"firing-{n}") for n in range(3)))
    await first.decide()
    await first.decide()
    await second.decide(phantom=True)  # a process that was killed before its commit
    await lag.measure()
    assert behind(lag) == {"EVENTS": 30, "ENGINE": 7, "DECISIONS": 2}
    assert metrics.registry.get_sample_value("whenthen_history_lag_messages", {"stream": "EVENTS"}) == 30
    async with projecting(bus, database):
        await holds(
            database,
            {
                "events": 30, "firings": 4, "tries": 3, "decisions": 6, "decisions fired": 6, "decisions cooldown": 2000,
                "firings Triggered": 4, "actions executed": 3,
            },
        )  # fmt: skip
    await lag.measure()
    assert behind(lag) == {}
    assert metrics.registry.get_sample_value("whenthen_history_lag_seconds", {"stream": "EVENTS"}) == 0
    await bus.js.delete_stream(EVENTS)
    await ensure_streams(bus.js, StreamSettings())
    await publish(bus, *(made.event(n, id=f"anew-{n}") for n in range(5)))
    await lag.measure()
    assert behind(lag) == {"EVENTS": 5}, "nothing of a stream that was made again is there"
    database.close()


async def test_what_comes_while_the_database_is_locked_is_counted_and_written_afterwards(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whenthen.history.database.BUSY_S", 0.05)
    database = Database(tmp_path / "history.db")
    lag, _ = measuring(bus, database)
    await publish(bus, *(made.event(n) for n in range(20)))
    async with projecting(bus, database):
        await holds(database, {"events": 20})
        other = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for turn in range(3):
            await publish(bus, *(made.event(20 + 1500 * turn + n) for n in range(1500)))
            await lag.measure()
            assert behind(lag) == {"EVENTS": 1500 * (turn + 1)}
        other.execute("ROLLBACK")
        other.close()

        async def none() -> bool:
            await lag.measure()
            return not behind(lag)

        await until(none, within_s=60)
        await holds(database, {"events": 4520})
    database.close()


async def test_a_database_that_can_not_be_read_has_nothing_for_certain(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"no database " * 1000)
    lag, _ = measuring(bus, Database(tmp_path / "history.db"))
    await publish(bus, *(made.event(n) for n in range(3)))
    await lag.measure()
    assert behind(lag) == {"EVENTS": 3}
