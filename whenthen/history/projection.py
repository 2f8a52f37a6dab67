"""Rows and the cursor that they belong to, written in one transaction. Blocks; called from a thread of `engine.projection`.

The transaction begins by moving the cursor from its old value, which fails where somebody else moved it: so nothing is counted
twice, however many projectors there are. Meaning: docs/history.md, "The cursor".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from whenthen.history import history_tables as tables
from whenthen.history.database import Database
from whenthen.schemas.errors import WhenthenError
from whenthen.schemas.history_rows import HOUR_US, KeyedRow, Rows, Tally, position

__all__ = ["OTHERS", "Cursor", "CursorMoved", "Projection", "read_cursors"]

MOST_FIRST = 1000  #: values of the first field that one kind's tallies tell apart in an hour
OTHERS = "(others)"
MOST_HOURS = 16  #: whose values are remembered
_CHUNK = 200  #: keys in one statement
_TRIES_LOCK = 0x77687472  #: of PostgreSQL's advisory locks, held from when tries are looked up until they are written


class CursorMoved(WhenthenError):
    """Another projector has taken these messages, or the database is another one; read the cursor again."""

    reason = "cursor_moved"


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a stream, or a shard of one, is in the history."""

    stream: str
    shard: int
    identity: str  #: of the stream: when it was created
    incarnation: int  #: counts the streams that had the name, from 1
    taken: int  #: the last sequence that is in the history
    clock_us: int  #: the latest time of a message in it; the next is no earlier

    def position(self, seq: int) -> int:
        """The place of a message of the stream."""
        return position(self.incarnation, seq)


def read_cursors(database: Database) -> list[Cursor]:
    """How far each stream, and each shard of one, is. Raises `HistoryUnavailable`."""
    with database.reading() as connection:
        return [Cursor(**row._mapping) for row in connection.execute(sa.select(tables.cursors))]


