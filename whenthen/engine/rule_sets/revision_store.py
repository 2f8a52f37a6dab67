"""Revisions in the stream `RULES`, and their markers in `EVENTS`.

The revision with the highest number is the current one: its record is stored under the expectation that there is none of that
number yet, so of two that publish at the same time one wins, and the other is told who did. A publication is, in this order:

1. the texts that the current revision does not name (a text means the same whoever stores it, so that this can be repeated),
2. the record, if nothing was stored below `rulesets.revision` since before 1,
3. the marker `rules.<number>` in `EVENTS`: from its position on the shards evaluate with this revision,
4. a note under the digest, by which a start knows that these files were published before.

Whoever dies after 2 leaves a revision whose marker is missing; `settle` does 3 and 4 for it. Every process that may publish calls
it when it sees a revision, and `publish` before it stores the next record. So no revision but the current one can lack its marker, and
markers stand in `EVENTS` in the order of their numbers; one that is repeated is passed over by shards.

What is read here comes from the stream's leader: a replica that lags must not look like a revision that is damaged.

Kept are the last `REVISIONS_KEPT` revisions, and every one that a shard still evaluates with or has yet to reach; texts as long as a kept
revision names them. The notes (about 100 bytes each) stay.

Texts that nobody names go however young they are, though they may belong to a revision that is being published: whoever deletes some
first stores the current record once more, unchanged, under the expectation of 2, and then deletes only what lay in the stream before it.
A publisher whose texts may be among these has its record refused, and stores them again.

`RULES` has a size (`rules_bytes`). A publication that does not fit is refused before anything of it is stored, once the texts that nobody
names are gone; revisions are not given up for it.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from whenthen.engine.bus.batches import MessageTooLarge, StaleBatch, publish_fenced
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.records import Message
from whenthen.engine.bus.request_client import BusReason, refusal, stream_info, unavailable
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

__all__ = ["REVISIONS_KEPT", "RevisionStore", "RevisionTaken", "RulesFull"]

log = logging.getLogger(__name__)

REVISIONS_KEPT = 100
SLACK = 10  #: so many more may there be before some are deleted: it costs a look at all that are kept
SPARE_BYTES = (
    256 << 10
)  #: of the stream, beside the texts of a publication: for its record, notes, and what a message costs
MESSAGE_BYTES = 256  #: that a message takes beyond its data
ATTEMPTS = 5  #: of a publication, while texts are deleted
PAUSE_S = 0.05  #: before the second one, and so much longer before each further
AT_ONCE = 64  #: requests in flight
_NO_MESSAGE = 10037  #: error code: no message found
_PREFIX = revision_subject("")
_RECORDS = revision_subject("*")


class _Stored(NamedTuple):
    """A message of a stream."""

    subject: str
    data: bytes
    seq: int


class _Cut(NamedTuple):
    """What a publication stores beside its record."""

    listing: Text
    texts: Mapping[str, Sequence[bytes]]  #: in parts, by digest; the listing among them

    @property
    def bytes(self) -> int:
        """How much of the stream they take."""
        return sum(len(part) + MESSAGE_BYTES for parts in self.texts.values() for part in parts)


class RevisionTaken(Conflict):
    """Somebody else published a revision first. `winner` is that one."""

    def __init__(self, detail: str, winner: Revision) -> None:
        super().__init__(detail)
        self.winner = winner


class RulesFull(Conflict):
    """There is no room for a set of rules. Nothing of it is stored."""

    reason = "rules_full"


class RevisionStore:
    """The revisions over a connection. Every method may raise `BusUnavailable`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    # -- reading

    async def current(self) -> Revision | None:
        """The revision with the highest number, maybe one with a `trouble`; None before the first one."""
        return (await self._newest())[0]

    async def _newest(self) -> tuple[Revision | None, int]:
        """The current revision, and the last position of all records."""
        found = await self._get(RULES, {"last_by_subj": _RECORDS})
        if found is None:
            return None, 0
        # what was stored last may be no record of ours
        return _record(found) or next(iter(await self.revisions()), None), found.seq

    async def revision(self, number: int) -> Revision | None:
        """One revision; None when it is not kept."""
        return _record(await self._get(RULES, {"last_by_subj": revision_subject(number)}))

    async def revisions(self) -> list[Revision]:
        """All that are kept, the newest first."""
        return (await self._revisions())[0]

    async def _revisions(self) -> tuple[list[Revision], int]:
        """All that are kept, the newest first, and the position up to which they were read: a replica may lag."""
        found: list[Revision] = []
        seen = 0

        def receive(message: Delivery) -> None:
            nonlocal seen
            headers = message.headers
            seen = int(headers["Nats-Sequence"])
            if (revision := _record(_Stored(headers["Nats-Subject"], message.data, seen))) is not None:
                found.append(revision)

        more = True
        while more:
            request = {"seq": seen + 1, "next_by_subj": _RECORDS, "batch": 1000}
            more = await self._bus.client.read_stored(RULES, request, receive)
        return sorted(found, key=lambda revision: -revision.number), seen

    async def published_as(self, digest: str) -> int:
        """The last revision that had the rules with this digest, whether it is kept or not; 0 when they were never published."""
        found = await self._get(RULES, {"last_by_subj": seen_rules_subject(digest)})
        return int(found.data) if found is not None and found.data.isdigit() else 0

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
            RulesFull: there is no room for it, and nothing was stored.
        """
        number = after.number + 1 if after is not None else 1
        there: Mapping[str, Text] = {}
        if after is not None:
            await self.settle(after)
            there = {} if store_all else await self._names(after)
        cut = _cut(files, there)
        revision = replace(revision, number=number, listing=cut.listing)
        await self._check_room(cut)
        for attempt in range(ATTEMPTS):
            await asyncio.sleep(PAUSE_S * attempt)
            current, position = await self._newest()
            if current is not None and current.number >= number:
                if current.id == revision.id:
                    return current  # an earlier sending of this very record
                raise RevisionTaken(f"{current.described()} was published first", current)
            await self._store(cut.texts)
            try:
                await self._store_record(Message(revision_subject(number), revision.encode()), position)
                return revision
            except StaleBatch:
                continue  # another revision was published, or texts were deleted, these maybe among them
        raise unavailable("the rules are not published, as others publish all the time; try again", BusReason.REFUSED)

    async def _store_record(self, record: Message, position: int) -> None:
        """Store a record, if the last one of all is at `position`.

        Raises:
            StaleBatch: it is not.
        """
        try:
            await publish_fenced(self._bus.client, [record], subject=_RECORDS, expect=position)
        except MessageTooLarge as error:
            raise unavailable(f"the record of a revision is too large for NATS: {error}", BusReason.REFUSED) from None

    async def _check_room(self, cut: _Cut) -> None:
        """Return if the texts of a publication fit, maybe as others went that nobody needs.

        Raises:
            RulesFull: they do not.
        """
        needed = cut.bytes + SPARE_BYTES
        free, limit = await self._free()
        if free < needed:
            await self.collect_texts()
            free, limit = await self._free()
        if free < needed:
            raise RulesFull(
                f"the rules are not published: they need {needed / 1e6:.1f} MB more, and of the {limit / 1e6:.1f} MB of stream {RULES} "
                f"{max(free, 0) / 1e6:.1f} MB are free beside the {len(await self.revisions())} revisions that it keeps; raise "
                "`rules_bytes`, or divide the rules into more files, of which unchanged ones take no room"
            )

    async def _free(self) -> tuple[float, int]:
        """How many bytes of `RULES` are free, and how many it may have."""
        answer = await stream_info(self._bus.client, RULES)
        limit = int(answer["config"].get("max_bytes") or -1)
        return (limit - int(answer["state"]["bytes"]), limit) if limit > 0 else (math.inf, limit)

    async def settle(self, revision: Revision) -> int:
        """Write the marker of the current revision, and the note of its digest, where they are missing. Gives the position of the marker
        in `EVENTS`, 0 when it was there.

        A marker that expired unread is written again: whoever has yet to reach it would never.
        """
        last = await self._get(EVENTS, {"last_by_subj": RULE_MARKERS})
        seq = 0
        if last is None or (marker_number(last.subject) or 0) < revision.number:
            marker = MarkerRecord(revision.number, revision.digest)
            ack = await self._bus.store(marker_subject(revision.number), marker.encode(), f"rules-{revision.number}")
            seq = ack.seq
        await self._note(revision)
        return seq

    async def _note(self, revision: Revision) -> None:
        if revision.trouble:
            return
        # a start asks for the files that it has, without what scripts have registered beside them
        for digest in {revision.digest, revision.own or revision.digest}:
            if await self.published_as(digest) < revision.number:
                await self._bus.store(seen_rules_subject(digest), str(revision.number).encode())

    # -- what goes

    async def collect(self, *, needed_from: int) -> int:
        """Delete revisions that are older than the last `REVISIONS_KEPT` and than `needed_from`, and the texts that only they had. Gives how
        many revisions went."""
        revisions = await self.revisions()
        if len(revisions) <= REVISIONS_KEPT + SLACK:
            return 0
        keep_from = min(revisions[0].number - REVISIONS_KEPT + 1, needed_from)
        gone = [revision for revision in revisions if revision.number < keep_from]
        for revision in gone:
            await self._purge(revision_subject(revision.number))
        await self.collect_texts()
        return len(gone)

    async def collect_texts(self) -> None:
        """Delete the texts that no kept revision names. Does nothing while somebody else publishes or does the same, or a replica of
        the stream lags."""
        found = await self._get(RULES, {"last_by_subj": _RECORDS})
        if found is None or _record(found) is None:
            return
        try:
            await self._store_record(Message(found.subject, found.data), found.seq)
        except StaleBatch:
            return
        _, position = await self._newest()
        kept, read_to = await self._revisions()
        if read_to < position:
            return
        named: set[str] = set()
        try:
            for revision in kept:
                named |= (await self._names(revision, strictly=True)).keys()
        except RevisionUnusable as error:
            log.warning("texts of rules that nobody needs are not deleted: %s", error)
            return
        for digest in await self._texts():
            if digest not in named:
                await self._purge(rule_text_subject(digest, "*"), before=position)

    async def _texts(self) -> set[str]:
        """The texts that are stored."""
        found: set[str] = set()
        seen = 0

        def receive(message: Delivery) -> None:
            nonlocal seen
            headers = message.headers
            seen = int(headers["Nats-Sequence"])
            found.add(headers["Nats-Subject"].split(".")[2])

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

    async def _purge(self, subject: str, *, before: int = 0) -> None:
        """Delete what there is of `subject`, or only what lies before a position."""
        request = {"filter": subject, "seq": before} if before else {"filter": subject}
        answer = await self._bus.client.api(f"STREAM.PURGE.{RULES}", request)
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
            parts.append(found.data)
        try:
            return joined(text, parts)
        except ValueError as error:
            raise RevisionDamaged(
                f"revision {revision.number} of the rules: {what} is damaged: {error}; publish the rules again with "
                "`whenthen apply`"
            ) from None

    async def _store(self, texts: Mapping[str, Sequence[bytes]]) -> None:
        """Store texts, which are given in their parts by digest."""
        messages = [
            (rule_text_subject(digest, number), part)
            for digest, parts in texts.items()
            for number, part in enumerate(parts)
        ]
        for start in range(0, len(messages), AT_ONCE):
            await asyncio.gather(*(self._bus.store(*message) for message in messages[start : start + AT_ONCE]))

    async def _get(self, stream: str, request: Mapping[str, object]) -> _Stored | None:
        """A message as the stream's leader has it."""
        answer = await self._bus.client.api(f"STREAM.MSG.GET.{stream}", request)
        error = answer.get("error")
        if error is None:
            message = answer["message"]
            return _Stored(message["subject"], base64.b64decode(message.get("data", "")), int(message["seq"]))
        if error.get("err_code") == _NO_MESSAGE:
            return None
        raise refusal(f"stream {stream} can not be read", error)


def _cut(files: Sequence[SourceFile], there: Mapping[str, Text]) -> _Cut:
    """The texts of a set of files, but for those that are `there`."""
    texts: dict[str, list[bytes]] = {}
    listed = []
    for file in files:
        text = there.get(digest_of(file.raw))
        if text is None:
            text, texts[text.digest] = text_of(file.raw)
        listed.append((file, text))
    listing, texts[listing.digest] = text_of(encode_listing(listed))
    return _Cut(listing, texts)


def _record(found: _Stored | None) -> Revision | None:
    if found is None:
        return None
    number = found.subject.removeprefix(_PREFIX)
    return Revision.decode(int(number), found.data) if number.isascii() and number.isdigit() else None
