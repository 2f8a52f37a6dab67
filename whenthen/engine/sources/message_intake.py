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
from typing import Protocol, TypeVar

from whenthen.engine.bus.connection import Ack
from whenthen.engine.metrics import Metrics
from whenthen.schemas.errors import BusUnavailable, InvalidInput, RenderError, UnsupportedMediaType, WhenthenError
from whenthen.schemas.events import Event
from whenthen.sources import Translation
from whenthen.sources.readings import SourceMessage, SourceTranslator

__all__ = ["KeepAside", "MessageIntake", "SourceTrouble", "SourceWatch"]

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_S = (0.2, 5.0)  #: until an event is published again that the bus did not take; doubled up to the second
AT_ONCE = 100  #: events of one message that are published at one time
LOGGED_EVERY_S = 10.0  #: refused messages of one source are logged so often
WELL_S = 60.0  #: a source that was read for so long is believed to be well


class SourceTrouble(WhenthenError):
    """A source can not be read at the moment; the message says why. It is tried again."""

    reason = "source_trouble"


class SourceFault(WhenthenError):
    """A message met a fault of this program."""

    reason = "internal"


class KeepAside(Protocol):
    """Keeps a message that can not become an event."""

    def __call__(self, source: str, message: SourceMessage, error: WhenthenError) -> Awaitable[None]: ...


@dataclass(slots=True)
class SourceWatch:
    """How a source does in this process. Times are in seconds since 1970."""

    state: str = "starting"  #: `starting`, `reading`, `elsewhere` or `trouble`
    detail: str = ""  #: of a trouble
    since: float = field(default_factory=time.time)  #: when the state became what it is
    heard_at: float | None = None  #: when the last message came
    messages: int = 0
    events: int = 0
    duplicates: int = 0  #: of the events, those that the log had already
    refused: dict[str, int] = field(default_factory=dict)  #: messages that are kept aside, by reason
    failures: int = 0  #: in a row
    _said: str = ""  #: the trouble that was told last

    def become(self, state: str, detail: str = "") -> None:
        if state != self.state:
            self.state, self.since = state, time.time()
        self.failures = self.failures + 1 if state == "trouble" else 0
        self.detail = detail

    def in_trouble(self, error: BaseException | str) -> bool:
        """Note what is wrong; whether that is to be told: once, until it is something else or the source was well for a while."""
        if self.state == "reading" and time.time() - self.since > WELL_S:
            self._said = ""
        self.become("trouble", str(error) or repr(error))
        before, self._said = self._said, self.detail
        return before != self.detail


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
        if self.watch.state == "trouble":
            log.info("source %s: it is read again", self._translator.name)
        self.watch.become("reading")

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
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it would come again for ever
            await self.give_up(message, error)
        return None

    async def give_up(self, message: SourceMessage, error: Exception) -> None:
        """Keep a message aside that this program fails on, as it would each time that it comes."""
        fault = SourceFault(f"this program failed on it: {error!r}")
        fault.__cause__ = error
        await self._refuse(message, fault)

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
        try:
            ack = await self._until_taken("an event", lambda: self._publish(event))
        except InvalidInput as error:  # too large for the bus, as it always will be
            return error
        self._metrics.received(self._translator.label, duplicate=ack.duplicate)
        self.watch.events += 1
        self.watch.duplicates += ack.duplicate
        return None

    async def _refuse(self, message: SourceMessage, error: WhenthenError) -> None:
        self._metrics.refused(self._translator.label, error.reason)
        self.watch.refused[error.reason] = self.watch.refused.get(error.reason, 0) + 1
        now = time.monotonic()
        if now - self._logged >= LOGGED_EVERY_S:
            self._logged = now
            log.warning(
                "source %s: a message is refused and kept aside: %s",
                self._translator.name,
                error,
                exc_info=error.__cause__ if isinstance(error, SourceFault) else None,
            )
        await self._until_taken("a refused message", lambda: self._keep_aside(self._translator.name, message, error))

    async def _until_taken(self, what: str, store: Callable[[], Awaitable[T]]) -> T:
        """What `store` gives, called again as long as the bus takes nothing."""
        wait_s = RETRY_S[0]
        while True:
            try:
                return await store()
            except BusUnavailable as error:
                log.info("source %s: %s waits for the bus: %s", self._translator.name, what, error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_S[1])
