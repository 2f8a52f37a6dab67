"""The producer: sends each delivery until it has a 2xx, and some of them again, as webhooks' senders do."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import orjson

from tests.chaos.scenario import SECRET, Delivery
from tests.plain_http import PLAIN

__all__ = ["Sender", "Sent"]

_AT_ONCE = 32  #: requests
_BACKLOG = 300  #: deliveries without an answer, above which no further ones are begun


@dataclass(slots=True)
class Sent:
    """What came of the load."""

    taken: set[str] = field(default_factory=set)  #: deliveries that were answered 2xx at least once
    event_ids: set[str] = field(default_factory=set)  #: of the events that came of these
    deliveries: int = 0
    requests: int = 0
    repeated: int = 0  #: deliveries sent again after a 2xx
    retried: int = 0  #: requests sent again because there was no answer, or a 5xx
    refused: list[str] = field(default_factory=list)  #: answers that no retry can mend
    longest_s: float = 0.0  #: from the first try of a delivery to its 2xx, the longest
    gap_s: float = 0.0  #: the longest time in which no request at all was answered 2xx


class Sender:
    """Delivers a scenario to the webhooks of the server at `url`."""

    def __init__(self, url: str, seed: int, *, give_up_s: float = 300.0) -> None:
        self.url = url
        self.sent = Sent()
        self._chance = random.Random(seed)
        self._give_up_s = give_up_s
        self._answered = 0.0
        self._open = 0

    async def run(self, deliveries: Iterable[Delivery], enough: Callable[[], bool]) -> Sent:
        """Send each at its time until it is `enough`; returns when each has its 2xx.

        Raises:
            TimeoutError: a delivery got none within the limit.
        """
        limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
        timeout = httpx.Timeout(5, pool=self._give_up_s)
        async with httpx.AsyncClient(
            **PLAIN, timeout=timeout, limits=limits
        ) as client:  # which repeats nothing by itself
            began = self._answered = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for delivery in deliveries:
                    while self._open > _BACKLOG and not enough():
                        await asyncio.sleep(0.05)  # a producer's own queue has an end, too
                    await asyncio.sleep(max(0.0, began + delivery.at_s - time.monotonic()))
                    if enough():
                        break
                    self.sent.deliveries += 1
                    group.create_task(self._deliver(client, delivery))
        return self.sent

    async def _deliver(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        occurred = datetime.now(UTC) - timedelta(seconds=delivery.lag_s)
        body = orjson.dumps(delivery.body(occurred.isoformat()))
        headers = {
            "Content-Type": "application/json",
            "X-Shop-Delivery": delivery.id,
            "X-Shop-Signature": hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
        }
        twice_at_once = bool(delivery.again_s) and delivery.again_s[0] < 0.5
        if twice_at_once:  # before the first one has its answer
            self.sent.repeated += 1
            await asyncio.gather(*(self._until_taken(client, delivery, body, headers) for _ in range(2)))
        else:
            await self._until_taken(client, delivery, body, headers)
        for again_s in delivery.again_s[int(twice_at_once) :]:
            await asyncio.sleep(again_s)
            self.sent.repeated += 1
            await self._until_taken(client, delivery, body, headers)

    async def _until_taken(
        self, client: httpx.AsyncClient, delivery: Delivery, body: bytes, headers: dict[str, str]
    ) -> None:
        self._open += 1
        try:
            await self._try_until_taken(client, delivery, body, headers)
        finally:
            self._open -= 1

    async def _try_until_taken(
        self, client: httpx.AsyncClient, delivery: Delivery, body: bytes, headers: dict[str, str]
    ) -> None:
        began = time.monotonic()
        while True:
            self.sent.requests += 1
            try:
                answer = await client.post(f"{self.url}/hooks/{delivery.webhook}", content=body, headers=headers)
            except httpx.TransportError:
                answer = None  # whether it was stored is not known
            now = time.monotonic()
            if answer is not None and answer.is_success:
                self.sent.taken.add(delivery.id)
                self.sent.event_ids.update(delivery.event_ids)
                self.sent.longest_s = max(self.sent.longest_s, now - began)
                self.sent.gap_s = max(self.sent.gap_s, now - self._answered)
                self._answered = now
                return
            if answer is not None and answer.status_code < 500:
                self.sent.refused.append(f"{delivery.id}: {answer.status_code} {answer.text[:200]}")
                return
            if now > began + self._give_up_s:
                raise TimeoutError(f"delivery {delivery.id} was not taken within {self._give_up_s:g} s")
            self.sent.retried += 1
            await asyncio.sleep(self._chance.uniform(0.05, 0.4))
