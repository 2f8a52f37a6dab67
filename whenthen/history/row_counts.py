"""How many rows a table has, without counting a large one where somebody waits. Blocks; called from threads. Meaning: docs/history.md, "Retention"."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from whenthen.history.database import Database, HistoryUnavailable

__all__ = ["AT_ONCE", "RowCount", "RowCounts", "count_rows"]

log = logging.getLogger(__name__)

#: rows of a table that are counted where somebody waits: under a millisecond
AT_ONCE: Final = 20_000
#: for which the count of a large table is told again
KEPT_S: Final = 600.0
#: from which an estimate of PostgreSQL is near enough
_ESTIMATED = 100_000


class RowCount(NamedTuple):
    rows: int
    more: bool = False  #: there are more than these; how many is being counted


def count_rows(connection: Connection, table: sa.Table) -> RowCount:
    """Count them all, however many; of PostgreSQL a large table's estimate."""
    estimate = _estimate(connection, table)
    if estimate is None:
        estimate = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
    return RowCount(estimate)


class RowCounts:
    """Counts of the tables of one database; those of large ones are made in a thread of its own and kept."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history counts")
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[int, float]] = {}  #: rows, and when they were counted
        self._asked: set[str] = set()

    def count(self, connection: Connection, table: sa.Table) -> RowCount:
        """Up to `AT_ONCE` exactly; of more what was counted last, or, where nothing was yet, that there are more."""
        estimate = _estimate(connection, table)
        if estimate is not None:
            return RowCount(estimate)
        some = sa.select(sa.literal(1)).select_from(table).limit(AT_ONCE + 1).subquery()
        rows = connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()
        if rows <= AT_ONCE:
            return RowCount(rows)
        with self._lock:
            kept, at = self._kept.get(table.name, (None, 0.0))
            if (kept is None or self._clock() - at > KEPT_S) and table.name not in self._asked:
                self._asked.add(table.name)
                self._thread.submit(self._recount, table)
        return RowCount(AT_ONCE, more=True) if kept is None else RowCount(kept)

    def close(self) -> None:
        """End the thread after what it counts now."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _recount(self, table: sa.Table) -> None:
        rows = None
        try:
            with self._database.reading() as connection:
                rows = count_rows(connection, table).rows
        except HistoryUnavailable as error:  # whoever asks next has it counted
            log.info("the rows of %s are not counted: %s", table.name, error)
        finally:
            with self._lock:
                self._asked.discard(table.name)
                if rows is not None:
                    self._kept[table.name] = rows, self._clock()


def _estimate(connection: Connection, table: sa.Table) -> int | None:
    """PostgreSQL's own of a large table."""
    if connection.dialect.name != "postgresql":
        return None
    estimate = connection.execute(
        sa.text("SELECT reltuples FROM pg_class WHERE oid = CAST(:name AS regclass)"), {"name": table.name}
    ).scalar()
    return int(estimate) if estimate is not None and estimate > _ESTIMATED else None