class Projection:
    """Writes to one database. For one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[tuple[str, int], set[str]] = {}  #: by kind and hour the values that are told apart

    def cursor(self, stream: str, *, identity: str, last_seq: int, known: Mapping[int, Cursor] | None = None) -> Cursor:
        """How far a stream that is read as one is. See `cursors`."""
        return self.cursors(stream, [0], identity=identity, last_seq=last_seq, known=known)[0]

    def known(self, stream: str) -> dict[int, Cursor]:
        """The cursors of a stream, by shard, to be read before one looks at the stream. Raises `HistoryUnavailable`."""
        return {each.shard: each for each in read_cursors(self._database) if each.stream == stream}

    def cursors(
        self,
        stream: str,
        shards: Sequence[int],
        *,
        identity: str,
        last_seq: int,
        known: Mapping[int, Cursor] | None = None,
    ) -> list[Cursor]:
        """How far each shard of a stream is. A stream that was made again, or that went back, begins as a new incarnation: the place
        of a message is never that of another one.

        `known` were the cursors before somebody found the stream to have `identity` and `last_seq`: with what others have taken since then
        it looks as if it had gone back, or were the one before. None: nobody else writes.

        Raises:
            CursorMoved: others have gone on since then, so that it is not certain which stream it is; look again.
            HistoryUnavailable: the database can not be used now.
        """
        table = tables.cursors
        with self._database.writing() as connection:
            rows = connection.execute(sa.select(table).where(table.c.stream == stream))
            found = {row.shard: Cursor(**row._mapping) for row in rows}
            incarnation = max((cursor.incarnation for cursor in found.values()), default=1)
            same = not found or any(cursor.identity == identity for cursor in found.values())
            # the last messages are in the history and not in the stream any more; what comes now is new
            back = same and any(cursor.taken > last_seq for cursor in found.values() if cursor.identity == identity)
            if back or not same:
                if known is not None and known != found:
                    raise CursorMoved(f"{stream} was projected by others while it was looked at")
                incarnation += 1
            now = []
            for shard in {*shards, *found}:
                old = found.get(shard, Cursor(stream, shard, "", 0, 0, 0))
                taken = min(old.taken, last_seq) if old.identity == identity else 0
                now.append(replace(old, identity=identity, incarnation=incarnation, taken=taken))
            if any(found.get(cursor.shard) != cursor for cursor in now):
                upsert = self._insert(table)
                upsert = upsert.on_conflict_do_update(
                    index_elements=[table.c.stream, table.c.shard],
                    set_={name: upsert.excluded[name] for name in ("identity", "incarnation", "taken", "clock_us")},
                )
                connection.execute(upsert, [asdict(cursor) for cursor in now])
            by_shard = {cursor.shard: cursor for cursor in now}
            return [by_shard[shard] for shard in shards]

    def write(self, moves: Sequence[tuple[Cursor, Cursor]], rows: Rows) -> None:
        """Write rows, and move each cursor from the first of a pair to the second.

        Raises:
            CursorMoved: one is somewhere else; nothing was written.
            HistoryUnavailable: the database can not be used now; nothing was written.
        """
        try:
            with self._database.writing() as connection:
                for old, new in sorted(moves, key=lambda move: move[0].shard):  # one order: none waits for another
                    self._move(connection, old, new)
                self._write_rows(connection, rows)
        except BaseException:
            self._known.clear()  # what the transaction added is not there
            raise

    def _move(self, connection: Connection, old: Cursor, new: Cursor) -> None:
        table = tables.cursors
        moved = connection.execute(
            sa.update(table)
            .where(
                table.c.stream == old.stream,
                table.c.shard == old.shard,
                table.c.identity == old.identity,
                table.c.incarnation == old.incarnation,
                table.c.taken == old.taken,
            )
            .values(taken=new.taken, clock_us=new.clock_us)
        )
        if moved.rowcount != 1:
            raise CursorMoved(f"{old.stream} is not at {old.taken} in the history any more")

    def _write_rows(self, connection: Connection, rows: Rows) -> None:
        counts = Counter(rows.counts)
        for run_id in sorted(rows.forgotten_runs):
            connection.execute(sa.delete(tables.run_states).where(tables.run_states.c.run == run_id))
            connection.execute(sa.delete(tables.runs).where(tables.runs.c.id == run_id))
        if rows.events:
            connection.execute(sa.insert(tables.events), rows.events)
            marks = [{"mark": mark, "pos": pos} for mark, pos in sorted(rows.marks)]
            if marks:
                connection.execute(sa.insert(tables.event_marks), marks)
            names = [{"name": name} for name in sorted(rows.names)]
            connection.execute(self._insert(tables.event_names).on_conflict_do_nothing(), names)
        if rows.decisions:
            connection.execute(sa.insert(tables.decisions), rows.decisions)
        for table, keyed in (
            (tables.firings, rows.firings),
            (tables.run_states, rows.run_states),
            (tables.audit, rows.audit),
        ):
            if keyed:
                self._write_keyed(connection, table, keyed, counts)
        moved = self._write_tries(connection, rows.tries, counts) if rows.tries else set()
        for table, newest in ((tables.actions, rows.actions), (tables.runs, rows.runs)):
            if newest:
                self._write_newest(connection, table, [newest[key] for key in sorted(newest)])
        if counts:
            self._count(connection, counts)
        if moved:
            table = tables.tallies
            hours = moved | {hour - hour % tables.DAY_HOURS for hour in moved}
            connection.execute(
                sa.delete(table).where(table.c.kind == "actions", table.c.hour.in_(hours), table.c["count"] <= 0)
            )

    def _write_keyed(
        self,
        connection: Connection,
        table: sa.Table,
        keyed: Mapping[tuple[Any, ...], KeyedRow],
        counts: Counter[Tally],
    ) -> None:
        """Insert those that are not there, and count them."""
        there = set(_existing(connection, table, list(keyed)))
        new = [each for key, each in keyed.items() if key not in there]
        if new:
            connection.execute(sa.insert(table), [row for row, _, _ in new])
        for _, tally, count in new:
            counts[tally] += count

    def _write_tries(
        self, connection: Connection, keyed: Mapping[tuple[Any, ...], KeyedRow], counts: Counter[Tally]
    ) -> set[int]:
        """Insert them, or replace what outcomes said by what events tell, whichever of their streams is projected first. So it is
        the same as if both had been read from the beginning. Gives the hours in which a try is counted no more."""
        table = tables.tries
        if not self._database.is_sqlite:  # two streams write it, each under a cursor of its own
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TRIES_LOCK)))
        there = _existing(connection, table, list(keyed), table.c.told, table.c.at_us)
        told = {row[:3]: (row[3], row[4] // HOUR_US) for row in there}
        taken = [
            (key, each) for key, each in sorted(keyed.items()) if key not in told or each[0]["told"] >= told[key][0]
        ]
        if taken:
            upsert = self._insert(table)
            names = ("told", "at", "at_us", "error", "sent")
            connection.execute(
                upsert.on_conflict_do_update(
                    index_elements=list(table.primary_key.columns),
                    set_={name: upsert.excluded[name] for name in names},
                ),
                [row for _, (row, _, _) in taken],
            )
        moved: set[int] = set()
        for key, (_, tally, count) in taken:
            before = told[key][1] if key in told else None
            if before == tally.hour:
                continue
            counts[tally] += count
            if before is not None:
                counts[tally._replace(hour=before)] -= count
                moved.add(before)
        return moved

    def _write_newest(self, connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
        """Insert, or replace what is older."""
        insert = self._insert(table)
        excluded = insert.excluded
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=[table.c.id],
                set_={column.name: excluded[column.name] for column in table.c if column.name != "id"},
                where=excluded.pos > table.c.pos,
            ),
            rows,
        )

    def _count(self, connection: Connection, counts: Counter[Tally]) -> None:
        table = tables.tallies
        summed: Counter[tuple[str, int, str, str, int]] = Counter()
        for (kind, first, second, hour), count in counts.items():
            name = self._told_apart(connection, kind, first, hour)
            summed[kind, 0, "", "", hour] += count
            summed[kind, 1, name, "", hour] += count
            if kind != "events":  # which have one field
                summed[kind, 2, "", second, hour] += count
                summed[kind, 3, name, second, hour] += count
        for (kind, level, first, second, hour), count in list(summed.items()):
            day = hour - hour % tables.DAY_HOURS
            summed[kind, level + tables.DAY_LEVELS, first, second, day] += count
        insert = self._insert(table)
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=list(table.primary_key.columns),
                set_={"count": table.c.count + insert.excluded["count"]},
            ),
            [
                {"kind": kind, "level": level, "first": first, "second": second, "hour": hour, "count": count}
                for (kind, level, first, second, hour), count in sorted(summed.items())
            ],
        )

    def _told_apart(self, connection: Connection, kind: str, first: str, hour: int) -> str:
        """`first`, or `OTHERS` where the hour has enough values already."""
        known = self._known.get((kind, hour))
        if known is None:
            table = tables.tallies
            found = connection.execute(
                sa.select(table.c.first).where(table.c.kind == kind, table.c.level == 1, table.c.hour == hour)
            )
            known = set(found.scalars())
            while len(self._known) >= MOST_HOURS:
                del self._known[next(iter(self._known))]
            self._known[kind, hour] = known
        if first in known:
            return first
        if len(known) >= MOST_FIRST:
            return OTHERS
        known.add(first)
        return first

    def _insert(self, table: sa.Table) -> Any:
        """An INSERT that knows ON CONFLICT, which both databases write alike."""
        return sqlite.insert(table) if self._database.is_sqlite else postgresql.insert(table)


def _existing(
    connection: Connection, table: sa.Table, keys: Sequence[tuple[Any, ...]], *more: sa.Column[Any]
) -> Iterator[tuple[Any, ...]]:
    """The keys that are there, each with the values of the columns `more`."""
    columns = list(table.primary_key.columns)
    for some in _chunks(keys):
        if len(columns) == 1:
            wanted = columns[0].in_([key[0] for key in some])
        else:
            wanted = sa.tuple_(*columns).in_(some)
        for row in connection.execute(sa.select(*columns, *more).where(wanted)):
            yield tuple(row)


def _chunks(keys: Sequence[tuple[Any, ...]]) -> Iterable[Sequence[tuple[Any, ...]]]:
    for start in range(0, len(keys), _CHUNK):
        yield keys[start : start + _CHUNK]
