"""The database of the history: opened, brought up to date, and what goes wrong with it said in one way.

Everything here blocks: called from threads of `engine.projection`. Meaning: docs/history.md, "When the database is not there".
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sqlite3
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from whenthen.schemas.errors import SetupError, WhenthenError

__all__ = ["KNOWN_REVISIONS", "MIGRATIONS", "Database", "HistoryUnavailable"]

MIGRATIONS = Path(__file__).parent / "migrations"
KNOWN_REVISIONS = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
)  #: of the migrations, the last one is what this version needs
BUSY_S = 5.0  #: until a locked database is an error
OPENING_S = 30.0  #: until it is when the database is opened: another process may be making its tables
_TIMES = 20  #: that a new file is in use each time
CACHE_KIB = 64 << 10
_READING = "whenthen_reading"
_LOCK = 0x7768656E  #: of PostgreSQL's advisory locks, held while tables are made
#: Alembic keeps the connection that it migrates in its modules: a second thread would migrate the first one's, which kills the process
_ALEMBIC = threading.Lock()
_SQLITE_REASONS = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_PERM: "read_only",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
    sqlite3.SQLITE_CANTOPEN: "no_access",
}
#: classes and codes of SQLSTATE
_POSTGRES_REASONS = {
    "53100": "full",
    "25006": "read_only",
    "42501": "no_access",
    "55P03": "locked",
    "57014": "locked",
    "28": "no_access",
}
_REMEDIES = {
    "locked": "another program holds a lock on it; it is tried again",
    "full": "its disk is full; make room, or keep less (history_events and the like)",
    "read_only": "it can not be written; give this user the right to",
    "damaged": "it is damaged or no database of ours; move it away, and it is filled again from the streams",
    "no_access": "it can not be opened; look at its path, its name and its rights",
    "newer": "a later version of whenthen wrote it; start that version, or name another database",
    "unreachable": "it can not be reached or gave up; it is tried again",
}


class HistoryUnavailable(WhenthenError):
    """The database can not be used at the moment. `reason` is one of a bounded set."""

    def __init__(self, where: str, reason: str, cause: str = "") -> None:
        super().__init__(f"the history at {where}: {_REMEDIES[reason]}{f' ({cause})' if cause else ''}")
        self.reason = reason


class Database:
    """SQLite at a path, or PostgreSQL at a URL. Opened when it is first used, and again after its file went away."""

    def __init__(self, where: Path | str) -> None:
        """Raises SetupError: the URL is none of PostgreSQL's, or its driver is not installed."""
        self._path = where if isinstance(where, Path) else None
        if self._path is not None:
            self._url = sa.URL.create("sqlite", database=str(self._path))
        else:
            try:
                url = sa.make_url(str(where))
            except SQLAlchemyError:
                raise SetupError("history: not a URL; write postgresql://user@host/database") from None
            if url.drivername not in ("postgresql", "postgres"):
                raise SetupError(
                    f"history: {url.drivername[:40]!r} is no database of ours; write postgresql://user@host/database"
                )
            if importlib.util.find_spec("psycopg") is None:
                raise SetupError("history: PostgreSQL needs psycopg; pip install 'whenthen[postgres]'")
            self._url = url.set(drivername="postgresql+psycopg")
        self._engine: Engine | None = None
        self._inode: tuple[int, int] | None = None
        self._opening = threading.Lock()

    @property
    def where(self) -> str:
        """For people: the path, or the URL without its password."""
        return str(self._path) if self._path is not None else self._url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        return self._path is not None

    def close(self) -> None:
        """Give up all connections."""
        with self._opening:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes; committed at the end, rolled back on an error.

        Raises:
            HistoryUnavailable: the database can not be used now, or a later version has brought it up to date since it was opened.
        """
        with self._translated(), self._opened().begin() as connection:
            # PostgreSQL holds the row, so that no migration ends before this transaction does; SQLite has one writer
            held = "" if self.is_sqlite else " FOR SHARE"
            found = connection.execute(sa.text(f"SELECT version_num FROM alembic_version{held}")).scalar()
            if found != KNOWN_REVISIONS[-1]:
                raise HistoryUnavailable(self.where, "newer", f"its revision is {str(found)[:40]}")
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads; what it sees does not change. Raises `HistoryUnavailable`."""
        with self._translated(), self._opened().connect() as plain:
            connection = plain.execution_options(**{_READING: True})
            if not self.is_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def _opened(self) -> Engine:
        with self._opening:
            if self._engine is not None and self._file() == self._inode:
                return self._engine
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None
            first = self._make_engine(OPENING_S)
            try:
                self._migrate(first)
            finally:
                first.dispose()
            self._engine, self._inode = self._make_engine(BUSY_S), self._file()
            return self._engine

    def _file(self) -> tuple[int, int] | None:
        """Which file the path leads to; a connection goes on writing to one that was deleted."""
        if self._path is None:
            return None
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _make_engine(self, busy_s: float) -> Engine:
        """Connections that wait so long for a lock."""
        if self._path is None:
            return sa.create_engine(
                self._url,
                pool_pre_ping=True,
                pool_size=4,
                connect_args={
                    "connect_timeout": 5,
                    "application_name": "whenthen",
                    "options": f"-c statement_timeout=60000 -c lock_timeout={busy_s * 1000:.0f}",
                },
            )
        if not self._path.exists():
            # left over from a file that was deleted, they would be taken for the new one's
            for name in (f"{self._path}-wal", f"{self._path}-shm"):
                Path(name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # said when it is opened
                os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600))
        engine = sa.create_engine(self._url, connect_args={"timeout": busy_s, "check_same_thread": False})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _migrate(self, engine: Engine) -> None:
        """Bring the tables up to date. Two processes that start at once wait for each other."""
        with engine.begin() as connection:
            if not self.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
                connection.execute(sa.text("SET LOCAL statement_timeout = 0"))  # large tables take their time
            found = None
            if sa.inspect(connection).has_table("alembic_version"):
                found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
            if found == KNOWN_REVISIONS[-1]:
                return
            if found is not None and found not in KNOWN_REVISIONS:
                raise HistoryUnavailable(self.where, "newer", f"its revision is {str(found)[:40]}")
            from alembic import command  # takes time and memory that most starts can save
            from alembic.config import Config

            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            with _ALEMBIC:
                command.upgrade(config, "head")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise HistoryUnavailable(self.where, _reason(error.orig), textwrap.shorten(str(error.orig), 200)) from error
        except (SQLAlchemyError, OSError) as error:
            raise HistoryUnavailable(self.where, "unreachable", textwrap.shorten(str(error), 200)) from error


def _reason(error: BaseException | None) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE_REASONS.get(code & 0xFF, "unreachable")
    state = getattr(error, "sqlstate", None) or ""
    return _POSTGRES_REASONS.get(state) or _POSTGRES_REASONS.get(state[:2]) or "unreachable"


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy says so
    _write_ahead(connection)
    for pragma in (
        "synchronous=NORMAL",
        f"cache_size=-{CACHE_KIB}",
        "temp_store=MEMORY",
        "wal_autocheckpoint=4000",
        f"journal_size_limit={64 << 20}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Have the file written ahead, as it is from then on. Of those who open a new file at once SQLite refuses this to all but one, and lets
    none of them wait, as it lets who wants to write.
    """
    for left in reversed(range(_TIMES)):
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or not left:
                raise
        connection.execute("BEGIN EXCLUSIVE").close()
        connection.execute("ROLLBACK").close()


def _begin_sqlite(connection: Connection) -> None:
    # a transaction that began by reading could not write once another one has
    reading = connection.get_execution_options().get(_READING)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
