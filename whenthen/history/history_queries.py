"""Lists and counts from the history. Blocks; called from threads. Meaning: docs/history.md, "Lists".

One index serves a list; what it does not cover is compared row by row, for at most `SCAN_ROWS` rows an answer.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from whenthen.history import history_tables as tables
from whenthen.history.database import Database
from whenthen.history.tally_query import MOST_POINTS, tally_query
from whenthen.schemas.errors import InvalidInput, did_you_mean
from whenthen.schemas.history_rows import HOUR_US, INCARNATION_BITS, INDEXED_CHARS, label_mark, position, related_mark
from whenthen.schemas.list_filters import DOCUMENT_FILTERS, document_test, has_key_parts, is_about, row_text_test

__all__ = ["SCAN_ROWS", "HistoryPage", "HistoryQuery", "HistoryReader", "column_names"]

SCAN_ROWS = 50_000  #: that are looked at for one answer
MOST_ROWS = 1000  #: of one answer
MOST_NAMES = 100  #: that a glob may stand for to be served by the index of names
LEAST_ID_CHARS = 4  #: of an id prefix
MOST_IDS = 1000  #: that begin with a prefix; where there are more, rows are found by something else and compared
MOST_BYTES = 8 << 20  #: of the rows of an answer
MOST_EVENTS = 200  #: of which reasons are counted in one answer
_FIRST_READ, _MOST_READ = 64, 2000
_WILD = re.compile(r"[*?\[]")
_ID = re.compile(r"[0-9A-Za-z_-]{1,128}")  #: of a run, as part of a place


@dataclass(frozen=True, slots=True)
class _Kind:
    """What can be asked of one kind of rows."""

    table: sa.Table
    equal: tuple[str, ...]  #: columns that a filter may name
    indexes: tuple[tuple[str, ...], ...]  #: columns that an index begins with, those that leave fewest rows first
    fields: tuple[str, ...]  #: the two fields of its tallies
    id: str = "id"
    order: tuple[str, ...] = ("pos",)  #: columns by which rows are listed, descending
    at: str = "at_us"  #: what a time range is about


_KINDS = {
    "events": _Kind(tables.events, ("name",), (("name",),), ("name",)),
    "decisions": _Kind(
        tables.decisions,
        ("automation", "reason", "event", "firing", "key"),
        (("firing",), ("event",), ("automation", "reason"), ("automation",), ("reason",)),
        ("automation", "reason"),
        id="event",
        order=("pos", "row"),
    ),
    "firings": _Kind(
        tables.firings,
        ("automation", "state", "key", "event"),
        (("event",), ("key",), ("automation", "state"), ("automation",), ("state",)),
        ("automation", "state"),
    ),
    "actions": _Kind(
        tables.actions,
        ("automation", "state", "firing", "type"),
        (("firing",), ("automation", "state"), ("automation",), ("state",), ("type",)),
        ("automation", "state"),
    ),
    "runs": _Kind(
        tables.runs,
        ("deployment", "state", "work_pool"),
        (("deployment", "state"), ("deployment",), ("state",), ("work_pool",)),
        ("deployment", "state"),
        order=("created_us", "id"),  # so that a run that changes stays where it is
        at="created_us",
    ),
    "audit": _Kind(tables.audit, ("kind", "who"), (("kind",), ("who",)), ("kind", "cause")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """What a list shows, newest first. Filters that are not of the kind are refused."""

    kind: str
    equal: Mapping[str, str] = field(default_factory=dict)  #: by column; `name` of events may be a glob
    id_prefix: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)  #: of the resource of events
    related: str = ""  #: id of a related resource of events
    about: Mapping[str, str] = field(default_factory=dict)  #: of documents, texts or globs: see `schemas.list_filters`
    key_parts: Mapping[str, str] = field(default_factory=dict)  #: of the keys of firings
    since_us: int | None = None
    until_us: int | None = None  #: exclusive
    text: str = ""  #: anywhere, whatever its case
    before: str = ""  #: where the page before ended
    limit: int = 50
    most_bytes: int = MOST_BYTES  #: of the rows' documents; at least one row comes
    stream: str = ""  #: the answer says how far it is in the history, and `before` may be a sequence of it


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Rows, the newest first, each with its columns and what its document has."""

    rows: list[dict[str, Any]]
    next: str | None  #: `before` of the next page; None at the end
    scanned: int  #: rows that were looked at
    whole: bool  #: False: it stopped after `SCAN_ROWS` or `most_bytes`, and the page is not full
    cursor: dict[str, Any] | None = (
        None  #: how far the stream is that was asked for; None when it is not in the history
    )


@dataclass(slots=True)
class _Way:
    """How rows are found: by an index of the table itself, or by places found elsewhere."""

    where: list[Any] = field(default_factory=list)
    covered: set[str] = field(default_factory=set)  #: filters that need not be compared
    marks: int | None = None
    names: list[str] | None = None


