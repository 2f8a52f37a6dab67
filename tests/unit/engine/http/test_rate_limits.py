"""How often one source may call a webhook."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from datetime import timedelta
from typing import Any

import httpx
import pytest
from http_fakes import FakeApi, app_over
from pydantic import ValidationError

from whenthen.engine.http import rate_limits as module
from whenthen.engine.http.answers import HttpError
from whenthen.engine.http.rate_limits import RateLimits, source_of
from whenthen.schemas.webhooks import RateLimit, Webhook

LIMIT = RateLimit(10, timedelta(seconds=5))
PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def scope(address: str, *forwarded: str) -> dict[str, Any]:
    return {"client": (address, 1), "headers": [(b"x-forwarded-for", value.encode()) for value in forwarded]}


def taken(
    limits: RateLimits, times: int, address: str = "1.1.1.1", webhook: str = "w", limit: RateLimit = LIMIT
) -> int:
    count = 0
    refused = set()
    for _ in range(times):
        try:
            limits.check(webhook, limit, scope(address))
            count += 1
        except HttpError as error:
            refused.add((error.status, error.reason, error.headers[0][0]))
    assert refused <= {(429, "rate_limited", b"retry-after")}
    return count


def test_a_burst_of_the_whole_number_is_taken_and_then_one_in_each_part_of_the_window() -> None:
    clock = Clock()
    limits = RateLimits(clock=clock)
    assert taken(limits, 30) == 10
    clock.now += 0.49
    assert taken(limits, 5) == 0
    clock.now += 0.02
    assert taken(limits, 5) == 1
    clock.now += 5.1
    assert taken(limits, 30) == 10


def test_what_is_counted_beyond_the_limit_is_no_more_than_all_of_it() -> None:
    clock = Clock()
    limits = RateLimits(clock=clock)
    for _ in range(1000):
        limits.count("w", LIMIT, scope("1.1.1.1"))
    assert taken(limits, 5) == 0
    clock.now += 5.1
    assert taken(limits, 30) == 10


def test_requests_that_are_refused_do_not_count_and_the_wait_is_told() -> None:
    clock = Clock()
    limits = RateLimits(clock=clock)
    assert taken(limits, 1000) == 10
    with pytest.raises(HttpError, match="more than 10/5s from this address; send again in 1 seconds"):
        limits.check("w", LIMIT, scope("1.1.1.1"))
    day = RateLimit(1, timedelta(days=1))
    limits.check("w", day, scope("1.1.1.1"))
    with pytest.raises(HttpError) as found:
        limits.check("w", day, scope("1.1.1.1"))
    assert found.value.headers == ((b"retry-after", b"86400"),)


def test_sources_and_webhooks_are_counted_apart() -> None:
    limits = RateLimits(clock=Clock())
    assert [taken(limits, 20, f"1.1.1.{number}") for number in range(5)] == [10] * 5
    assert taken(limits, 20, webhook="other") == 10
    assert taken(limits, 20, limit=RateLimit(3, timedelta(seconds=5))) == 3


def test_the_memory_of_sources_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SOURCES", 100)
    limits = RateLimits(clock=Clock())
    for number in range(1000):
        taken(limits, 1, f"1.1.{number // 250}.{number % 250}")
    assert len(limits._used) == 100


@pytest.mark.parametrize(
    ("address", "forwarded", "source"),
    [
        ("1.2.3.4", ["9.9.9.9"], "1.2.3.4"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["6.6.6.6, 9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["6.6.6.6", "9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["6.6.6.6, 9.9.9.9, 10.0.0.2"], "9.9.9.9"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["nonsense, 10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["9" * 10_000], "10.0.0.1"),
        ("10.0.0.1", ["::ffff:9.9.9.9%" + "z" * 100], "9.9.9.9"),
        ("10.0.0.1", ["0000:0000:0000:0000:0000:ffff:192.168.100.228"], "192.168.100.228"),
        ("::ffff:1.2.3.4", [], "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::/64"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::/64"),
    ],
)
def test_the_source_is_the_last_address_that_no_trusted_proxy_has(
    address: str, forwarded: list[str], source: str
) -> None:
    assert source_of(scope(address, *forwarded), PROXIES) == source


def test_a_connection_without_an_address_has_a_source_of_its_own() -> None:
    assert source_of({"client": None, "headers": []}, PROXIES) == "an unknown address"


def test_a_webhook_answers_429_and_counts_it(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        api = FakeApi(limit=RateLimit(2, timedelta(minutes=1)))
        transport = httpx.ASGITransport(app_over(api), client=("1.2.3.4", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            found = [
                await client.post("/hooks/orders", json={"number": 1}, headers={"x-token": "right"}) for _ in range(4)
            ]
        assert [answer.status_code for answer in found] == [202, 202, 429, 429]
        assert 1 <= int(found[2].headers["retry-after"]) <= 30
        assert len(api.order) == 2
        assert api.registry.events_refused.labels("webhook:orders", "rate_limited")._value.get() == 2
        (line,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
        assert line.startswith(
            "webhook orders: a request from 1.2.3.4 is refused (429 rate_limited): more than 2/1m from this address"
        )

    asyncio.run(work())


@pytest.mark.parametrize(
    ("written", "read"),
    [("100/1m", RateLimit(100, timedelta(minutes=1))), ("1/1s", RateLimit(1, timedelta(seconds=1)))],
)
def test_a_rate_is_read_and_written_back(written: str, read: RateLimit) -> None:
    hook = Webhook.model_validate({"name": "w", "preset": "s3", "verify": "none", "rate_limit": written})
    assert hook.rate_limit == read
    assert hook.model_dump(mode="json")["rate_limit"] == written
    assert Webhook.model_validate(hook.model_dump(mode="json")) == hook


@pytest.mark.parametrize(
    "written", ["", "100", "0/1m", "-1/1m", "1e3/1m", "9999999999/1m", "5/0s", "5/2d", "5/x", 5, [], "5/1m/1"]
)
def test_what_is_no_rate_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        Webhook.model_validate({"name": "w", "preset": "s3", "verify": "none", "rate_limit": written})
