"""Runs are listed by their creation, however often and whenever they change."""

from __future__ import annotations

import orjson
import pytest
import sqlalchemy as sa

from tests.contract.history.history_messages import BEFORE_0004, project, run
from whenthen.history import Database, HistoryQuery, HistoryReader, Message, Projection
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.times import parse_us

IDS = [f"{n:032x}" for n in range(8)]


def created(n: int) -> str:
    """Of two runs at a time."""
    return f"2027-01-15T08:{n // 2:02}:00.000000Z"


def run_of(seq: int, n: int, state: str = "Scheduled") -> Message:
    return run(seq, state, run_id=IDS[n], created=created(n), deployment=f"d{n % 2}")


def listed(database: Database, limit: int = 50, **query: object) -> list[str]:
    """All, page by page."""
    reader, found, before = HistoryReader(database), [], ""
    while True:
        page = reader.page(HistoryQuery(kind="runs", limit=limit, before=before, **query))  # type: ignore[arg-type]
        assert len(page.rows) <= limit
        found += [row["id"] for row in page.rows]
        if page.next is None:
            return found
        before = page.next


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_a_run_that_changes_stays_where_it_is(database: Database, limit: int) -> None:
    projection = Projection(database)
    project(projection, "KV_WT_runs", *(run_of(n + 1, n) for n in (3, 0, 7, 1, 2, 6, 5, 4)))
    project(projection, "KV_WT_runs", run_of(20, 2, "Running"), run_of(21, 0, "Running"), run_of(22, 2, "Completed"))
    assert listed(database, limit) == IDS[::-1]
    assert listed(database, limit, equal={"deployment": "d0"}) == IDS[6::-2]
    assert listed(database, limit, equal={"state": "Scheduled"}) == [*IDS[:2:-1], IDS[1]]
    assert listed(database, limit, equal={"deployment": "d0", "state": "Completed"}) == [IDS[2]]
    assert listed(database, limit, equal={"work_pool": "default"}, id_prefix="0000") == IDS[::-1]
    between = {"since_us": parse_us(created(2)), "until_us": parse_us(created(6))}
    assert listed(database, limit, **between) == IDS[5:1:-1]


def test_a_place_that_is_none_is_refused(database: Database) -> None:
    for before in ("5", "5.", "x.a", "5.a.b", "5.a\0", "5.a b", f"{1 << 63}.a", "-1.a", "5." + "a" * 129):
        with pytest.raises(InvalidInput, match="no place in this list"):
            HistoryReader(database).page(HistoryQuery(kind="runs", before=before))


def test_runs_of_the_version_before_get_the_time_of_their_creation(database: Database) -> None:
    odd = run(300, "Scheduled", run_id="odd", created="some day")
    project(Projection(database), "KV_WT_runs", *(run_of(20 - n, n) for n in range(8)), odd)
    rows = sa.text("SELECT id, created_us FROM runs ORDER BY id")
    with database.writing() as connection:
        before = list(map(tuple, connection.execute(rows)))
        for statement in BEFORE_0004:
            connection.execute(sa.text(statement))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0003'"))
    database.close()
    with database.reading() as connection:
        assert list(map(tuple, connection.execute(rows))) == before
    assert [us for _, us in before[:8]] == [parse_us(created(n)) for n in range(8)]
    assert listed(database) == ["odd", *IDS[::-1]]
    (row,) = HistoryReader(database).page(HistoryQuery(kind="runs", id_prefix=IDS[3])).rows
    assert (row["state"], orjson.dumps(row["parameters"])) == ("Scheduled", b"{}")