class HistoryReader:
    """Answers from one database. For any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, query: HistoryQuery) -> HistoryPage:
        """A page.

        Raises:
            InvalidInput: a filter is none of the kind's.
            HistoryUnavailable: the database can not be used now.
        """
        kind = _kind(query.kind)
        _check(kind, query)
        with self._database.reading() as connection:
            if not query.stream:
                return _list(connection, kind, query)
            cursor = _cursor(connection, query.stream)
            placed = _placed(query, cursor) if kind.order[0] == "pos" else query
            return replace(_list(connection, kind, placed), cursor=cursor)

    def counts(
        self,
        kind: str,
        *,
        since_us: int,
        until_us: int,
        by: str | None = None,
        equal: Mapping[str, str] | None = None,
        step_hours: int = 1,
    ) -> list[tuple[int, str, int]]:
        """How many there were: (start of the step in microseconds, value of `by`, count), ascending; steps without any are left out.

        `by` is one of the kind's fields, and `equal` may fix one or both. Hours count whole.

        Raises:
            InvalidInput: a field is none of the kind's, or it would be too many numbers.
            HistoryUnavailable: the database can not be used now.
        """
        select = tally_query(
            kind,
            _kind(kind).fields,
            since_us=since_us,
            until_us=until_us,
            by=by,
            equal=equal or {},
            step_hours=step_hours,
        )
        with self._database.reading() as connection:
            found = [
                (int(row.start) * HOUR_US, row.value if by else "", int(row.total))
                for row in connection.execute(select)
            ]
        if len(found) > MOST_POINTS:
            raise InvalidInput(
                f"these are more than {MOST_POINTS} numbers; take a longer step or a shorter time", path=("step",)
            )
        return found

    def states(self, run_id: str) -> list[dict[str, Any]]:
        """The states that a run entered, the first one first. Raises `HistoryUnavailable`."""
        table = tables.run_states
        return self._parts(table, table.c.run == run_id, [table.c.pos])

    def tries(self, action: str) -> list[dict[str, Any]]:
        """The tries of an action, the first one first. Raises `HistoryUnavailable`."""
        table = tables.tries
        return self._parts(table, table.c.action == action, [table.c.attempt, table.c.at_us])

    def event_reasons(self, events: Sequence[str]) -> list[tuple[str, str, int]]:
        """Event, reason and how many decisions there are of it, of at most `MOST_EVENTS`. Raises `HistoryUnavailable`."""
        columns = tables.decisions.c
        select = (
            sa.select(columns.event, columns.reason, sa.func.count())
            .where(columns.event.in_(list(events)[:MOST_EVENTS]))
            .group_by(columns.event, columns.reason)
            .limit(MOST_POINTS)
        )
        with self._database.reading() as connection:
            return [(event, reason, count) for event, reason, count in connection.execute(select)]

    def _parts(
        self, table: sa.Table, where: sa.ColumnElement[bool], order: Sequence[sa.Column[Any]]
    ) -> list[dict[str, Any]]:
        select = sa.select(table).where(where).order_by(*order).limit(MOST_ROWS)
        with self._database.reading() as connection:
            return [dict(zip(column_names(table), row, strict=True)) for row in connection.execute(select)]


def column_names(table: sa.Table) -> list[str]:
    """As plain texts: SQLAlchemy's are of a class that orjson takes for no key."""
    return [str(column.name) for column in table.c]


def _kind(name: str) -> _Kind:
    if name not in _KINDS:
        raise InvalidInput(f"{name[:40]!r} is not in the history; it has {', '.join(_KINDS)}", path=("kind",))
    return _KINDS[name]


def _check(kind: _Kind, query: HistoryQuery) -> None:
    for name in query.equal:
        if name not in kind.equal:
            hint = did_you_mean(name, kind.equal)
            raise InvalidInput(f"{query.kind} have no filter {name[:40]!r}{hint}", path=(name,))
    if query.kind != "events" and (query.labels or query.related):
        raise InvalidInput(f"{query.kind} have no labels; events have", path=("label" if query.labels else "related",))
    for name in query.about:
        if name not in (filters := DOCUMENT_FILTERS.get(query.kind, {})):
            hint = did_you_mean(name, filters)
            raise InvalidInput(f"{query.kind} have no filter {name[:40]!r}{hint}", path=(name,))
    if query.kind != "firings" and query.key_parts:
        raise InvalidInput(f"{query.kind} have no keys of several values; firings have", path=("key",))
    if query.id_prefix and len(query.id_prefix) < LEAST_ID_CHARS:
        raise InvalidInput(
            f"{query.id_prefix!r} is too short; write {LEAST_ID_CHARS} characters of the id or more", path=("id",)
        )
    if not 1 <= query.limit <= MOST_ROWS:
        raise InvalidInput(f"{query.limit} is not between 1 and {MOST_ROWS}", path=("limit",))


