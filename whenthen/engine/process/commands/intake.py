"""Publishing events of the API, and events that webhook requests are translated to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import datetime

from whenthen.engine.audit import AuditLog
from whenthen.engine.bus.connection import Ack, Bus
from whenthen.engine.process.commands.public_fetch import PublicFetch
from whenthen.engine.process.queries.event_positions import EventPositions
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.schemas.events import Event
from whenthen.sources import Request, Translation, WebhookTranslator

__all__ = ["Intake"]

log = logging.getLogger(__name__)


class Intake:
    """`check_room` raises `BusUnavailable` while the disk is too full to take more; None on a server of others."""

    def __init__(
        self,
        bus: Bus,
        rule_registry: RuleRegistry,
        positions: EventPositions,
        *,
        clock: Callable[[], datetime],
        check_room: Callable[[], None] | None,
        audit: AuditLog,
        fetch: PublicFetch | None = None,
    ) -> None:
        self._bus = bus
        self._rule_registry = rule_registry
        self._positions = positions
        self._clock = clock
        self._check_room = check_room
        self._audit = audit
        self._fetch = fetch or PublicFetch()

    async def publish(self, event: Event) -> Ack:
        """Store one event; returns once JetStream acknowledged it."""
        if self._check_room is not None:
            self._check_room()
        ack = await self._bus.publish(event)
        self._positions.add(event.id, ack.seq)
        return ack

    def hook(self, name: str) -> WebhookTranslator | None:
        """See `Api.hook`."""
        return self._rule_registry.now.webhooks.get(name)

    async def fetch_keys(self, webhook: str, request: Request) -> None:
        """Fetch the public keys that a request is verified by."""
        translator = self._rule_registry.webhook(webhook)
        url = translator.wanted_keys(request, self._clock())
        if url is not None:
            translator.put_keys(url, await self._fetch.document(url), self._clock())

    def confirm(self, webhook: str, asked: Translation) -> None:
        """Confirm a subscription where the webhook wants that; else say where it can be."""
        assert asked.confirm is not None
        if asked.confirms:
            self._fetch.call(asked.confirm, f"webhook {webhook}: {asked.dropped[0]}")
        else:
            log.warning("webhook %s: %s; to confirm it, open %s", webhook, asked.dropped[0], asked.confirm)

    def note_refusal(self, source: str, reason: str, detail: str, who: str) -> None:
        """Put a refused request on record."""
        self._audit.note("request-refused", what=source, who=who, detail=detail, cause=reason)

    def hook_names(self) -> Collection[str]:
        return self._rule_registry.now.webhooks
