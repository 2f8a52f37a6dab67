"""A source's messages become acknowledged events; what never will is kept aside, so that its broker need not send it for ever.

Called by the edges. An edge acknowledges upstream when `deliver` has returned, and only then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from whenthen.engine.bus.connection import Ack
from whenthen.engine.metrics import Metrics
from whenthen.schemas.errors import BusUnavailable, InvalidInput, RenderError, UnsupportedMediaType, WhenthenError
from whenthen.schemas.events import Event
from whenthen.sources import Translation
from whenthen.sources.readings import SourceMessage, SourceTranslator

__all__ = ["KeepAside", "MessageIntake", "SourceTrouble", "SourceWatch"]

log = logging.getLogger(__name__)

RETRY_S = (0.2, 5.0)  #: until an event is published again that the bus did not take; doubled up to the second
AT_ONCE = 100  #: events of one message that are published at one time
LOGGED_EVERY_S = 10.0  #: refused messages of one source are logged so often


class SourceTrouble(WhenthenError):
    """A source can not be read at the moment; the message says why. It is tried again."""

    reason = "source_trouble"


class KeepAside(Protocol):
    """Keeps a message that can not become an event."""

    def __call__(self, source: str, message: SourceMessage, error: WhenthenError) -> Awaitable[None]: ...


@dataclass(slots=True)
class SourceWatch:
    """How a source does in this process."""

    state: str = "starting"  #: `starting`, `reading`, `elsewhere` or `trouble`
    detail: str = ""  #: of a trouble
    heard_at: float | None = None  #: when the last message came, in seconds since 1970
    messages: int = 0
    events: int = 0
    refused: dict[str, int] = field(default_factory=dict)  #: by reason

    def in_trouble(self, error: BaseException | str) -> bool:
        """Note what is wrong; whether that is something else than the last time."""
        before = (self.state, self.detail)
        self.state, self.detail = "trouble", str(error) or repr(error)
        return before != (self.state, self.detail)


class MessageIntake:
    """The way of one source's messages into the log."""

    def __init__(
        self,
        translator: SourceTranslator,
        publish: Callable[[Event], Awaitable[Ack]],
        *,
        metrics: Metrics,
        keep_aside: KeepAside,
        watch: SourceWatch | None = None,
    ) -> None:
        self.watch = watch or SourceWatch()
        self._translator = translator
        self._publish = publish
        self._metrics = metrics
        self._keep_aside = keep_aside
        self._logged = 0.0

    def reads(self) -> None:
        """Note that the source is read from now on."""
        self.watch.state, self.watch.detail = "reading", ""

    async def deliver(self, message: SourceMessage) -> None:
        """Return once the message may be acknowledged upstream: each of its events is stored, or it is kept aside.

        While the bus takes nothing it waits, for as long as that lasts; a cancellation leaves the message to come again.
        """
        result = await self.translate(message)
        if result is not None:
            await self.publish(result.events, message)

    async def translate(self, message: SourceMessage) -> Translation | None:
        """What a message becomes; None when it was refused, and is kept aside."""
        self.watch.heard_at = time.time()
        self.watch.messages += 1
        try:
            return self._translator.translate(message, datetime.now(UTC))
        except (InvalidInput, UnsupportedMediaType, RenderError) as error:
            await self._refuse(message, error)
            return None

    async def publish(self, events: Sequence[Event], message: SourceMessage) -> None:
        """Return once each of the events is stored, or what they came of is kept aside."""
        for begin in range(0, len(events), AT_ONCE):
            part = events[begin : begin + AT_ONCE]
            outcomes = await asyncio.gather(*map(self._store, part))
            for error in outcomes:
                if error is not None:
                    await self._refuse(message, error)
                    return

    async def _store(self, event: Event) -> InvalidInput | None:
        wait_s = RETRY_S[0]
        while True:
            try:
                ack = await self._publish(event)
            except InvalidInput as error:  # too large for the bus, as it always will be
                return error
            except BusUnavailable as error:
                log.info("source %s: an event waits for the bus: %s", self._translator.name, error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_S[1])
                continue
            self._metrics.received(self._translator.label, duplicate=ack.duplicate)
            self.watch.events += 1
            return None

    async def _refuse(self, message: SourceMessage, error: WhenthenError) -> None:
        self._metrics.refused(self._translator.label, error.reason)
        self.watch.refused[error.reason] = self.watch.refused.get(error.reason, 0) + 1
        now = time.monotonic()
        if now - self._logged >= LOGGED_EVERY_S:
            self._logged = now
            log.warning("source %s: a message is refused and kept aside: %s", self._translator.name, error)
        wait_s = RETRY_S[0]
        while True:
            try:
                await self._keep_aside(self._translator.name, message, error)
                return
            except BusUnavailable as unavailable:
                log.info("source %s: a refused message waits for the bus: %s", self._translator.name, unavailable)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_S[1])
