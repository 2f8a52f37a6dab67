"""Shortened ids on a real server: runs and dead letters by their subjects, events by what the stream keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.integration.conftest import NatsServer
from whenthen.engine.bus.connection import Bus
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.schemas.errors import Conflict, NotFound
from whenthen.schemas.events import Event, new_event

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
RUN = "e7f447132cef5e9d9bdc7165ad3093f1"


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats", extra="max_payload: 1048576")
    server.start()
    yield server
    server.stop()


def event(event_id: str) -> Event:
    return new_event("customer.created", resource={"id": "customer.7"}, now=NOW, source="api", id=event_id)


async def test_a_run_is_found_among_more_than_one_message_can_hold(bus: Bus) -> None:
    # 30,000 subjects are 1.5 MB of answer; the server's own messages may be larger than those of clients
    ids = [f"{number:08x}" + "0" * 24 for number in range(30_000)]
    for start in range(0, len(ids), 1000):
        await asyncio.gather(*(bus.client.request(f"$KV.WT_runs.{run}", b"{}") for run in ids[start : start + 1000]))
    prefixes = IdPrefixes(bus.client)
    assert await prefixes.run("00001234") == ids[0x1234]
    with pytest.raises(Conflict, match="16 ids: 00001230"):
        await prefixes.run("0000123")
    with pytest.raises(NotFound):
        await prefixes.run("ffffff")


async def test_a_dead_letter_is_found_and_others_of_the_engine_are_not(bus: Bus) -> None:
    for subject in (f"engine.dead.load.{RUN}.0", f"engine.dead.load.{RUN}.1", f"engine.outcome.load.{RUN}.2"):
        await bus.client.request(subject, b"{}")
    prefixes = IdPrefixes(bus.client)
    assert await prefixes.dead_letter("e7f44713.1") == f"{RUN}.1"
    with pytest.raises(NotFound):
        await prefixes.dead_letter("e7f44713.2")
    with pytest.raises(Conflict, match=f"2 ids: {RUN}.0, {RUN}.1"):
        await prefixes.dead_letter("e7f44713")


async def test_an_event_is_found_by_its_exact_id_before_a_beginning(bus: Bus) -> None:
    for event_id in ("signup-1", "signup-10", f"{RUN}-4", f"{RUN}-3"):
        await bus.publish(event(event_id))
    prefixes = IdPrefixes(bus.client)
    assert (await prefixes.event("signup-1"))["id"] == "signup-1"
    assert (await prefixes.event("signup-1"))["seq"] == 1
    assert (await prefixes.event("signup-10…"))["id"] == "signup-10"
    assert (await prefixes.event("e7f44713-3"))["id"] == f"{RUN}-3"
    for text in ("signup-1…", "signup", "e7f44713"):
        with pytest.raises(Conflict, match="2 ids"):
            await prefixes.event(text)
    with pytest.raises(NotFound, match="there is no event 'signup-2'"):
        await prefixes.event("signup-2")
