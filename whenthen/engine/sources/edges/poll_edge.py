"""An address that is asked again and again, for those who send nothing: only what is new in its answer becomes events.

What was in the answers before is remembered by the ids of the events, so that a process that takes over reports nothing twice. An answer
that does not fit the mapping is kept aside once, and asked for again at the next time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from whenthen.engine.sources.edges.feeds import read_feed
from whenthen.engine.sources.message_intake import MessageIntake, SourceTrouble
from whenthen.engine.sources.source_state import SourceState
from whenthen.schemas.base import REFERENCE
from whenthen.schemas.event_sources import PollReading
from whenthen.schemas.events import Event
from whenthen.sources.readings import SourceMessage

__all__ = ["PollEdge"]

log = logging.getLogger(__name__)

MAX_BYTES = 16_000_000  #: of an answer
MAX_SEEN = 10_000  #: ids that are remembered, beside those of the last answer: 16 bytes each
MAX_RETRY_AFTER_S = 86400.0
MAX_VALIDATOR = 1024  #: characters of an ETag or a date that is sent back
MAX_PAUSE_S = 30.0  #: to which the pauses grow while it can not be asked, unless it is asked less often anyway


class PollEdge:
    def __init__(
        self,
        reading: PollReading,
        state: SourceState,
        *,
        resolve_secret: Callable[[str], str],
        meaning: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reading = reading
        self._state = state
        self._resolve_secret = resolve_secret
        self._meaning = meaning  #: changes with the mapping: an answer is then asked for in whole again
        self._clock = clock
        self._refused = b""  #: the digest of the last answer that was kept aside
        self._first: dict[str, Any] = {}  #: what is remembered until it could be stored once

    async def run(self, intake: MessageIntake) -> None:
        """Ask until it is cancelled. Called again after it failed.

        An address that can not be asked, or answers with an error, is trouble, and asked again at the next time.
        """
        every_s = self._reading.every.total_seconds()
        memory: dict[str, Any] = await self._state.load("poll") or self._first
        if memory.get("meaning") != self._meaning:
            memory.update(meaning=self._meaning, etag=None, modified=None)
            if (
                memory.get("wait", 0.0) <= every_s
            ):  # a new mapping is tried out at once, unless the address wants to be left alone
                memory.pop("next", None)
        failed = 0  #: in a row
        timeout = httpx.Timeout(self._reading.timeout.total_seconds())
        async with httpx.AsyncClient(timeout=timeout, follow_redirects=False) as client:
            while True:
                # the last time may be another process's, whose clock may be another one: it never lets wait for more than `every`
                wait_s = min(max(memory.get("next", 0.0) - self._clock(), 0.0), max(every_s, memory.get("wait", 0.0)))
                await asyncio.sleep(wait_s)
                pause_s = max(every_s, min(2.0**failed, MAX_PAUSE_S) if failed else 0.0)
                memory.update(next=self._clock() + pause_s, wait=pause_s)
                trouble = await self._ask(client, memory, intake)
                await self._state.save("poll", memory)
                self._first = {}
                if not trouble:
                    failed = 0
                    intake.reads()
                    continue
                failed = min(failed + 1, 10)
                if intake.watch.in_trouble(trouble):
                    log.warning("%s", trouble)

    async def _ask(self, client: httpx.AsyncClient, memory: dict[str, Any], intake: MessageIntake) -> str:
        """Ask once and publish what is new; gives what was wrong, empty when nothing was."""
        try:
            async with asyncio.timeout(2 * self._reading.timeout.total_seconds()):
                answer, body = await self._get(client, memory)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            return f"{self._reading.url}: {error or type(error).__name__}; it is asked again"
        except UnicodeEncodeError:
            return f"{self._reading.url}: a value of `headers` is no ASCII text; a header can not be sent with it"
        except SourceTrouble as error:
            return str(error)
        if answer.status_code == 304:
            return ""
        if answer.status_code in (429, 503):
            wait_s = _retry_after(answer, self._clock())
            if wait_s:
                memory.update(next=self._clock() + wait_s, wait=wait_s)
        if answer.is_redirect:
            return f"{self._reading.url}: is now at {answer.headers.get('location', '')[:200]}; write that as the `url`"
        if answer.status_code in (401, 403):
            return f"{self._reading.url}: answers {answer.status_code} {answer.reason_phrase}; check the secrets in `headers`"
        if answer.status_code != 200:
            return f"{self._reading.url}: answers {answer.status_code} {answer.reason_phrase}; 200 is expected"
        message = SourceMessage(body=body, headers=_kept(answer), about={"url": self._reading.url}, asked=True)
        if self._reading.format == "feed":
            try:
                # of a large feed this takes seconds
                found = await asyncio.to_thread(read_feed, body, answer.headers.get("content-type", ""))
                message = SourceMessage(body=orjson.dumps(found), about=message.about, asked=True)
            except ValueError as error:
                return f"{self._reading.url}: {error}"
        if not await self._publish_new(message, memory, intake):
            return (
                f"{self._reading.url}: its answer does not fit the mapping; `whenthen sources refused` has the reason"
            )
        memory.update(etag=_sendable(answer, "etag"), modified=_sendable(answer, "last-modified"))
        return ""

    async def _get(self, client: httpx.AsyncClient, memory: dict[str, Any]) -> tuple[httpx.Response, bytes]:
        headers = {
            name: self._resolve_secret(value) if REFERENCE.fullmatch(value) else value
            for name, value in self._reading.headers.items()
        }
        if memory.get("etag"):
            headers["if-none-match"] = memory["etag"]
        if memory.get("modified"):
            headers["if-modified-since"] = memory["modified"]
        async with client.stream("GET", self._reading.url, headers=headers) as answer:
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    raise SourceTrouble(
                        f"{self._reading.url}: its answer has more than {MAX_BYTES} bytes; ask for less"
                    )
        return answer, bytes(body)

    async def _publish_new(self, message: SourceMessage, memory: dict[str, Any], intake: MessageIntake) -> bool:
        digest = hashlib.blake2b(message.body, digest_size=16).digest()
        if digest == self._refused:
            return False
        result = await intake.translate(message)
        if result is None:
            self._refused = digest
            return False
        self._refused = b""
        ids = [_short(event) for event in result.events]
        first = "seen" not in memory
        seen = set(memory.get("seen", ()))
        if not (first and self._reading.existing == "skip"):
            new = [event for event, short in zip(result.events, ids, strict=True) if short not in seen]
            await intake.publish(_oldest_first(new), message)
        current = set(ids)
        memory["seen"] = [*ids, *(short for short in memory.get("seen", ()) if short not in current)][
            : max(MAX_SEEN, len(ids))
        ]
        return True


def _oldest_first(events: list[Event]) -> list[Event]:
    """Lists have the newest first as often as not; events that say when they occurred are published in that order."""
    return sorted(events, key=lambda event: event.time_us)


def _short(event: Event) -> str:
    return hashlib.blake2b(event.id.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _sendable(answer: httpx.Response, name: str) -> str | None:
    """A header that can be sent back: what is no ASCII can not, and a long one is refused by many servers."""
    text = answer.headers.get(name, "")
    return text if text and text.isascii() and len(text) <= MAX_VALIDATOR else None


def _kept(answer: httpx.Response) -> dict[str, str]:
    """The headers that say what the body is."""
    return {name: answer.headers[name] for name in ("content-type", "last-modified", "etag") if name in answer.headers}


def _retry_after(answer: httpx.Response, now: float) -> float:
    text = answer.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return min(float(text[:8]), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    return min(max((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now, 0.0), MAX_RETRY_AFTER_S)
