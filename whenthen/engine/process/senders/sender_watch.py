"""Keeps refused requests whose proof held, when each webhook was heard last, and what came to each. One for each process of the role `api`.

Notes are taken without waiting and stored by a task: at most `MOST_WEBHOOK_BYTES` wait, and what NATS does not take is left out with a line.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime

from whenthen.cancellation import wait_event
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.stream_pages import StoredMessage, newest
from whenthen.engine.bus.streams import SENDERS
from whenthen.engine.bus.subjects import heard_subject, refused_subject
from whenthen.engine.http import answer_models as answers
from whenthen.engine.log_lines import one_line
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.process.senders.reader_reports import live_readers
from whenthen.engine.process.senders.sender_records import (
    MOST_WEBHOOK_BYTES,
    RefusedRequest,
    heard_record,
    read_heard,
)
from whenthen.engine.process.senders.source_items import source_item
from whenthen.engine.process.senders.webhook_reports import WebhookCounts, WebhookReports
from whenthen.schemas.errors import BusUnavailable, InvalidInput
from whenthen.schemas.times import format_time, parse_time
from whenthen.sources import Request

__all__ = ["SenderWatch"]

log = logging.getLogger(__name__)

HEARD_EVERY_S = 60.0  #: a webhook that is heard is noted so often
REPORT_EVERY_S = 5.0  #: others are told what came here
LEAVE_S = 2.0  #: that a process that stops waits for its report to be taken away
RETRY_S = 1.0
MOST_SOURCES = 10_000  #: webhooks whose last time is read


class SenderWatch:
    """`redact` takes secrets out of what is kept of a refusal's text."""

    def __init__(
        self,
        bus: Bus,
        rule_registry: RuleRegistry,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime],
        redact: Callable[[str], str] = lambda text: text,
    ) -> None:
        self._bus = bus
        self._rule_registry = rule_registry
        self._metrics = metrics
        self._clock = clock
        self._redact = redact
        self._waiting: deque[RefusedRequest] = deque()
        self._waiting_bytes = 0
        self._left_out = 0
        self._arrived = asyncio.Event()
        self._heard: dict[str, datetime] = {}  #: when each webhook took a request
        self._noted: dict[str, datetime] = {}  #: of those, what is stored
        self._counts: dict[str, WebhookCounts] = {}  #: what came here
        self._reports = WebhookReports(bus, member=uuid.uuid4().hex)

    # -- what happens

    def heard(self, webhook: str) -> None:
        """A webhook took a request."""
        self._counts_of(webhook).taken += 1
        now = self._clock()
        before = self._heard.get(webhook)
        self._heard[webhook] = now
        if before is None or (now - before).total_seconds() > HEARD_EVERY_S:
            self._arrived.set()

    def refused(self, webhook: str, reason: str) -> None:
        """A webhook refused a request."""
        self._counts_of(webhook).refused[reason] += 1

    def keep(self, webhook: str, request: Request, error: InvalidInput) -> None:
        """Keep a refused request whose proof held. Never waits, never fails."""
        translator = self._rule_registry.now.webhooks.get(webhook)
        if translator is None:
            return
        if self._waiting_bytes + len(request.body) > MOST_WEBHOOK_BYTES and self._waiting:
            self._left_out += 1
            return
        kept = RefusedRequest.of(
            request,
            error,
            id=uuid.uuid4().hex,
            webhook=webhook,
            at=format_time(self._clock()),
            detail=one_line(str(error), self._redact)[:500],
            proof=translator.proof_headers,
        )
        self._waiting.append(kept)
        self._waiting_bytes += len(request.body)
        self._arrived.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Store what was noted, until `stop` is set."""
        loop = asyncio.get_running_loop()
        await self.look()
        looked_at = reported_at = loop.time()
        try:
            while not stop.is_set():
                await wait_event(self._arrived, max(0.0, reported_at + REPORT_EVERY_S - loop.time()))
                self._arrived.clear()
                try:
                    await self._store()
                    if loop.time() - reported_at >= REPORT_EVERY_S:
                        await self._report(loop.time())
                        reported_at = loop.time()
                    if loop.time() - looked_at >= HEARD_EVERY_S:
                        await self.look()
                        await self._reports.forget_dead()
                        looked_at = loop.time()
                except BusUnavailable as error:
                    log.debug("what senders sent is not noted yet: %s", error)
                    await asyncio.sleep(RETRY_S)
                    self._arrived.set()
                self._show()
        finally:
            with suppress(BusUnavailable, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self._reports.leave()

    async def look(self) -> None:
        """Read when each webhook was heard last, by any process."""
        for webhook, at in (await self._stored_times()).items():
            self._heard[webhook] = max(at, self._heard.get(webhook, at))
            self._noted[webhook] = at
        self._show()

    def never_heard(self) -> list[str]:
        """The webhooks in force that took no request within the time that the stream keeps."""
        return [name for name in self._rule_registry.now.webhooks if name not in self._heard]

    # -- what is asked

    async def list_sources(self) -> list[answers.SourceItem]:
        """The webhooks in force, and the sources of the rules, which are read by processes of the role `source`."""
        times, elsewhere = await self._stored_times(), await self._reports.others()
        found = []
        compiled = self._rule_registry.now
        for webhook in compiled.rules.webhooks:
            counts = WebhookCounts()
            for each in (self._counts.get(webhook.name), elsewhere.get(webhook.name)):
                if each is not None:
                    counts.add(each)
            heard = None if counts.heard is None else parse_time(counts.heard)
            last = max(
                (at for at in (times.get(webhook.name), self._heard.get(webhook.name), heard) if at), default=None
            )
            translator = compiled.webhooks[webhook.name]
            found.append(
                answers.SourceItem(
                    name=webhook.name,
                    kind="webhook",
                    reads=webhook.preset or "map",
                    proof=translator.proof,
                    last_heard=None if last is None else format_time(last),
                    taken=counts.taken,
                    refused=dict(counts.refused),
                    problems=translator.unreadable_secrets(),
                )
            )
        readers = await live_readers(self._bus.client) if compiled.rules.sources else []
        for source in compiled.rules.sources:
            at = times.get(f"source:{source.name}")
            found.append(source_item(source, readers, None if at is None else format_time(at)))
        return found

    # -- inside

    def _counts_of(self, webhook: str) -> WebhookCounts:
        found = self._counts.get(webhook)
        if found is None:
            found = self._counts[webhook] = WebhookCounts()
        return found

    async def _report(self, now: float) -> None:
        """Tell the other processes what came here."""
        for name, counts in self._counts.items():
            at = self._heard.get(name)
            counts.heard = None if at is None else format_time(at)
        await self._reports.store(self._counts, now)

    async def _store(self) -> None:
        if self._left_out:
            log.warning("%d refused requests are not kept: too many wait to be stored", self._left_out)
            self._left_out = 0
        while self._waiting:
            kept = self._waiting[0]
            subject = refused_subject(kept.webhook, kept.id)
            try:
                await self._bus.store(subject, kept.encode(), kept.id)
            except InvalidInput:  # larger than a message may be
                await self._bus.store(subject, kept.encode(whole=False), kept.id)
            self._waiting.popleft()
            self._waiting_bytes -= len(kept.body or b"")
        for webhook, at in list(self._heard.items()):
            noted = self._noted.get(webhook)
            if noted is None or (at - noted).total_seconds() >= HEARD_EVERY_S:
                await self._bus.store(heard_subject(webhook), heard_record(webhook, format_time(at)))
                self._noted[webhook] = at

    def _show(self) -> None:
        for name in self._rule_registry.now.webhooks:
            at = self._heard.get(name)
            self._metrics.webhook_heard(name, 0.0 if at is None else at.timestamp())

    async def _stored_times(self) -> Mapping[str, datetime]:
        def pick(message: StoredMessage) -> tuple[str, str] | None:
            return read_heard(message.data)

        found = await newest(self._bus.client, SENDERS, heard_subject("*"), limit=MOST_SOURCES, pick=pick)
        return {webhook: parse_time(at) for webhook, at in reversed(found)}
