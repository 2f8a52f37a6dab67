"""HTTP clients for servers on loopback, which wait as long as a busy machine may take; httpx itself gives up after 5 seconds.

A server whose NATS does not answer in time says so by 503, and a sender sends it again: so do these. Other answers stay as they are.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx

from tests.patience import limit
from whenthen.engine.bus.request_client import BusReason

__all__ = ["PLAIN", "plain_async_client", "plain_client"]

#: without proxies; and without the authorities of TLS, which a client otherwise reads for 20 ms even where nobody shows a certificate
PLAIN: dict[str, Any] = {"trust_env": False, "verify": False}
ANSWER_S = 30.0  #: the `limit` of the wait for an answer, where a test names no other
BUSY = (BusReason.TIMEOUT, BusReason.BUSY)
AGAIN_S, PAUSE_S = 20.0, 0.2


def plain_client(**options: Any) -> httpx.Client:
    return _Client(**PLAIN, **{"timeout": limit(ANSWER_S), **options})


def plain_async_client(**options: Any) -> httpx.AsyncClient:
    return _AsyncClient(**PLAIN, **{"timeout": limit(ANSWER_S), **options})


class _Client(httpx.Client):
    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        deadline = time.monotonic() + limit(AGAIN_S)
        while True:
            answer = super().send(request, **options)
            if answer.status_code == 503:
                answer.read()
            if not _may_go_again(answer, deadline):
                return answer
            time.sleep(PAUSE_S)


class _AsyncClient(httpx.AsyncClient):
    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        deadline = time.monotonic() + limit(AGAIN_S)
        while True:
            answer = await super().send(request, **options)
            if answer.status_code == 503:
                await answer.aread()
            if not _may_go_again(answer, deadline):
                return answer
            await asyncio.sleep(PAUSE_S)


def _may_go_again(answer: httpx.Response, deadline: float) -> bool:
    """Whether the machine is slow and no more, and the same request can be sent once more."""
    if (
        answer.status_code != 503
        or time.monotonic() > deadline
        or not isinstance(answer.request.stream, httpx.ByteStream)
    ):
        return False
    return any(f'"{reason}"' in answer.text for reason in BUSY)