def _list(connection: Connection, kind: _Kind, query: HistoryQuery) -> HistoryPage:
    table = kind.table
    order = [table.c[name] for name in kind.order]
    place = _place(query.before, kind.order)
    low, high = _bounds(connection, kind, query)
    if high is not None and (place is None or high < place[0]):
        place = (high, *["" if name == "id" else -1 for name in kind.order[1:]])
    way = _way(connection, kind, query)
    matches = _residual(kind, query, way)
    names = column_names(table)
    found: list[dict[str, Any]] = []
    scanned = size = 0
    last: tuple[Any, ...] | None = None
    whole = True
    for row in _rows(connection, table, order, way, place, low):
        if scanned == SCAN_ROWS or size > query.most_bytes:
            whole = False
            break
        fields: dict[str, Any] = dict(zip(names, row, strict=True))
        scanned += 1
        last = tuple(fields[column.name] for column in order)
        if matches(fields):
            doc = fields.pop("doc", "{}")
            size += len(doc)
            found.append({**orjson.loads(doc), **fields})
            if len(found) == query.limit:
                break
    else:
        last = None
    return HistoryPage(found, ".".join(map(str, last)) if last is not None else None, scanned, whole)


def _placed(query: HistoryQuery, cursor: dict[str, Any] | None) -> HistoryQuery:
    """The query with a sequence of the stream of today as a place."""
    before = query.before
    if cursor is None or not before.isascii() or not before.isdecimal() or len(before) > 19:
        return query
    seq = int(before)
    if seq >> INCARNATION_BITS:
        return query
    return replace(query, before=str(position(cursor["incarnation"], seq)))


def _cursor(connection: Connection, stream: str) -> dict[str, Any] | None:
    """How far a stream that is read as one is."""
    table = tables.cursors
    row = connection.execute(sa.select(table).where(table.c.stream == stream, table.c.shard == 0)).one_or_none()
    return None if row is None else dict(zip(column_names(table), row, strict=True))


def _place(before: str, order: Sequence[str]) -> tuple[Any, ...] | None:
    if not before:
        return None
    words = before.split(".")
    if len(words) != len(order) or not all(map(_is_place, order, words)):
        raise InvalidInput(
            f"{before[:80]!r} is no place in this list; take `next` of the page before", path=("before",)
        )
    return tuple(word if name == "id" else int(word) for name, word in zip(order, words, strict=True))


def _is_place(name: str, word: str) -> bool:
    if name == "id":
        return _ID.fullmatch(word) is not None
    return re.fullmatch(r"\d{1,19}", word, re.ASCII) is not None and int(word) < 1 << 63


