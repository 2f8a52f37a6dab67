"""Revisions in the stream `RULES`, and their markers in `EVENTS`.

The revision with the highest number is the current one: its record is stored under the expectation that there is none of that
number yet, so of two that publish at the same time one wins, and the other is told who did. A publication is, in this order:

1. the texts that the current revision does not name (a text means the same whoever stores it, so that this can be repeated),
2. the record,
3. the marker `rules.<number>` in `EVENTS`: from its position on the shards evaluate with this revision,
4. a note under the digest, by which a start knows that these files were published before.

Whoever dies after 2 leaves a revision whose marker is missing; `settle` does 3 and 4 for it. Every process that may publish calls
it when it sees a revision, and `publish` before it stores the next record. So no revision but the current one can lack its marker, and
markers stand in `EVENTS` in the order of their numbers; one that is repeated is passed over by shards.

What is read here comes from the stream's leader: a replica that lags must not look like a revision that is damaged.

Kept are the last `REVISIONS_KEPT` revisions, and every one that a shard still evaluates with or has yet to reach; texts as long as a kept
revision names them. The notes (about 100 bytes each) stay.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from whenthen.engine.bus.batches import MessageTooLarge, StaleBatch, publish_batch
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.records import Message
from whenthen.engine.bus.request_client import BusReason, refusal, unavailable
from whenthen.engine.bus.streams import EVENTS, RULES
from whenthen.engine.bus.subjects import (
    RULE_MARKERS,
    marker_number,
    marker_subject,
    revision_subject,
    rule_text_subject,
    seen_rules_subject,
)
from whenthen.engine.rule_sets.revision_records import (
    MarkerRecord,
    Revision,
    RevisionDamaged,
    RevisionUnusable,
    Text,
    decode_listing,
    digest_of,
    encode_listing,
    joined,
    text_of,
)
from whenthen.rules import SourceFile
from whenthen.schemas.errors import Conflict

__all__ = ["REVISIONS_KEPT", "RevisionStore", "RevisionTaken"]

log = logging.getLogger(__name__)

REVISIONS_KEPT = 100
SLACK = 10  #: so many more may there be before some are deleted: it costs a look at all that are kept
YOUNG = timedelta(hours=1)  #: a text that nobody names may belong to a revision that is being published
AT_ONCE = 64  #: requests in flight
_NO_MESSAGE = 10037  #: error code: no message found
_PREFIX = revision_subject("")


class RevisionTaken(Conflict):
    """Somebody else published a revision first. `winner` is that one."""

    def __init__(self, detail: str, winner: Revision) -> None:
        super().__init__(detail)
        self.winner = winner


class RevisionStore:
    """The revisions over a connection. Every method may raise `BusUnavailable`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    # -- reading

    async def current(self) -> Revision | None:
        """The revision with the highest number, maybe one with a `trouble`; None before the first one."""
        found = await self._get(RULES, {"last_by_subj": revision_subject("*")})
        if found is None:
            return None
        # what was stored last may be no record of ours
        return _record(found) or next(iter(await self.revisions()), None)

    async def revision(self, number: int) -> Revision | None:
        """One revision; None when it is not kept."""
        return _record(await self._get(RULES, {"last_by_subj": revision_subject(number)}))

    async def revisions(self) -> list[Revision]:
        """All that are kept, the newest first."""
        found: list[Revision] = []
        seen = 0

        def receive(message: Delivery) -> None:
            nonlocal seen
            headers = message.headers
            seen = int(headers["Nats-Sequence"])
            if (revision := _record((headers["Nats-Subject"], message.data))) is not None:
                found.append(revision)

        more = True
        while more:
            request = {"seq": seen + 1, "next_by_subj": revision_subject("*"), "batch": 1000}
            more = await self._bus.client.read_stored(RULES, request, receive)
        return sorted(found, key=lambda revision: -revision.number)

    async def published_as(self, digest: str) -> int:
        """The last revision that had the rules with this digest, whether it is kept or not; 0 when they were never published."""
        found = await self._get(RULES, {"last_by_subj": seen_rules_subject(digest)})
        return int(found[1]) if found is not None and found[1].isdigit() else 0

    async def files(self, revision: Revision, *, known: Iterable[SourceFile] = ()) -> list[SourceFile]:
        """The files of a revision with their texts; those of `known` are not read again.

        Raises:
            RevisionDamaged, RevisionNotUnderstood: it is not whole, or its record is of a later version.
        """
        revision.check()
        have = {digest_of(file.raw): file.raw for file in known}
        listed = await self._listed(revision)
        found = []
        for start in range(0, len(listed), AT_ONCE):
            block = listed[start : start + AT_ONCE]
            raws = await asyncio.gather(*(self._text(revision, text, file.name, have) for file, text in block))
            found += [replace(file, raw=raw) for (file, _), raw in zip(block, raws, strict=True)]
        return found

    # -- publishing

    async def publish(
        self, revision: Revision, files: Sequence[SourceFile], *, after: Revision | None, store_all: bool = False
    ) -> Revision:
        """Store the texts and the record of a revision, which follows `after`; its number is set here. Not yet its marker: see `settle`.

        Texts that `after` names are believed to be there, unless `store_all`.

        Raises:
            RevisionTaken: there is a newer one than `after`.
        """
        there: Mapping[str, Text] = {}
        if after is not None:
            await self.settle(after)
            there = {} if store_all else await self._names(after)
        listing = []
        for file in files:
            known = there.get(digest_of(file.raw))
            listing.append((file, await self._store(file.raw) if known is None else known))
        number = after.number + 1 if after is not None else 1
        revision = replace(revision, number=number, listing=await self._store(encode_listing(listing)))
        try:
            await publish_batch(self._bus.client, [Message(revision_subject(number), revision.encode())], expect=0)
        except StaleBatch:
            winner = await self.current()
            if winner is None:
                raise unavailable("the current revision of the rules is not to be found", BusReason.REFUSED) from None
            if winner.number == number and winner.id == revision.id:
                return winner  # an earlier sending of this very record
            raise RevisionTaken(f"{winner.described()} was published first", winner) from None
        except MessageTooLarge as error:
            raise unavailable(f"the record of a revision is too large for NATS: {error}", BusReason.REFUSED) from None
        return revision

    async def settle(self, revision: Revision) -> int:
        """Write the marker of the current revision, and the note of its digest, where they are missing. Gives the position of the marker
        in `EVENTS`, 0 when it was there.

        A marker that expired unread is written again: whoever has yet to reach it would never.
        """
        last = await self._get(EVENTS, {"last_by_subj": RULE_MARKERS})
        seq = 0
        if last is None or (marker_number(last[0]) or 0) < revision.number:
            marker = MarkerRecord(revision.number, revision.digest)
            ack = await self._bus.store(marker_subject(revision.number), marker.encode(), f"rules-{revision.number}")
            seq = ack.seq
        await self._note(revision)
        return seq

    async def _note(self, revision: Revision) -> None:
        if not revision.trouble and await self.published_as(revision.digest) < revision.number:
            await self._bus.store(seen_rules_subject(revision.digest), str(revision.number).encode())

    # -- what goes

    async def collect(self, *, needed_from: int, now: datetime) -> int:
        """Delete revisions that are older than the last `REVISIONS_KEPT` and than `needed_from`, and the texts that only they had. Gives how
        many revisions went."""
        revisions = await self.revisions()
        if len(revisions) <= REVISIONS_KEPT + SLACK:
            return 0
        keep_from = min(revisions[0].number - REVISIONS_KEPT + 1, needed_from)
        kept = [revision for revision in revisions if revision.number >= keep_from]
        gone = [revision for revision in revisions if revision.number < keep_from]
        for revision in gone:
            await self._purge(revision_subject(revision.number))
        named: set[str] = set()
        try:
            for revision in kept:
                named |= (await self._names(revision, strictly=True)).keys()
        except RevisionUnusable as error:
            log.warning("texts of rules that nobody needs are not deleted: %s", error)
            return len(gone)
        for digest, stored in (await self._texts()).items():
            if digest not in named and now - stored > YOUNG:
                await self._purge(rule_text_subject(digest, "*"))
        return len(gone)

    async def _texts(self) -> dict[str, datetime]:
        """The texts that are stored, and when last."""
        found: dict[str, datetime] = {}
        seen = 0

        def receive(message: Delivery) -> None:
            nonlocal seen
            headers = message.headers
            seen = int(headers["Nats-Sequence"])
            stored = datetime.fromisoformat(headers["Nats-Time-Stamp"][:19]).replace(tzinfo=UTC)
            found[headers["Nats-Subject"].split(".")[2]] = stored

        more = True
        while more:
            request = {
                "seq": seen + 1,
                "next_by_subj": rule_text_subject("*", "*"),
                "batch": 1000,
                "max_bytes": 16 << 20,
            }
            more = await self._bus.client.read_stored(RULES, request, receive)
        return found

    async def _purge(self, subject: str) -> None:
        answer = await self._bus.client.api(f"STREAM.PURGE.{RULES}", {"filter": subject})
        if error := answer.get("error"):
            raise refusal(f"{subject} is not deleted", error)

    # -- texts

    async def _listed(self, revision: Revision) -> list[tuple[SourceFile, Text]]:
        raw = await self._text(revision, revision.listing, "the list of its files", {})
        try:
            return decode_listing(raw)
        except ValueError as error:
            raise RevisionDamaged(
                f"revision {revision.number} of the rules: the list of its files can not be read: {error}"
            ) from None

    async def _names(self, revision: Revision, *, strictly: bool = False) -> dict[str, Text]:
        """The texts of a revision by digest; none when it can not be read, unless `strictly`."""
        try:
            revision.check()
            listed = await self._listed(revision)
        except RevisionUnusable:
            if strictly:
                raise
            return {}
        return {text.digest: text for text in (revision.listing, *(text for _, text in listed))}

    async def _text(self, revision: Revision, text: Text, what: str, have: Mapping[str, bytes]) -> bytes:
        if text.digest in have:
            return have[text.digest]
        parts = []
        for number in range(text.parts):
            found = await self._get(RULES, {"last_by_subj": rule_text_subject(text.digest, number)})
            if found is None:
                raise RevisionDamaged(
                    f"revision {revision.number} of the rules: of {what} part {number + 1} of {text.parts} is missing in "
                    f"stream {RULES}; publish the rules again with `whenthen apply`"
                )
            parts.append(found[1])
        try:
            return joined(text, parts)
        except ValueError as error:
            raise RevisionDamaged(
                f"revision {revision.number} of the rules: {what} is damaged: {error}; publish the rules again with "
                "`whenthen apply`"
            ) from None

    async def _store(self, raw: bytes) -> Text:
        text, parts = text_of(raw)
        for start in range(0, len(parts), AT_ONCE):
            block = enumerate(parts[start : start + AT_ONCE], start)
            await asyncio.gather(
                *(self._bus.store(rule_text_subject(text.digest, number), part) for number, part in block)
            )
        return text

    async def _get(self, stream: str, request: Mapping[str, object]) -> tuple[str, bytes] | None:
        """Subject and data of a message as the stream's leader has it."""
        answer = await self._bus.client.api(f"STREAM.MSG.GET.{stream}", request)
        error = answer.get("error")
        if error is None:
            message = answer["message"]
            return message["subject"], base64.b64decode(message.get("data", ""))
        if error.get("err_code") == _NO_MESSAGE:
            return None
        raise refusal(f"stream {stream} can not be read", error)


def _record(found: tuple[str, bytes] | None) -> Revision | None:
    if found is None:
        return None
    number = found[0].removeprefix(_PREFIX)
    return Revision.decode(int(number), found[1]) if number.isascii() and number.isdigit() else None
