"""Keeps what a source can not make events of, before its broker is told that it is done. One for each process of the role `source`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from whenthen.engine.audit import AuditLog
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.subjects import aside_subject
from whenthen.engine.log_lines import one_line
from whenthen.engine.process.senders.sender_records import AsideMessage
from whenthen.schemas.errors import InvalidInput, WhenthenError
from whenthen.schemas.times import format_time
from whenthen.sources.readings import SourceMessage

__all__ = ["AsideMessages"]

log = logging.getLogger(__name__)


class AsideMessages:
    """`redact` takes secrets out of what is kept of the error's text."""

    def __init__(
        self, bus: Bus, audit: AuditLog, *, clock: Callable[[], datetime], redact: Callable[[str], str]
    ) -> None:
        self._bus = bus
        self._audit = audit
        self._clock = clock
        self._redact = redact

    async def keep(self, source: str, message: SourceMessage, error: WhenthenError) -> None:
        """Return once the message is stored; of one that is larger than a message may be, that there was one.

        Raises:
            BusUnavailable: it is not stored, or not known to be.
        """
        detail = one_line(str(error), self._redact)
        kept = AsideMessage.of(source, message, error, at=format_time(self._clock()), detail=detail)
        subject, once = aside_subject(kept.source, kept.id), f"{kept.id}-{kept.at}"
        try:
            await self._bus.store(subject, kept.encode(), once)
        except InvalidInput:
            log.warning("source %s: a message of %d bytes is too large to be kept", source, len(message.body))
            await self._bus.store(subject, kept.encode(whole=False), once)
        self._audit.note("message-refused", what=kept.label, who="", detail=detail, cause=error.reason)
