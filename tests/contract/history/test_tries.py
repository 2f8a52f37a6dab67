"""Each try of an action in the history, whichever of the streams that tell of it is projected first, or at all in time."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.contract.history.history_messages import (
    BEFORE_0003,
    HOUR_US,
    IDENTITY,
    START_US,
    event,
    failed,
    outcome,
    project,
    rows_of,
)
from whenthen.history import Database, HistoryReader, Keep, Message, Projection, Retention, read_stats
from whenthen.history.history_tables import tallies, tries

FIRING = "0123456789abcdef0123456789abcdef"
ACTION = f"{FIRING}.0"


def tries_of(database: Database, action: str = ACTION) -> list[tuple[int, str, str, str]]:
    return [
        (each["attempt"], each["state"], each["at"][17:], each["error"])
        for each in HistoryReader(database).tries(action)
    ]


def everything(database: Database) -> tuple[list[Any], list[Any]]:
    """All tries, and how they are counted."""
    counted = sa.select(tallies).where(tallies.c.kind == "actions")
    with database.reading() as connection:
        return (
            sorted(map(tuple, connection.execute(sa.select(tries)))),
            sorted(map(tuple, connection.execute(counted))),
        )


#: a try that fails four times and dies at the fifth, is sent again, and is done
TOLD = [failed(seq, seq, firing=FIRING, final=seq == 5) for seq in range(1, 6)]
OUTCOMES = [
    *(outcome(seq, "retrying", seq, firing=FIRING) for seq in range(1, 5)),
    outcome(5, "dead", 5, firing=FIRING),
    outcome(6, "retrying", 5, firing=FIRING, next_at=None, at="2027-01-15T08:00:06Z"),
    outcome(7, "executed", 6, firing=FIRING, at="2027-01-15T08:00:07Z"),
]
ALL = [*((n, "retrying", f"0{n}Z", "HTTP 500") for n in range(1, 5)), (5, "dead", "05Z", "HTTP 500")]
ALL.append((6, "executed", "07Z", ""))


def test_a_projector_that_starts_afterwards_finds_each_try(database: Database) -> None:
    projection = Projection(database)
    project(projection, "ENGINE", OUTCOMES[-1])  # the stream has the last one alone
    assert tries_of(database) == ALL[-1:]
    project(projection, "EVENTS", *TOLD)
    assert tries_of(database) == ALL
    counted = HistoryReader(database).counts("actions", by="state", since_us=START_US, until_us=START_US + HOUR_US)
    assert counted == [(START_US, "dead", 1), (START_US, "executed", 1), (START_US, "retrying", 4)]


@pytest.mark.parametrize("turn", range(8))
def test_tries_are_the_same_in_whatever_order_the_streams_are_projected(database: Database, turn: int) -> None:
    """Also in a history that is made again, which meets of the outcomes the last one."""
    drawn = random.Random(turn)
    project(Projection(database), "EVENTS", *TOLD)
    project(Projection(database), "ENGINE", OUTCOMES[-1])
    expected = everything(database)
    with database.writing() as connection:
        for table in ("tries", "tallies", "cursors", "events", "event_marks", "actions"):
            connection.execute(sa.text(f"DELETE FROM {table}"))
    left = {"EVENTS": list(TOLD), "ENGINE": list(OUTCOMES)}
    projections = [Projection(database), Projection(database)]
    while any(left.values()):
        stream = drawn.choice([name for name, messages in left.items() if messages])
        count = drawn.randint(1, len(left[stream]))
        project(drawn.choice(projections), stream, *left[stream][:count])
        del left[stream][:count]
    assert everything(database) == expected


@pytest.mark.parametrize("first", ["EVENTS", "ENGINE"])
def test_a_try_whose_event_and_outcome_lie_in_two_hours_is_counted_in_one(database: Database, first: str) -> None:
    hour = START_US + 5 * HOUR_US
    messages = {
        "EVENTS": failed(1, 1, firing=FIRING, time_us=hour - 5),
        "ENGINE": outcome(1, "retrying", 1, firing=FIRING)._replace(time_us=hour + 5),
    }
    for stream in (first, *(messages.keys() - {first})):
        project(Projection(database), stream, messages[stream])
    reader = HistoryReader(database)
    day = {"since_us": START_US, "until_us": START_US + 24 * HOUR_US}
    assert reader.counts("actions", **day) == [(hour - HOUR_US, "", 1)]
    assert all(row[-1] == 1 for row in everything(database)[1])


def test_two_streams_that_are_projected_at_once_wait_for_each_other(database: Database) -> None:
    firings = [f"{n:032x}" for n in range(40)]
    told = [failed(seq, 1, firing=firing) for seq, firing in enumerate(firings, 1)]
    said = [outcome(seq, "retrying", 1, firing=firing) for seq, firing in enumerate(reversed(firings), 1)]
    faults: list[BaseException] = []

    def write(stream: str, messages: Sequence[Message]) -> None:
        try:
            for start in range(0, len(messages), 8):
                project(Projection(database), stream, *messages[start : start + 8])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=each) for each in (("EVENTS", told), ("ENGINE", said))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    rows, counted = everything(database)
    assert [(row[0], row[3]) for row in rows] == [(f"{firing}.0", 1) for firing in firings]
    assert {row[-1] for row in counted} == {40}


def test_an_event_of_somebody_else_makes_no_try(database: Database) -> None:
    forged = failed(1, 1, firing="mine")
    odd = [event(seq, "automation.action.failed", id=f"{ACTION}.failed.{seq}", payload=seq) for seq in (2, 3)]
    project(Projection(database), "EVENTS", forged, *odd)
    assert everything(database) == ([], [])
    assert read_stats(database).tables["events"].rows == 3


def test_the_oldest_tries_go_whichever_stream_told_of_them(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whenthen.history.history_retention.STEP_ROWS", 2)
    projection = Projection(database)
    project(projection, "EVENTS", *(failed(100 + n, n, firing=FIRING, time_us=START_US + n) for n in range(1, 6)))
    later = [outcome(n, "executed", n, firing=FIRING)._replace(time_us=START_US + HOUR_US) for n in (6, 7)]
    project(projection, "ENGINE", *later)
    retention = Retention(database, Keep(firings=timedelta(minutes=30), tallies=timedelta(days=400)))
    now = START_US + HOUR_US
    assert [retention.step(now_us=now) for _ in range(4)] == [2, 2, 1, 0]
    assert [attempt for attempt, *_ in tries_of(database)] == [6, 7]
    stats = read_stats(database).tables["tries"]
    assert (stats.rows, stats.oldest_us, stats.newest_us) == (2, START_US + HOUR_US, START_US + HOUR_US)


def test_tries_of_the_version_before_become_those_of_today_and_its_events_tell_of_more(database: Database) -> None:
    other = f"{FIRING[::-1]}.0"
    projection = Projection(database)
    cursor = projection.cursor("EVENTS", identity=IDENTITY, last_seq=9)
    rows = rows_of(cursor, *TOLD, failed(9, 1, firing=FIRING, message="cut \0 off" + "x" * 900))
    rows.tries.clear()
    projection.write([(cursor, cursor)], rows)
    stored = [
        (ACTION, 5, "2027-01-15T08:00:06Z", 6, START_US, "retrying", "HTTP 500"),  # it was sent again
        (ACTION, 6, "2027-01-15T08:00:07Z", 7, START_US, "executed", ""),
        (other, 1, "2027-01-15T08:00:01Z", 1, START_US, "retrying", "begun"),
        (other, 1, "2027-01-15T08:00:02Z", 2, START_US, "retrying", "HTTP 502"),
    ]
    with database.writing() as connection:
        for statement in BEFORE_0003:
            connection.execute(sa.text(statement))
        names = ("action", "attempt", "at", "pos", "at_us", "state", "error")
        insert = sa.text(f"INSERT INTO tries VALUES ({', '.join(f':{name}' for name in names)})")
        connection.execute(insert, [dict(zip(names, row, strict=True)) for row in stored])
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0002'"))
    database.close()
    found = tries_of(database)
    assert found[1:] == ALL[1:]
    assert found[0][:3] == ALL[0][:3]
    assert found[0][3].startswith("cut � offxxx")
    assert len(found[0][3]) == 513
    assert tries_of(database, other) == [(1, "retrying", "02Z", "HTTP 502")]
    project(Projection(database), "ENGINE", *OUTCOMES)
    assert [each[:3] for each in tries_of(database)] == [each[:3] for each in ALL]
