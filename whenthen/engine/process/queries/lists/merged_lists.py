"""Lists of what is in the history, and before it of what its stream has stored since: so they are as new as the stream and as old as the history.

The history is asked first, and says how far the stream is in it; what the stream has behind that is read from the stream. Where no
process has a history, or it can not be asked now, the stream is looked through as far as it is kept, and the list says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.request_client import stream_info
from whenthen.engine.bus.stream_pages import StoredMessage, StreamPage, first_since, newest
from whenthen.engine.process.queries.history.history_questions import HistoryQuestions
from whenthen.engine.process.queries.lists.asked_list import AskedList
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.history_rows import INCARNATION_BITS, position
from whenthen.schemas.times import format_us, parse_time, to_us

__all__ = [
    "MOST_BYTES",
    "MOST_SCANNED",
    "STOPPED",
    "ListKind",
    "ListedItem",
    "ListedPage",
    "MergedLists",
    "sequence",
    "without_history",
]

T = TypeVar("T")
MOST_BYTES = 8 << 20  #: of the documents of a page
MOST_SCANNED = 50_000  #: rows of the history for one page
NO_HISTORY = "only what the stream still keeps was looked through: "
BEHIND = "the history is being filled; what was stored before the oldest of this page follows on the next ones"
STOPPED = "the search stopped after %d rows; it goes on with the next page"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListKind:
    """How the items of one list come from messages and from rows."""

    stream: str
    subjects: Callable[[AskedList], Sequence[str]]  #: that may hold what is wanted
    all_subjects: Sequence[str]  #: of everything that changes an item
    item: Callable[[StoredMessage], dict[str, Any] | None]  #: with its position as `seq`; None for what is no item
    from_row: Callable[[dict[str, Any]], dict[str, Any]]  #: the same of a row of the history
    id_field: str = "id"
    changes: bool = False  #: whether an item may move to the front
    in_history: bool = True


@dataclass(frozen=True, slots=True)
class ListedItem:
    place: int
    fields: dict[str, Any]


def sequence(place: int) -> int:
    """The position in its stream of what has a place in the history."""
    return place & ((1 << INCARNATION_BITS) - 1)


class ListedPage(list[ListedItem]):
    """A page. `following` is the place where the next one begins; None without one. `notes` are for people."""

    following: str | None = None
    notes: Sequence[str] = ()


@dataclass(slots=True)
class _Ends:
    """Where the stream is, and how much of it is in the history."""

    incarnation: int
    taken: int
    last: int

    def place(self, seq: int) -> int:
        return position(self.incarnation, seq)

    def seq_before(self, before: int | None) -> int:
        """The first sequence that a page before a place does not have."""
        if before is None:
            return self.last + 1
        incarnation, seq = before >> INCARNATION_BITS, sequence(before)
        if incarnation in (0, self.incarnation) or not self.incarnation:
            return min(seq, self.last + 1)
        return 0 if incarnation < self.incarnation else self.last + 1


class MergedLists:
    """Pages of lists, the newest first."""

    def __init__(
        self, bus: Bus, history: HistoryQuestions, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._bus = bus
        self._history = history
        self.clock = clock

    async def page(self, kind: ListKind, asked: AskedList) -> ListedPage:
        """A page. Raises InvalidInput, BusUnavailable (the stream can not be read)."""
        notes: list[str] = []
        rows: Mapping[str, Any] | None = None
        try:
            if kind.in_history:
                rows = await self.history_rows(kind.stream, asked, before=asked.before)
        except BusUnavailable as error:
            notes.append(without_history(error))
        info = await stream_info(self._bus.client, kind.stream)
        ends = _ends(info, None if rows is None else rows["cursor"], there=rows is not None)
        new, changed, cut = await self._behind(kind, asked, ends)
        found = ListedPage(new[: asked.limit])
        more: int | str | None = None
        if len(new) > asked.limit or (rows is None and len(new) == asked.limit):
            more = found[-1].place
        elif cut is not None:
            more = ends.place(cut)
            if rows is not None:
                notes.append(BEHIND)
        elif rows is not None:
            more = rows["next"]
            if rows["scanned"] >= MOST_SCANNED and more is not None:
                notes.append(STOPPED % rows["scanned"])
            for row in rows["rows"]:
                if row["id"] in changed:
                    continue
                if len(found) == asked.limit:
                    more = found[-1].place
                    break
                found.append(ListedItem(row["pos"], kind.from_row(row)))
        found.following = None if more is None else str(more)
        found.notes = notes
        return found

    async def history_rows(
        self, stream: str, asked: AskedList, *, before: int | str | None, limit: int | None = None
    ) -> dict[str, Any]:
        """The page of the history alone: as many of its answers as it takes, each of which fits into a message. Raises as `page`."""
        query = {**asked.history_query(), "stream": stream}
        most = asked.limit if limit is None else limit
        before = "" if before is None else str(before)
        found: dict[str, Any] = {}
        size = 0
        while True:
            left = most - len(found.get("rows", ()))
            answer = await self._history.rows({**query, "before": before, "limit": left})
            if not found:
                found = dict(answer)
            else:
                found["rows"] += answer["rows"]
                found["scanned"] += answer["scanned"]
                found["next"] = answer["next"]
            size += len(orjson.dumps(answer["rows"]))
            if (
                answer["next"] is None
                or len(found["rows"]) >= most
                or found["scanned"] >= MOST_SCANNED
                or size >= MOST_BYTES
            ):
                return found
            before = answer["next"]

    async def behind(
        self, stream: str, subject: str, cursor: Mapping[str, Any] | None, pick: Callable[[StoredMessage], T | None]
    ) -> Sequence[T] | None:
        """What a stream has behind a cursor of the history, the newest first; None where that is more than is looked through.
        Raises BusUnavailable."""
        ends = _ends(await stream_info(self._bus.client, stream), cursor, there=True)
        if ends.taken == ends.last:
            return ()
        found = await self.look(stream, subject, pick, limit=MOST_SCANNED, after=ends.taken)
        return None if found.next is not None or len(found) == MOST_SCANNED else found

    async def look(
        self, stream: str, subject: str, pick: Callable[[StoredMessage], T | None], *, limit: int, after: int = 0
    ) -> StreamPage[T]:
        """See `stream_pages.newest`. Raises BusUnavailable."""
        return await newest(self._bus.client, stream, subject, limit=limit, pick=pick, after=after)

    async def _behind(
        self, kind: ListKind, asked: AskedList, ends: _Ends
    ) -> tuple[list[ListedItem], set[str], int | None]:
        """What the stream has that is not in the history: what is wanted of it, the ids of all that changed, and where it was cut."""
        end = ends.seq_before(asked.before)
        newest_seq: dict[str, int] = {}
        wanted = asked.wanted(kind.id_field)
        overlaid = kind.changes and ends.taken > 0
        if (ends.last if overlaid else end - 1) <= ends.taken:
            return [], set(), None

        def pick(message: StoredMessage) -> dict[str, Any] | None:
            item = kind.item(message)
            if item is None:
                return None
            item_id = str(item[kind.id_field])
            if overlaid:
                newest_seq[item_id] = max(newest_seq.get(item_id, 0), message.seq)
            return item if message.seq < end and _within(message, asked) and wanted(item) else None

        items: list[dict[str, Any]] = []
        cuts: list[int] = []
        for subject in kind.all_subjects if overlaid else kind.subjects(asked):
            low, high = (
                (ends.taken, None)
                if overlaid  # what changed before or after the time that is asked for is to be known
                else await self._between(kind.stream, subject, asked, ends.taken, end)
            )
            page = await newest(
                self._bus.client,
                kind.stream,
                subject,
                limit=asked.limit + 1,
                pick=pick,
                before=high,
                after=low,
            )
            items += page
            cuts += [page.next] if page.next is not None else []
            if len(page) > asked.limit:
                cuts.append(int(page[-1]["seq"]))
        newest_of: dict[str, dict[str, Any]] = {}
        for item in sorted(items, key=lambda item: -int(item["seq"])):
            item_id = str(item[kind.id_field])
            if item["seq"] >= newest_seq.get(item_id, 0) and (not kind.changes or item_id not in newest_of):
                newest_of[item_id if kind.changes else str(item["seq"])] = item
        cut = max(cuts, default=None)
        shown = [item for item in newest_of.values() if cut is None or item["seq"] >= cut]
        return [ListedItem(ends.place(item["seq"]), item) for item in shown], set(newest_seq), cut

    async def _between(self, stream: str, subject: str, asked: AskedList, low: int, high: int) -> tuple[int, int]:
        """The positions, both exclusive, between which is what was stored in the time that is asked for."""
        if asked.since_us is not None:
            first = await first_since(self._bus.client, stream, subject, format_us(asked.since_us))
            if first is None:
                return low, 0
            low = max(low, first - 1)
        if asked.until_us is not None:
            after = await first_since(self._bus.client, stream, subject, format_us(asked.until_us))
            if after is not None:
                high = min(high, after)
        return low, high


def without_history(error: BusUnavailable) -> str:
    """What is to be said of a list to which the history did not answer. Raises `error` where NATS itself did not."""
    if not error.reason.startswith(("no_history", "history_")):
        raise error
    return f"{NO_HISTORY}{error.detail}"


def _within(message: StoredMessage, asked: AskedList) -> bool:
    if asked.since_us is None and asked.until_us is None:
        return True
    at_us = to_us(parse_time(message.time))
    return (asked.since_us is None or at_us >= asked.since_us) and (asked.until_us is None or at_us < asked.until_us)


def _ends(info: Mapping[str, Any], cursor: Mapping[str, Any] | None, *, there: bool) -> _Ends:
    last = int(info["state"]["last_seq"])
    if cursor is None:
        return _Ends(1 if there else 0, 0, last)
    if cursor["identity"] == info["created"] and cursor["taken"] <= last:
        return _Ends(cursor["incarnation"], cursor["taken"], last)
    return _Ends(cursor["incarnation"] + 1, 0, last)  # the stream was made again, or went back
