"""Which document stands at a public address? Keys and certificates of webhooks, and calls that confirm subscriptions.

Called by `intake` with addresses of the rules, or at Amazon's own hosts. A failure is logged and gives nothing; the sender repeats its request.
"""

from __future__ import annotations

import asyncio
import logging

import httpx

__all__ = ["PublicFetch"]

log = logging.getLogger(__name__)

FETCH_S = 10.0  #: for one document
MOST_CALLS = 20  #: at one time; more are left out, as their senders ask again
MOST_BYTES = 64 * 1024  #: of a document; the rest is not read


class PublicFetch:
    """Fetches by GET over https; no redirect is followed. `transport` is for tests."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._running: dict[str, asyncio.Task[bytes | None]] = {}

    async def document(self, url: str) -> bytes | None:
        """What stands at the address; None when it can not be had. Requests that come together wait for one fetch."""
        running = self._running.get(url)
        if running is None:
            running = self._start(url, url)
        return None if running is None else await asyncio.shield(running)

    def call(self, url: str, what: str) -> None:
        """Call the address once, in the background. `what` is said when it is done."""
        task = self._start(url, what)
        if task is not None:
            task.add_done_callback(lambda done: _tell(done, what))

    def _start(self, url: str, what: str) -> asyncio.Task[bytes | None] | None:
        if len(self._running) >= MOST_CALLS:
            log.warning("%s: not fetched, as %d others are", what, MOST_CALLS)
            return None
        task = asyncio.get_running_loop().create_task(self._get(url))
        self._running[url] = task
        task.add_done_callback(lambda _: self._running.pop(url, None))
        return task

    async def _get(self, url: str) -> bytes | None:
        shown = url.partition("?")[0]  # what follows may be a token
        try:
            async with (
                asyncio.timeout(FETCH_S),
                httpx.AsyncClient(transport=self._transport, follow_redirects=False) as client,
                client.stream("GET", url) as answer,
            ):
                body = bytearray()
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        break
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            log.warning("%s can not be read: %s", shown, str(error) or f"no answer within {FETCH_S:.0f} s")
            return None
        if answer.status_code != 200 or len(body) > MOST_BYTES:
            log.warning("%s can not be read: status %d, %d bytes", shown, answer.status_code, len(body))
            return None
        return bytes(body)


def _tell(done: asyncio.Task[bytes | None], what: str) -> None:
    if not done.cancelled() and done.exception() is None and done.result() is not None:
        log.info("%s: done", what)
