"""Queries that read much of the log: a few run at one time, some wait, the others are told to come again."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from http_fakes import ANSWERS, FakeApi, app_over, client_of

from tests.patience import limit
from whenthen.engine.http.long_queries import AT_ONCE, MOST_WAITING

PATHS = ("/api/why?automation=a&event=e", "/api/trace/e", "/api/record?firing=f")


class SlowApi(FakeApi):
    """Its long queries end when they may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_end = asyncio.Event()
        self.running = self.most = 0

    async def _slow(self, name: str) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.may_end.wait()
        finally:
            self.running -= 1
        return ANSWERS[name]

    async def why(self, *_: Any, **__: Any) -> Any:
        return await self._slow("why")

    async def trace(self, *_: Any, **__: Any) -> Any:
        return await self._slow("trace")

    async def record(self, *_: Any, **__: Any) -> Any:
        return await self._slow("record")


async def until_begun(api: SlowApi) -> None:
    async with asyncio.timeout(limit(10)):
        while api.running < AT_ONCE:
            await asyncio.sleep(0)


@pytest.mark.takes(0.8)
@pytest.mark.parametrize("path", PATHS)
def test_of_many_long_queries_a_few_run_some_wait_and_the_others_are_refused(path: str) -> None:
    async def run() -> tuple[list[httpx.Response], int]:
        api = SlowApi()
        async with client_of(app_over(api)) as client:
            asked = [asyncio.ensure_future(client.get(path)) for _ in range(AT_ONCE + MOST_WAITING + 3)]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            await until_begun(api)
            api.may_end.set()
            return await asyncio.gather(*asked), api.most

    responses, most = asyncio.run(run())
    refused = [response for response in responses if response.status_code != 200]
    assert most == AT_ONCE
    assert len(refused) == 3
    for response in refused:
        assert response.status_code == 503
        assert response.headers["retry-after"] == "2"
        assert response.json()["error"]["reason"] == "busy"


def test_other_requests_are_answered_while_long_queries_run() -> None:
    async def run() -> int:
        api = SlowApi()
        async with client_of(app_over(api)) as client:
            asked = [asyncio.ensure_future(client.get(path)) for path in PATHS]
            await until_begun(api)
            status = (await client.get("/api/deployments")).status_code
            api.may_end.set()
            await asyncio.gather(*asked)
        return status

    assert asyncio.run(run()) == 200


def test_pages_wait_for_their_turn_with_the_others() -> None:
    pages = ("/why?automation=a&event=e", "/trace?id=e", "/recorded?firing=f")

    async def run() -> list[httpx.Response]:
        api = SlowApi()
        async with client_of(app_over(api)) as client:
            asked = [asyncio.ensure_future(client.get(PATHS[0])) for _ in range(AT_ONCE + MOST_WAITING)]
            await until_begun(api)
            refused = [await client.get(page) for page in pages]
            api.may_end.set()
            await asyncio.gather(*asked)
        return refused

    for answer in asyncio.run(run()):
        assert answer.status_code == 503
        assert "try again later" in answer.text


def test_a_turn_is_free_again_after_a_query_that_failed_or_was_given_up() -> None:
    async def run() -> int:
        api = SlowApi()
        async with client_of(app_over(api)) as client:
            asked = [asyncio.ensure_future(client.get(PATHS[0])) for _ in range(AT_ONCE + MOST_WAITING)]
            await until_begun(api)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            api.may_end.set()
            return (await client.get(PATHS[0])).status_code

    assert asyncio.run(run()) == 200
