"""Wrong tokens are counted by the address that offers them, and lock out nobody who has a right one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from http_fakes import FakeApi, app_over

from whenthen.engine.access import AccessControl, AccessScope, AccessStore, Grant, MemoryBucket
from whenthen.engine.http.access import wrong_tokens as module
from whenthen.engine.http.access.wrong_tokens import WRONG, WrongTokens
from whenthen.engine.http.answers import HttpError
from whenthen.engine.http.rate_limits import RateLimits

pytestmark = pytest.mark.anyio

OWN = "t" * 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a test takes, no part of the minute passes."""
    monkeypatch.setattr("whenthen.engine.http.app.RateLimits", standing)


def standing(*proxies: Any) -> RateLimits:
    return RateLimits(*proxies, clock=lambda: 100.0)


class CountingAccess(AccessControl):
    """Counts what is looked up."""

    looked_up = 0

    async def by_token(self, value: str) -> Grant:
        self.looked_up += 1
        return await super().by_token(value)


class Door:
    def __init__(self) -> None:
        self.api = FakeApi()
        self.access = CountingAccess(AccessStore(MemoryBucket(), MemoryBucket()), token=OWN)
        self.app = app_over(self.api, access=self.access)

    async def ask(self, token: str, address: str = "192.0.2.1", path: str = "/api/status") -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, headers={"authorization": f"Bearer {token}"})

    async def guess(self, times: int, address: str = "192.0.2.1") -> list[int]:
        return [(await self.ask(f"wrong-{number}", address)).status_code for number in range(times)]


async def test_an_address_that_offered_too_many_wrong_tokens_is_refused_without_a_look() -> None:
    door = Door()
    statuses = await door.guess(WRONG.count + 20)
    assert statuses == [401] * WRONG.count + [429] * 20
    assert door.access.looked_up == WRONG.count
    refused = await door.ask("wrong")
    assert refused.json()["error"]["reason"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 2
    assert [reason for _, reason, _, _ in door.api.refusals][-1] == "rate_limited"


async def test_a_right_token_is_taken_from_every_other_address_and_where_it_was_right_before() -> None:
    door = Door()
    _, named = await door.access.create_token("reads", [AccessScope.READ])
    assert (await door.ask(named)).status_code == 200
    await door.guess(WRONG.count)
    assert (await door.ask(named)).status_code == 200
    assert (await door.ask(OWN)).status_code == 429  # nobody can tell it from a guess
    assert (await door.ask(OWN, "192.0.2.2")).status_code == 200
    await door.access.revoke_token("reads")
    assert [(await door.ask(named)).status_code for _ in range(2)] == [401, 429]


async def test_right_tokens_are_never_counted() -> None:
    door = Door()
    assert {(await door.ask(OWN)).status_code for _ in range(2 * WRONG.count)} == {200}


def scope(address: str) -> dict[str, Any]:
    return {"client": (address, 1), "headers": []}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_RIGHT", 3)
    tokens = WrongTokens(standing())
    for number in range(10):
        tokens.right(tokens.check(f"token-{number}", scope("192.0.2.1")))
    for number in range(WRONG.count):
        tokens.wrong(tokens.check(f"wrong-{number}", scope("192.0.2.1")), scope("192.0.2.1"))
    for number in range(7, 10):
        tokens.check(f"token-{number}", scope("192.0.2.1"))
    with pytest.raises(HttpError):
        tokens.check("token-6", scope("192.0.2.1"))
