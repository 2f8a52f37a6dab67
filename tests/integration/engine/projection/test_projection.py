"""The streams of a real nats-server in the history: nothing is lost and nothing doubled, whatever is killed or made again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import sqlite3
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa

from tests.contract.history import history_messages as made
from tests.integration.conftest import NatsServer, bus, nats_server
from tests.patience import until
from tests.postgres import postgres
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.records import Offset
from whenthen.engine.bus.stream_pages import newest
from whenthen.engine.bus.streams import EVENTS, StreamSettings, ensure_streams
from whenthen.engine.bus.subjects import decisions_subject, offset_subject
from whenthen.engine.process.queries.stored_events import event_fields
from whenthen.engine.projection import PROJECTED, DecisionProjector, HistoryWriter, StreamProjector
from whenthen.history import Database, HistoryQuery, HistoryReader, Keep, read_stats
from whenthen.history.history_tables import decisions, events, firings, tallies, tries

__all__ = ["bus", "nats_server"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.requires("nats-server"), pytest.mark.takes(15)]

SCRIPT = Path(__file__).parent / "projector_process.py"
ROOT = Path(__file__).parents[4]


@contextlib.asynccontextmanager
async def projecting(bus: Bus, database: Database, *, shards: int = 2) -> AsyncIterator[None]:
    """Project in this process."""
    writer = HistoryWriter(database, Keep())
    projectors = [StreamProjector(bus.client, writer, stream) for stream in PROJECTED]
    tasks = [asyncio.create_task(each.run()) for each in projectors]
    tasks.append(asyncio.create_task(DecisionProjector(bus, writer, shards=shards).run()))
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()


async def publish(bus: Bus, *messages: made.Message) -> None:
    await asyncio.gather(*(bus.store(each.subject, each.data) for each in messages))


def batch(shard: int, prev: int, fired: int, *, name: str | None = None) -> bytes:
    rows = [
        [0, "", "fired", n, f"event-{n}", made.START_US, "", "", f"firing-{shard}-{prev}-{n}"] for n in range(fired)
    ]
    counts = [[0, "fired", fired], [0, "cooldown", 1000]]
    head = {
        "batch": name or uuid.uuid4().hex,
        "prev": prev,
        "part": 0,
        "parts": 1,
        "shard": shard,
        "writer": "w",
        "rules": 1,
    }
    return orjson.dumps(
        {**head, "after": prev, "seq": prev + 1, "automations": ["ship"], "counts": counts, "rows": rows}
    )


class Decider:
    """Writes batches as a shard does: each before its commit, and some that are never committed."""

    def __init__(self, bus: Bus, shard: int) -> None:
        self.bus, self.shard, self.head, self.committed = bus, shard, 0, 0

    async def decide(self, *, phantom: bool = False) -> None:
        stored = await self.bus.store(decisions_subject(self.shard), batch(self.shard, self.head, 3))
        if not phantom:
            self.head = stored.seq
            self.committed += 1
            offset = Offset(seq=self.committed, decisions=self.head)
            await self.bus.store(offset_subject(self.shard), offset.encode())


def counted(database: Database) -> dict[str, int]:
    """Rows, and what the tallies say of the same."""
    with database.reading() as connection:
        found = {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in (events, decisions, firings, tries)
        }
        for kind, second, total in connection.execute(
            sa.select(tallies.c.kind, tallies.c.second, sa.func.sum(tallies.c.count))
            .where(tallies.c.level == sa.case((tallies.c.kind == "events", 0), else_=2))
            .group_by(tallies.c.kind, tallies.c.second)
        ):
            found[f"{kind} {second}".strip()] = int(total)
    return {name: count for name, count in found.items() if count}


async def holds(database: Database, expected: dict[str, int]) -> None:
    seen: dict[str, int] = {}

    async def all_there() -> bool:
        nonlocal seen
        seen = await asyncio.to_thread(counted, database)
        return seen == expected

    try:
        await until(all_there, within_s=20)
    except AssertionError:
        assert seen == expected
        raise


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.requires("postgresql"))])
@pytest.mark.takes(40)
async def test_killed_projectors_two_at_once_lose_and_double_nothing(
    bus: Bus, nats_server: NatsServer, tmp_path: Path, kind: str
) -> None:
    with contextlib.ExitStack() as cleanup:
        where = str(tmp_path / "history.db")
        if kind == "postgresql":
            where = cleanup.enter_context(postgres()).database("history")
        words = [sys.executable, str(SCRIPT), nats_server.url, where]
        log = cleanup.enter_context((tmp_path / "log").open("wb"))
        drawn = random.Random(7)
        running: list[subprocess.Popen[bytes]] = []

        def start() -> None:
            running.append(subprocess.Popen(words, cwd=ROOT, stderr=log))

        def kill(index: int) -> None:
            one = running.pop(index)
            one.kill()
            one.wait()

        cleanup.callback(lambda: [kill(0) for _ in list(running)])
        deciders = [Decider(bus, 0), Decider(bus, 1)]
        published: Counter[str] = Counter()
        database = cleanup.enter_context(contextlib.closing(Database(where if kind != "sqlite" else Path(where))))
        start()
        start()
        for turn in range(12):
            first = turn * 300
            await publish(bus, *(made.event(first + n) for n in range(300)))
            await publish(bus, *(made.firing(first + n) for n in range(50)))
            await publish(
                bus, *(made.outcome(first + n, "executed", 1, firing=f"firing-{first + n}") for n in range(50))
            )
            published.update({"events": 300, "firings": 50, "tries": 50})
            for decider in deciders:
                await decider.decide(phantom=drawn.random() < 0.3)
                await decider.decide()

            async def begun(before: int = first) -> bool:
                return (await asyncio.to_thread(counted, database)).get("events", 0) > before

            if turn % 3 == 0:
                await until(begun, within_s=60)  # so that a kill meets work, and not imports alone
            kill(drawn.randrange(len(running)))
            start()
        batches = sum(decider.committed for decider in deciders)
        expected = {
            **published,
            "decisions": 3 * batches,
            "decisions fired": 3 * batches,
            "decisions cooldown": 1000 * batches,
            "firings Triggered": published["firings"],
            "actions executed": published["tries"],
        }
        await holds(database, expected)


async def test_streams_that_are_made_again_while_they_are_read_add_to_the_history(bus: Bus, tmp_path: Path) -> None:
    database = Database(tmp_path / "history.db")
    async with projecting(bus, database):
        await publish(bus, *(made.event(n) for n in range(50)))
        decider = Decider(bus, 0)
        for _ in range(4):
            await decider.decide()
        expected = {"events": 50, "decisions": 12, "decisions fired": 12, "decisions cooldown": 4000}
        await holds(database, expected)
        for stream in ("EVENTS", "DECISIONS"):
            await bus.js.delete_stream(stream)
        await ensure_streams(bus.js, StreamSettings())
        await publish(bus, *(made.event(n, id=f"anew-{n}") for n in range(80)))
        decider.head = 0
        for _ in range(2):
            await decider.decide()
        await holds(database, {"events": 130, "decisions": 18, "decisions fired": 18, "decisions cooldown": 6000})
        first = HistoryReader(database).page(HistoryQuery(kind="events", limit=1)).rows[0]
        assert first["id"].startswith("anew-")
    database.close()


async def test_a_database_that_is_deleted_while_it_is_written_is_filled_from_the_streams(
    bus: Bus, tmp_path: Path
) -> None:
    database = Database(tmp_path / "history.db")
    async with projecting(bus, database):
        await publish(bus, *(made.event(n) for n in range(50)))
        await holds(database, {"events": 50})
        (tmp_path / "history.db").unlink()
        await publish(bus, *(made.event(50 + n) for n in range(10)))
        await holds(database, {"events": 60})
    database.close()


async def test_a_batch_that_was_never_committed_is_not_there(bus: Bus, tmp_path: Path) -> None:
    database = Database(tmp_path / "history.db")
    decider = Decider(bus, 1)
    async with projecting(bus, database):
        await decider.decide(phantom=True)
        await decider.decide()
        await decider.decide(phantom=True)
        await holds(database, {"decisions": 3, "decisions fired": 3, "decisions cooldown": 1000})
    async with projecting(bus, database):  # another process goes on, and reads the last one again
        await decider.decide()
        await holds(database, {"decisions": 6, "decisions fired": 6, "decisions cooldown": 2000})
    database.close()


async def test_what_came_while_the_database_was_locked_is_written_afterwards_and_said_once(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("whenthen.history.database.BUSY_S", 0.05)
    database = Database(tmp_path / "history.db")
    async with projecting(bus, database):
        await publish(bus, *(made.event(n) for n in range(20)))
        await holds(database, {"events": 20})
        other = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await publish(bus, *(made.event(20 + n) for n in range(20)), *(made.firing(n) for n in range(5)))

        async def said() -> bool:
            return "another program holds a lock on it" in caplog.text

        await until(said)
        other.execute("ROLLBACK")
        other.close()
        await holds(database, {"events": 40, "firings": 5, "firings Triggered": 5})
    assert caplog.text.count("another program holds a lock on it") == 1
    assert "the history is written again" in caplog.text
    database.close()


@pytest.mark.takes(20)
async def test_payloads_of_3_mb_by_the_hundred_are_projected_without_them_and_listed_in_small_pages(
    bus: Bus, tmp_path: Path
) -> None:
    database = Database(tmp_path / "history.db")
    large = "x" * (3 << 20)
    for first in range(0, 120, 10):
        await publish(bus, *(made.event(first + n, payload=large) for n in range(10)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with projecting(bus, database):
        await holds(database, {"events": 120})
    page = HistoryReader(database).page(HistoryQuery(kind="events", limit=1000))
    assert [row["id"] for row in page.rows] == [f"event-{n}" for n in range(119, -1, -1)]
    assert all("payload" not in row and row["payload_bytes"] > 3 << 20 for row in page.rows)
    assert len(orjson.dumps(page.rows)) < 100_000
    assert read_stats(database).bytes < 5_000_000
    # what is read ahead is bounded by bytes, not by messages
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250_000, "KiB"
    database.close()

    client = bus.client
    pages = 0
    place: int | None = None
    seen: list[str] = []
    while len(seen) < 120:
        found = await newest(
            client, EVENTS, "events.>", limit=100, before=place, pick=lambda each: event_fields(each)["id"]
        )
        assert 1 <= len(found) <= 4, "an answer has 8 MiB of events, whatever its limit"
        seen += found
        place = found.next
        pages += 1
    assert seen == [f"event-{n}" for n in range(119, -1, -1)]
    assert pages < 121
