"""What is kept of the history, and how much there is. Blocks; called from a thread. Meaning: docs/history.md, "Retention"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from whenthen.history import history_tables as tables
from whenthen.history.database import Database
from whenthen.history.history_queries import column_names
from whenthen.history.row_counts import RowCount, count_rows
from whenthen.schemas.history_rows import HOUR_US, event_marks

__all__ = ["STEP_ROWS", "HistoryStats", "Keep", "Retention", "TableStats", "read_stats"]

STEP_ROWS = 2000  #: that go in one transaction

#: tables by the class of `Keep` that they belong to
_CLASSES = {
    "events": (tables.events,),
    "decisions": (tables.decisions,),
    "firings": (tables.firings, tables.actions, tables.tries),
    "runs": (tables.runs, tables.run_states),
    "audit": (tables.audit,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How long each class is kept, by when the server stored what a row came from."""

    events: timedelta = timedelta(days=30)
    decisions: timedelta = timedelta(days=30)
    firings: timedelta = timedelta(days=90)
    runs: timedelta = timedelta(days=90)
    audit: timedelta = timedelta(days=365)
    tallies: timedelta = timedelta(days=400)


class Retention:
    """Drops what is older than `keep`, a step at a time."""

    def __init__(self, database: Database, keep: Keep) -> None:
        self._database = database
        self._keep = keep

    def step(self, *, now_us: int) -> int:
        """Drop up to `STEP_ROWS` of the oldest rows of each table; gives how many went, 0 when nothing is too old.

        Raises:
            HistoryUnavailable: the database can not be used now; what a step began is undone.
        """
        dropped = 0
        for name, of_class in _CLASSES.items():
            oldest_us = now_us - _us(getattr(self._keep, name))
            for table in of_class:
                dropped += self._drop(table, oldest_us)
        hour = (now_us - _us(self._keep.tallies)) // HOUR_US
        hour -= hour % tables.DAY_HOURS  # whole days go, as their tallies by day lie at their first hour
        with self._database.writing() as connection:
            table = tables.tallies
            first = connection.execute(sa.select(sa.func.min(table.c.hour)).where(table.c.kind != "")).scalar()
            if first is not None and first < hour:
                # an hour at a time: it has at most some thousand values of each kind
                dropped += connection.execute(sa.delete(table).where(table.c.hour == first)).rowcount
        return dropped

    def _drop(self, table: sa.Table, oldest_us: int) -> int:
        with self._database.writing() as connection:
            if table is tables.tries:
                return _drop_tries(connection, oldest_us)
            # times ascend with places, so the oldest rows are those with the lowest ones
            old = connection.execute(sa.select(table.c.pos, table.c.at_us).order_by(table.c.pos).limit(STEP_ROWS)).all()
            places = [row.pos for row in old if row.at_us < oldest_us]
            if not places:
                return 0
            if table is tables.events:
                _drop_marks(connection, places[-1])
            return connection.execute(sa.delete(table).where(table.c.pos <= places[-1])).rowcount


def _drop_marks(connection: Connection, last: int) -> None:
    """Drop the marks of events up to a place; they are made of the event again, as no index leads from an event to them."""
    table, marks = tables.events, tables.event_marks
    rows = connection.execute(sa.select(table.c.pos, table.c.doc).where(table.c.pos <= last))
    gone = [{"its_mark": mark, "its_pos": row.pos} for row in rows for mark in event_marks(orjson.loads(row.doc))]
    if gone:
        connection.execute(
            sa.delete(marks).where(marks.c.mark == sa.bindparam("its_mark"), marks.c.pos == sa.bindparam("its_pos")),
            gone,
        )


def _drop_tries(connection: Connection, oldest_us: int) -> int:
    """Drop those that are too old, which are told by two streams and so have no place."""
    table = tables.tries
    key = sa.tuple_(*table.primary_key.columns)
    old = sa.select(*table.primary_key.columns).where(table.c.at_us < oldest_us).order_by(table.c.at_us)
    return connection.execute(sa.delete(table).where(key.in_(old.limit(STEP_ROWS)))).rowcount


def _us(age: timedelta) -> int:
    return age // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStats:
    """How much a table holds."""

    rows: int  #: of PostgreSQL an estimate
    more: bool = False  #: there are more than `rows`; how many is being counted
    oldest_us: int | None = None
    newest_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryStats:
    """How much the history holds, and how far it is."""

    where: str
    bytes: int
    tables: Mapping[str, TableStats] = field(default_factory=dict)
    cursors: tuple[Mapping[str, Any], ...] = ()


def read_stats(database: Database, count: Callable[[Connection, sa.Table], RowCount] = count_rows) -> HistoryStats:
    """Without a `count` of its own everything is counted; of a large SQLite database that takes a while. Raises `HistoryUnavailable`."""
    found: dict[str, TableStats] = {}
    with database.reading() as connection:
        for table in tables.metadata.sorted_tables:
            if table is tables.cursors:
                continue
            oldest = newest = None
            if "at_us" in table.c:
                age = tables.age_order(table)
                ends = [
                    connection.execute(sa.select(table.c.at_us).order_by(order).limit(1)).scalar()
                    for order in (age.asc(), age.desc())
                ]
                oldest, newest = ends
            rows, more = count(connection, table)
            found[str(table.name)] = TableStats(rows=rows, more=more, oldest_us=oldest, newest_us=newest)
        names = column_names(tables.cursors)
        cursors = [dict(zip(names, row, strict=True)) for row in connection.execute(sa.select(tables.cursors))]
        if database.is_sqlite:
            pages = connection.execute(sa.text("PRAGMA page_count")).scalar() or 0
            size = pages * (connection.execute(sa.text("PRAGMA page_size")).scalar() or 0)
        else:
            size = connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar() or 0
    return HistoryStats(where=database.where, bytes=int(size), tables=found, cursors=tuple(cursors))