def _bounds(connection: Connection, kind: _Kind, query: HistoryQuery) -> tuple[int, int | None]:
    """The first place of the time range, and the one after its last; times ascend with places, so they are found by halves."""
    if query.since_us is None and query.until_us is None:
        return 0, None
    if kind.order[0] == kind.at:
        return query.since_us or 0, query.until_us
    table = kind.table
    ends = connection.execute(
        sa.select(
            sa.select(sa.func.min(table.c.pos)).scalar_subquery(), sa.select(sa.func.max(table.c.pos)).scalar_subquery()
        )
    ).one()
    if ends[0] is None:
        return 0, None
    at = (
        sa.select(table.c.pos, table.c.at_us)
        .where(table.c.pos >= sa.bindparam("from_pos"))
        .order_by(table.c.pos)
        .limit(1)
    )

    def first_from(moment: int) -> int:
        low, high = ends[0], ends[1] + 1  # every place before `low` is earlier, none from `high` on
        while low < high:
            row = connection.execute(at, {"from_pos": (low + high) // 2}).one_or_none()
            if row is None or row.at_us >= moment:
                high = (low + high) // 2
            else:
                low = row.pos + 1
        return int(low)

    low = first_from(query.since_us) if query.since_us is not None else 0
    return low, first_from(query.until_us) if query.until_us is not None else None


def _way(connection: Connection, kind: _Kind, query: HistoryQuery) -> _Way:
    """The index that serves the list."""
    table = kind.table
    if query.id_prefix:
        some = sa.select(table.c.pos).where(*_begins(table.c[kind.id], query.id_prefix)).limit(MOST_IDS + 1)
        places = connection.execute(some).scalars().all()
        if len(places) <= MOST_IDS:
            return _Way([table.c.pos.in_(places)])
    if query.labels:
        name, value = next(iter(query.labels.items()))
        return _Way(marks=label_mark(name, value))
    if query.related:
        return _Way(marks=related_mark(query.related))
    exact = {name: value for name, value in query.equal.items() if name != "name"}
    for index in kind.indexes:
        if all(name in exact for name in index) and all(len(exact[name]) <= INDEXED_CHARS for name in index):
            way = _Way([table.c[name] == exact[name] for name in index], set(index))
            if index == ("firing",) and "row" in table.c:
                way.where.append(sa.text("firing <> ''"))
            return way
    if "name" in query.equal:
        return _by_name(connection, query.equal["name"])
    return _Way()


def _by_name(connection: Connection, glob: str) -> _Way:
    if _WILD.search(glob) is None:
        return _Way(names=[glob], covered={"name"})
    start = glob[: _WILD.search(glob).start()]  # type: ignore[union-attr] # found above
    column = tables.event_names.c.name
    select = sa.select(column).where(*_begins(column, start)).limit(SCAN_ROWS + 1)
    every = connection.execute(select).scalars().all()
    pattern = re.compile(fnmatch.translate(glob))
    names = [name for name in every if pattern.match(name)]
    return _Way(names=names, covered={"name"}) if len(every) <= SCAN_ROWS and len(names) <= MOST_NAMES else _Way()


def _begins(column: sa.Column[Any], start: str) -> list[sa.ColumnElement[bool]]:
    """Texts that begin so, as a range; anything begins with nothing."""
    return [column >= start, column < start + "\U0010ffff"] if start else []


def _residual(kind: _Kind, query: HistoryQuery, way: _Way) -> Callable[[dict[str, Any]], bool]:
    """What the index does not cover."""
    tests: list[Callable[[dict[str, Any]], bool]] = []
    for name, value in query.equal.items():
        if name in way.covered:
            continue
        if name == "name":
            pattern = re.compile(fnmatch.translate(value))
            tests.append(lambda row, pattern=pattern: pattern.match(row["name"]) is not None)  # type: ignore[misc]
        else:
            tests.append(lambda row, name=name, value=value: row[name] == value)  # type: ignore[misc]
    if query.id_prefix:
        tests.append(lambda row: row[kind.id].startswith(query.id_prefix))
    if query.labels or query.related:
        tests.append(lambda row: is_about(orjson.loads(row["doc"]), query.labels, query.related))
    if query.about:
        fits = document_test(query.kind, query.about)
        tests.append(lambda row: fits(orjson.loads(row["doc"])))
    if query.key_parts:
        tests.append(lambda row: has_key_parts(row["key"], query.key_parts))
    if query.since_us is not None:
        since = query.since_us
        tests.append(lambda row: row[kind.at] >= since)
    if query.until_us is not None:
        until = query.until_us
        tests.append(lambda row: row[kind.at] < until)
    if query.text:
        tests.append(row_text_test(query.kind, query.text))
    return lambda row: all(test(row) for test in tests)


def _rows(
    connection: Connection,
    table: sa.Table,
    order: Sequence[sa.Column[Any]],
    way: _Way,
    place: tuple[Any, ...] | None,
    low: int,
) -> Iterator[Any]:
    """Rows from `place` on towards `low`, newest first, in reads that grow."""
    size = _FIRST_READ
    while True:
        rows = connection.execute(_select(table, order, way, place, low, size).limit(size)).all()
        yield from rows
        if len(rows) < size:
            return
        place = tuple(rows[-1]._mapping[column.name] for column in order)
        size = min(size * 4, _MOST_READ)


def _select(
    table: sa.Table, order: Sequence[sa.Column[Any]], way: _Way, place: tuple[Any, ...] | None, low: int, size: int
) -> Any:
    """The rows that follow in the list; the first `size` of them are those of the whole list."""
    newest = [column.desc() for column in order]

    def between(pos: Any, *more: Any) -> list[Any]:
        tests = [pos >= low] if low else []
        if place is not None:
            tests.append(sa.tuple_(pos, *more) < sa.tuple_(*map(sa.literal, place)) if more else pos < place[0])
        return tests

    if way.marks is not None:
        marks = tables.event_marks
        places = sa.select(marks.c.pos).where(marks.c.mark == way.marks, *between(marks.c.pos))
        places = places.order_by(marks.c.pos.desc()).limit(size)
        return sa.select(table).where(table.c.pos.in_(places)).order_by(*newest)
    if way.names is not None:
        if len(way.names) == 1:
            return sa.select(table).where(table.c.name == way.names[0], *between(*order)).order_by(*newest)
        if not way.names:
            return sa.select(table).where(sa.false())
        # of each name the newest ones: an index that serves one name in order does not serve several
        each = [
            sa.select(table.c.pos)
            .where(table.c.name == name, *between(*order))
            .order_by(*newest)
            .limit(size)
            .subquery()
            for name in way.names
        ]
        return (
            sa.select(table).where(table.c.pos.in_(sa.union_all(*(sa.select(one) for one in each)))).order_by(*newest)
        )
    return sa.select(table).where(*way.where, *between(*order)).order_by(*newest)
