"""What came to a webhook, as any process that answers requests tells it: of all of them together, of those that live."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import NatsServer
from tests.patience import until
from tests.plain_http import plain_async_client
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import SENDERS, StreamSettings, ensure_streams
from whenthen.engine.process.roles import Role
from whenthen.engine.process.senders import sender_watch, webhook_reports
from whenthen.engine.process.senders.webhook_reports import WebhookCounts, WebhookReports
from whenthen.engine.process.server import Server
from whenthen.engine.process.settings import load_settings

pytestmark = pytest.mark.anyio

RULES = """
webhooks:
  - {name: shop, verify: {type: bearer, token: env:SHOP_TOKEN}, map: {event: order.paid, resource: {id: "order.{{ body.n }}"}}}
  - {name: silent, verify: {type: bearer, token: env:SHOP_TOKEN}, map: {event: x, resource: {id: y}}}
"""


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "planted-token-value")
    monkeypatch.setattr(sender_watch, "REPORT_EVERY_S", 0.1)


def _put(folder: Path) -> None:
    folder.mkdir()
    (folder / "rules.yaml").write_text(RULES)


@asynccontextmanager
async def front(folder: Path, nats_server: NatsServer) -> AsyncIterator[httpx.AsyncClient]:
    """A process that only answers requests."""
    _put(folder)
    settings = load_settings({"data_dir": folder / "data", "port": 0, "nats_url": nats_server.url})
    async with (
        Server(settings, folder / "rules.yaml", roles=(Role.API,)) as server,
        plain_async_client(base_url=server.address, timeout=60) as client,
    ):
        yield client


async def send(client: httpx.AsyncClient, number: int, token: str = "planted-token-value") -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return (await client.post("/hooks/shop", json={"n": number}, headers=headers)).status_code


async def said(client: httpx.AsyncClient) -> dict[str, tuple[int, dict[str, int], str | None]]:
    """What is taken and refused, and when each was heard, by webhook."""
    found: list[dict[str, Any]] = (await client.get("/api/sources")).raise_for_status().json()
    return {each["name"]: (each["taken"], each["refused"], each["last_heard"]) for each in found}


async def says(client: httpx.AsyncClient, taken: int, refused: dict[str, int]) -> None:
    async def it_does() -> bool:
        found = await said(client)
        return found["shop"][:2] == (taken, refused) and found["silent"] == (0, {}, None)

    await until(it_does, what=f"{taken} taken, {refused} refused")


@pytest.mark.usefixtures("often")
async def test_each_process_tells_what_came_to_all_of_them(tmp_path: Path, nats_server: NatsServer) -> None:
    async with front(tmp_path / "one", nats_server) as one:
        async with front(tmp_path / "two", nats_server) as two:
            for number in range(3):
                assert await send(one, number) == 202
            assert await send(two, 3) == 202
            assert await send(one, 4, token="wrong") == 403
            assert await send(two, 5, token="wrong") == 403
            assert (await two.post("/hooks/shop", json={"n": 6})).status_code == 401
            for client in (one, two):
                await says(client, 4, {"proof_wrong": 2, "proof_missing": 1})

            async def alike() -> bool:  # to when it was heard
                return await said(one) == await said(two)

            await until(alike)
            assert await send(two, 7) == 202
            for client in (one, two):
                await says(client, 5, {"proof_wrong": 2, "proof_missing": 1})
        await says(one, 3, {"proof_wrong": 1})  # the other ended


@pytest.mark.usefixtures("often")
async def test_what_a_process_that_died_counted_is_told_no_more_and_forgotten(
    tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = Bus(nats_server.url)
    async with front(tmp_path / "one", nats_server) as one:
        await bus.connect()
        dead = WebhookReports(bus, member="dead")
        counts = WebhookCounts(taken=7, heard="2026-01-31T08:00:00Z")
        counts.refused["proof_wrong"] = 2
        await dead.store({"shop": counts, "gone": WebhookCounts(taken=1)}, 0.0)
        assert await send(one, 1) == 202
        await says(one, 8, {"proof_wrong": 2})
        monkeypatch.setattr(webhook_reports, "ALIVE_S", 0.0)
        await says(one, 1, {})
        other = WebhookReports(bus, member="other")
        monkeypatch.setattr(webhook_reports, "FORGOTTEN_S", 0.0)
        await other.forget_dead()
        monkeypatch.undo()
        assert "gone" not in await other.others()
    await bus.close()


async def test_a_report_is_stored_when_it_says_something_new_or_grows_old(nats_server: NatsServer) -> None:
    bus = Bus(nats_server.url)
    await bus.connect()
    await ensure_streams(bus.js, StreamSettings())
    reports, counts = WebhookReports(bus, member="one"), {"shop": WebhookCounts(taken=1)}

    async def stored() -> int:
        return int((await bus.js.stream_info(SENDERS)).state.last_seq)

    await reports.leave()  # of which nobody heard
    await reports.store({}, 0.0)
    assert await stored() == 0
    for now, number in ((0.0, 1), (5.0, 1), (11.0, 2), (12.0, 2)):
        await reports.store(counts, now)
        assert await stored() == number
    counts["shop"].taken += 1
    await reports.store(counts, 13.0)
    assert await stored() == 3
    many = {
        f"hook-{number}-{'x' * 2000}": WebhookCounts(taken=number) for number in range(webhook_reports.MOST_WEBHOOKS)
    }
    await reports.store(many, 14.0)
    other = WebhookReports(bus, member="other")
    kept = await other.others()
    assert min(each.taken for each in kept.values()) == len(many) - len(kept) > 0  # those that most comes to
    await reports.leave()
    assert await other.others() == {}
    await bus.close()
