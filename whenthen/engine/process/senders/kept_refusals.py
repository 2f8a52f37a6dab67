"""Lists what was refused and is kept, requests and messages of sources, and sends it again by the rules of now."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from whenthen.engine.bus.connection import Ack, Bus
from whenthen.engine.bus.stream_pages import StoredMessage, StreamPage, newest
from whenthen.engine.bus.streams import SENDERS
from whenthen.engine.http import answer_models as answers
from whenthen.engine.log_lines import one_line
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.process.senders.body_shapes import body_shape
from whenthen.engine.process.senders.sender_records import AsideMessage, RefusedRequest, read_refused
from whenthen.schemas.errors import BusUnavailable, InvalidInput, NotFound
from whenthen.schemas.events import Event
from whenthen.sources import Translation

__all__ = ["KeptRefusals"]

log = logging.getLogger(__name__)

MOST_LISTED = 1000
_KEPT = "senders.*.*.*"  #: of refused requests and of messages; what else is in the stream has shorter subjects


class KeptRefusals:
    """`redact` takes secrets out of what is said of a refusal."""

    def __init__(
        self,
        bus: Bus,
        rule_registry: RuleRegistry,
        *,
        publish: Callable[[Event], Awaitable[Ack]],
        clock: Callable[[], datetime],
        redact: Callable[[str], str] = lambda text: text,
    ) -> None:
        self._bus = bus
        self._rule_registry = rule_registry
        self._publish = publish
        self._clock = clock
        self._redact = redact

    async def list_refused(
        self, source: str | None = None, limit: int = 50, before: int | None = None
    ) -> list[answers.RefusedItem]:
        """What is kept, the newest first, without what it holds. `source` is `webhook:shop`, `source:orders`, or the name alone."""
        return [
            answers.RefusedItem(
                id=kept.id,
                source=kept.label,
                at=kept.at,
                reason=kept.reason,
                field=kept.field,
                detail=kept.detail,
                shape="" if kept.body is None else body_shape(kept.body, kept.headers),
                bytes=len(kept.body or b""),
                whole=kept.body is not None,
                seq=stored.seq,
            )
            for stored, kept in await self._kept(source, limit, before)
        ]

    async def resend(
        self, source: str | None = None, only: str | None = None, before: int | None = None
    ) -> answers.ResendReport:
        """Send again what is kept, up to `MOST_LISTED` of the newest, the oldest of them first; what is taken is not kept any longer.

        Raises:
            BusUnavailable: an event could not be stored; the rest stays.
        """
        sent = 0
        sent_events: list[str] = []
        refused: list[answers.StillRefused] = []
        found = await self._kept(source, MOST_LISTED, before)
        for stored, kept in reversed(found):
            if only is not None and not kept.id.startswith(only):
                continue
            try:
                made = self._read(kept)
                # what is asked for again has been, or will be, and who asks knows which of its events are new
                for event in [] if isinstance(kept, AsideMessage) and kept.asked else made.events:
                    await self._publish(event)
                    sent_events.append(event.id)
            except BusUnavailable:
                raise
            except Exception as error:
                if not isinstance(error, InvalidInput | NotFound):
                    log.exception("what is kept of %s could not be read", kept.label)
                detail = one_line(str(error), self._redact)
                refused.append(answers.StillRefused(id=kept.id, source=kept.label, detail=detail))
                continue
            # only now: what stands for it is the empty message, which takes its place
            await self._bus.store(stored.subject, b"")
            sent += 1
        following = found.next or (found[-1][0].seq if len(found) == MOST_LISTED else None)
        return answers.ResendReport(sent=sent, events=sent_events, refused=refused, next=following)

    def _read(self, kept: RefusedRequest | AsideMessage) -> Translation:
        if kept.body is None:
            raise InvalidInput("its body was too large to be kept; have its sender repeat it")
        if isinstance(kept, AsideMessage):
            translator = self._rule_registry.now.sources.get(kept.source)
            if translator is None:
                raise NotFound(f"no source is named {kept.source!r} any more")
            return translator.translate(kept.message(), self._clock())
        request = kept.request()
        return self._rule_registry.webhook(kept.webhook).read(request, self._clock(), request.signed_at)

    async def _kept(
        self, source: str | None, limit: int, before: int | None
    ) -> StreamPage[tuple[StoredMessage, RefusedRequest | AsideMessage]]:
        def pick(message: StoredMessage) -> tuple[StoredMessage, RefusedRequest | AsideMessage] | None:
            kept = read_refused(message.data)
            if kept is None or (source is not None and source not in (kept.label, kept.label.partition(":")[2])):
                return None
            return message, kept

        return await newest(self._bus.client, SENDERS, _KEPT, limit=limit, pick=pick, before=before)
