"""Publishing events of the API, and events that webhook requests are translated to."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

from whenthen.engine.audit import AuditLog
from whenthen.engine.bus.connection import Ack, Bus
from whenthen.engine.process.queries.event_positions import EventPositions
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.schemas.events import Event
from whenthen.schemas.webhooks import RateLimit
from whenthen.sources import Request, Translation

__all__ = ["Intake"]


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
    ) -> None:
        self._bus = bus
        self._rule_registry = rule_registry
        self._positions = positions
        self._clock = clock
        self._check_room = check_room
        self._audit = audit

    async def publish(self, event: Event) -> Ack:
        """Store one event; returns once JetStream acknowledged it."""
        if self._check_room is not None:
            self._check_room()
        ack = await self._bus.publish(event)
        self._positions.add(event.id, ack.seq)
        return ack

    def check_head(self, webhook: str, request: Request) -> None:
        """Verify what a request without its body proves."""
        self._rule_registry.webhook(webhook).check_head(request, self._clock())

    def translate(self, webhook: str, request: Request) -> Translation:
        """Verify a request to a webhook and translate it."""
        return self._rule_registry.webhook(webhook).translate(request, self._clock())

    def note_refusal(self, source: str, reason: str, detail: str, who: str) -> None:
        """Put a refused request on record."""
        self._audit.note("request-refused", what=source, who=who, detail=detail, cause=reason)

    def rate_limit(self, webhook: str) -> RateLimit | None:
        return self._rule_registry.webhook(webhook).rate_limit

    def hook_methods(self, webhook: str) -> Collection[str]:
        return self._rule_registry.webhook(webhook).methods

    def hook_names(self) -> Collection[str]:
        return self._rule_registry.now.webhooks
