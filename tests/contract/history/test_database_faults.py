"""What is wrong with the database of the history is said in a word and a line, and mended it goes on."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.contract.history.history_messages import IDENTITY, event, project
from tests.patience import eventually
from tests.postgres import Postgres, postgres
from whenthen.history import Database, HistoryQuery, HistoryReader, HistoryUnavailable, Projection
from whenthen.history.database import KNOWN_REVISIONS, MIGRATIONS
from whenthen.schemas.errors import SetupError

SCRIPT = Path(__file__).parent / "fault_process.py"
ROOT = Path(__file__).parents[3]
#: makes the databases that it is given, all at one time
MAKE_AT_ONCE = """
import sys, threading
from pathlib import Path
from whenthen.history import Database

start = threading.Barrier(len(sys.argv) - 1)

def make(path):
    database = Database(Path(path))
    start.wait()
    with database.reading():
        print(path)
    database.close()

for path in sys.argv[1:]:
    threading.Thread(target=make, args=(path,)).start()
"""


def count(database: Database) -> int:
    return len(HistoryReader(database).page(HistoryQuery(kind="events")).rows)


def test_the_revisions_are_those_of_the_migrations() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    found = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == KNOWN_REVISIONS


def test_databases_that_threads_of_one_process_make_at_once_are_each_made(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.db") for number in range(4)]
    # in a process of its own: threads that took each other's connection would end this one with a segmentation fault
    done = subprocess.run(
        [sys.executable, "-c", MAKE_AT_ONCE, *paths], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, sorted(done.stdout.split()), done.stderr) == (0, paths, "")
    for path in paths:
        assert count(Database(Path(path))) == 0


def test_a_database_of_a_later_version_is_left_alone(database: Database) -> None:
    project(Projection(database), "EVENTS", event(1))
    with database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(HistoryUnavailable, match="later version of whenthen wrote it") as caught:
        count(database)
    assert caught.value.reason == "newer"
    with pytest.raises(HistoryUnavailable):
        project(Projection(database), "EVENTS", event(2))


def test_a_later_version_that_brings_the_database_up_to_date_ends_what_this_one_writes(database: Database) -> None:
    projection = Projection(database)
    project(projection, "EVENTS", event(1))
    with database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(HistoryUnavailable) as caught:
        project(projection, "EVENTS", event(2))
    assert caught.value.reason == "newer"
    assert count(database) == 1


def test_a_locked_database_is_written_once_the_lock_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whenthen.history.database.BUSY_S", 0.1)
    database = Database(tmp_path / "history.db")
    project(Projection(database), "EVENTS", event(1))
    other = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HistoryUnavailable) as caught:
        project(Projection(database), "EVENTS", event(2))
    assert caught.value.reason == "locked"
    assert count(database) == 1  # which still answers
    other.execute("ROLLBACK")
    other.close()
    project(Projection(database), "EVENTS", event(2))
    assert count(database) == 2
    database.close()


def test_a_new_file_that_another_process_writes_first_is_opened_once_that_is_done(tmp_path: Path) -> None:
    said: list[str] = []

    def trace(connection: sqlite3.Connection, _: object) -> None:
        connection.set_trace_callback(said.append)

    other = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE theirs (number INTEGER)")
    database = Database(tmp_path / "history.db")
    sa.event.listen(sa.Pool, "connect", trace)
    try:
        with ThreadPoolExecutor(1) as pool:
            counted = pool.submit(count, database)
            eventually(lambda: "BEGIN EXCLUSIVE" in said or counted.done())
            other.execute("COMMIT")
            other.close()
            assert counted.result() == 0
    finally:
        sa.event.remove(sa.Pool, "connect", trace)
        database.close()


def test_a_file_that_is_no_database_is_said_to_be_damaged_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"this is text" * 1000)
    with pytest.raises(HistoryUnavailable, match="move it away") as caught:
        count(Database(path))
    assert caught.value.reason == "damaged"
    assert path.read_bytes() == b"this is text" * 1000


def test_a_folder_that_is_not_there_is_no_access(tmp_path: Path) -> None:
    with pytest.raises(HistoryUnavailable) as caught:
        count(Database(tmp_path / "nowhere" / "history.db"))
    assert caught.value.reason == "no_access"


def test_a_deleted_file_is_made_again_and_its_cursor_begins_anew(tmp_path: Path) -> None:
    database = Database(tmp_path / "history.db")
    project(Projection(database), "EVENTS", event(1))
    for path in tmp_path.glob("history.db*"):
        path.unlink()
    assert Projection(database).cursor("EVENTS", identity=IDENTITY, last_seq=1).taken == 0
    project(Projection(database), "EVENTS", event(1), event(2))
    assert count(database) == 2
    database.close()


def in_own_file_system(script: str) -> str:
    """What a shell script printed that may mount what others do not see."""
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout


@pytest.mark.requires("an own file system")
def test_a_full_disk_undoes_the_transaction_and_is_named(tmp_path: Path) -> None:
    script = (
        f'mount -t tmpfs -o size=2m tmpfs "{tmp_path}" && exec "{sys.executable}" "{SCRIPT}" "{tmp_path}/history.db"'
    )
    said = in_own_file_system(script)
    assert said.startswith("full "), said
    assert "make room" in said


@pytest.mark.requires("an own file system")
def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    database = Database(tmp_path / "history.db")
    project(Projection(database), "EVENTS", event(1))
    database.close()
    script = (
        f'mount --bind "{tmp_path}" "{tmp_path}" && mount -o remount,bind,ro "{tmp_path}" && '
        f'exec "{sys.executable}" "{SCRIPT}" "{tmp_path}/history.db"'
    )
    said = in_own_file_system(script)
    assert said.split()[0] in ("read_only", "no_access"), said


@pytest.mark.requires("postgresql")
def test_postgresql_that_is_away_read_only_or_back_again() -> None:
    with postgres() as cluster:
        database = Database(cluster.database("history"))
        project(Projection(database), "EVENTS", event(1))
        _away(cluster, database)
        project(Projection(database), "EVENTS", event(2))
        with database.writing() as connection:
            connection.execute(sa.text("ALTER DATABASE history SET default_transaction_read_only = on"))
        database.close()
        with pytest.raises(HistoryUnavailable) as caught:
            project(Projection(database), "EVENTS", event(3))
        assert caught.value.reason == "read_only"
        assert count(database) == 2
        database.close()


def _away(cluster: Postgres, database: Database) -> None:
    cluster.stop()
    with pytest.raises(HistoryUnavailable) as caught:
        project(Projection(database), "EVENTS", event(2))
    assert caught.value.reason == "unreachable"
    cluster.start()


def test_a_password_is_in_no_message() -> None:
    database = Database("postgresql://whenthen:secret@127.0.0.1:1/history")
    with pytest.raises(HistoryUnavailable) as caught:
        count(database)
    assert caught.value.reason == "unreachable"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://host/x", "history.db", "://", "sqlite:///x"])
def test_what_is_no_database_of_ours_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(SetupError, match="write postgresql://"):
        Database(url)
