"""The history, on SQLite and on a real PostgreSQL: what is written, found, counted and dropped."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from tests.contract.history.history_messages import (
    BEFORE_0003,
    HOUR_US,
    IDENTITY,
    START_US,
    event,
    firing,
    note,
    outcome,
    project,
    rows_of,
    run,
    task,
)
from tests.patience import eventually
from whenthen.history import (
    CursorMoved,
    Database,
    HistoryQuery,
    HistoryReader,
    Keep,
    Projection,
    Retention,
    RowCounts,
    Rows,
    read_stats,
    row_counts,
)
from whenthen.history.history_tables import DAY_LEVELS, event_marks, metadata, tallies
from whenthen.schemas.decision_records import DecisionBatch, DecisionRow
from whenthen.schemas.errors import InvalidInput

DAY_US = 24 * HOUR_US
FROM_TO = {"since_us": START_US, "until_us": START_US + 24 * HOUR_US}


def ids(database: Database, kind: str = "events", **query: object) -> list[str]:
    page = HistoryReader(database).page(HistoryQuery(kind=kind, **query))  # type: ignore[arg-type]
    return [row["id"] for row in page.rows]


def batch(seq: int, *reasons: str, automation: str = "ship") -> DecisionBatch:
    rows = tuple(
        DecisionRow(
            automation=automation,
            path="",
            reason=reason,
            seq=seq,
            event=f"event-{seq}",
            at_us=START_US,
            key="k",
            detail="",
            firing=f"firing-{seq}" if reason == "fired" else None,
            rules=3,
        )
        for reason in reasons
    )
    counts = {automation: {reason: reasons.count(reason) for reason in reasons}}
    return DecisionBatch(
        batch=f"b{seq}",
        prev=0,
        part=0,
        parts=1,
        shard=0,
        writer="w",
        rules=3,
        after=seq - 1,
        seq=seq,
        counts=counts,
        rows=rows,
    )


def decide(projection: Projection, *batches: DecisionBatch, step_us: int = 1_000_000) -> None:
    last = max(each.seq for each in batches)
    old = projection.cursor("DECISIONS", identity=IDENTITY, last_seq=last)
    rows = Rows()
    for each in batches:
        rows.add_decisions(each, pos=old.position(each.seq), at_us=START_US + each.seq * step_us, row=0)
    projection.write([(old, replace(old, taken=last))], rows)


def test_tables_are_those_that_the_migrations_make(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.writing() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = [each for each in compare_metadata(context, metadata) if "alembic_version" not in str(each)]
    assert differences == []


def test_newest_events_come_first_and_pages_follow_each_other(database: Database) -> None:
    project(Projection(database), "EVENTS", *(event(seq) for seq in range(1, 8)))
    reader = HistoryReader(database)
    seen, before = [], ""
    while True:
        page = reader.page(HistoryQuery(kind="events", limit=3, before=before))
        seen += [row["id"] for row in page.rows]
        assert page.whole
        if page.next is None:
            break
        before = page.next
    assert seen == [f"event-{seq}" for seq in range(7, 0, -1)]
    assert reader.page(HistoryQuery(kind="events", limit=1)).rows[0]["payload"] == {"number": 7}


def test_filters_of_events(database: Database) -> None:
    projection = Projection(database)
    project(
        projection,
        "EVENTS",
        event(1, "order.paid"),
        event(2, "order.shipped", related=[{"id": "customer.7"}]),
        event(3, "invoice.sent", resource={"id": "invoice.1", "region": "eu"}),
        event(4, "order.paid", id="Ünusual/id.4", payload={"note": "very Special"}),
    )
    assert ids(database, equal={"name": "order.paid"}) == ["Ünusual/id.4", "event-1"]
    assert ids(database, equal={"name": "order.*"}) == ["Ünusual/id.4", "event-2", "event-1"]
    assert ids(database, equal={"name": "*.sent"}) == ["event-3"]
    assert ids(database, equal={"name": "nothing.*"}) == []
    assert ids(database, labels={"region": "eu"}) == ["event-3"]
    assert ids(database, labels={"id": "shop.1", "kind": "shop"}) == ["Ünusual/id.4", "event-1"]
    assert ids(database, related="customer.7") == ["event-2"]
    assert ids(database, id_prefix="event-") == ["event-3", "event-2", "event-1"]
    assert ids(database, id_prefix="Ünusual/") == ["Ünusual/id.4"]
    assert ids(database, text="SPECIAL") == ["Ünusual/id.4"]
    assert ids(database, labels={"kind": "shop"}, equal={"name": "order.shipped"}) == ["event-2"]


@pytest.mark.parametrize("seconds", range(6))
def test_a_time_range_is_half_open(database: Database, seconds: int) -> None:
    project(Projection(database), "EVENTS", *(event(seq) for seq in (1, 2, 5)))
    moment = START_US + seconds * 1_000_000
    assert ids(database, since_us=moment) == [f"event-{seq}" for seq in (5, 2, 1) if seq >= seconds]
    assert ids(database, until_us=moment) == [f"event-{seq}" for seq in (5, 2, 1) if seq < seconds]


def test_a_filter_that_the_kind_does_not_have_is_refused(database: Database) -> None:
    for query in (
        HistoryQuery(kind="events", equal={"nam": "x"}),
        HistoryQuery(kind="firings", labels={"a": "b"}),
        HistoryQuery(kind="nothing"),
        HistoryQuery(kind="events", before="1.2"),
        HistoryQuery(kind="events", before="99999999999999999999"),
        HistoryQuery(kind="events", id_prefix="ab"),
        HistoryQuery(kind="events", limit=0),
    ):
        with pytest.raises(InvalidInput):
            HistoryReader(database).page(query)


def test_a_list_without_an_index_stops_after_a_stated_number_of_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whenthen.history.history_queries.SCAN_ROWS", 100)
    project(Projection(database), "EVENTS", event(1, payload="needle"), *(event(seq) for seq in range(2, 151)))
    reader = HistoryReader(database)
    first = reader.page(HistoryQuery(kind="events", text="needle"))
    assert (first.rows, first.whole, first.scanned) == ([], False, 100)
    second = reader.page(HistoryQuery(kind="events", text="needle", before=first.next or ""))
    assert [row["id"] for row in second.rows] == ["event-1"]
    assert second.whole


def test_the_newest_of_more_ids_than_are_looked_up_come_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whenthen.history.history_queries.MOST_IDS", 3)
    project(Projection(database), "EVENTS", event(1, id="other"), *(event(seq) for seq in range(2, 10)))
    assert ids(database, id_prefix="event-", limit=2) == ["event-9", "event-8"]
    assert ids(database, id_prefix="event-") == [f"event-{seq}" for seq in range(9, 1, -1)]


def test_a_glob_finds_its_names_among_more_than_are_looked_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(Projection(database), "EVENTS", *(event(seq, f"name-{seq}.x") for seq in range(1, 8)))
    monkeypatch.setattr("whenthen.history.history_queries.SCAN_ROWS", 5)
    assert ids(database, equal={"name": "*-6.x"}) == ["event-6"]


def test_a_second_projector_with_the_same_cursor_changes_nothing(database: Database) -> None:
    one, other = Projection(database), Projection(database)
    cursor = one.cursor("EVENTS", identity=IDENTITY, last_seq=2)
    assert other.cursor("EVENTS", identity=IDENTITY, last_seq=2) == cursor
    one.write([(cursor, replace(cursor, taken=1))], rows_of(cursor, event(1)))
    with pytest.raises(CursorMoved):
        other.write([(cursor, replace(cursor, taken=2))], rows_of(cursor, event(1), event(2)))
    assert ids(database) == ["event-1"]
    assert [count for _, _, count in HistoryReader(database).counts("events", **FROM_TO)] == [1]


def test_a_stream_that_was_made_again_adds_to_what_is_there(database: Database) -> None:
    projection = Projection(database)
    project(projection, "EVENTS", event(1), event(2))
    project(projection, "EVENTS", event(1, id="anew"), identity="2027-01-01T00:00:00Z")
    assert ids(database) == ["anew", "event-2", "event-1"]


def test_a_stream_that_went_back_goes_on_behind_what_is_there(database: Database) -> None:
    projection = Projection(database)
    project(projection, "EVENTS", *(event(seq) for seq in range(1, 6)))
    assert projection.cursor("EVENTS", identity=IDENTITY, last_seq=3).taken == 3
    project(projection, "EVENTS", event(4, id="again-4"))
    assert ids(database) == ["again-4", *(f"event-{seq}" for seq in range(5, 0, -1))]


@pytest.mark.parametrize("others", ["went on", "saw that it was made again"])
def test_a_stream_that_others_projected_since_it_was_looked_at_is_no_other_one(database: Database, others: str) -> None:
    one, other = Projection(database), Projection(database)
    project(one, "EVENTS", *(event(seq) for seq in range(1, 4)))
    known = other.known("EVENTS")
    looked = {"identity": IDENTITY, "last_seq": 3}
    if others == "went on":
        project(one, "EVENTS", *(event(seq) for seq in range(4, 9)))
    else:
        project(one, "EVENTS", *(event(seq, id=f"anew-{seq}") for seq in range(1, 3)), identity="anew")
    before = one.known("EVENTS")
    with pytest.raises(CursorMoved):
        other.cursor("EVENTS", **looked, known=known)
    assert one.known("EVENTS") == before
    anew = other.known("EVENTS")
    looked = {"identity": before[0].identity, "last_seq": before[0].taken}
    assert other.cursor("EVENTS", **looked, known=anew) == before[0]
    assert other.cursor("EVENTS", **{**looked, "last_seq": 1}, known=anew).incarnation == before[0].incarnation + 1


def test_shards_of_a_stream_share_its_incarnation(database: Database) -> None:
    projection = Projection(database)
    assert {each.incarnation for each in projection.cursors("DECISIONS", [0, 1], identity="a", last_seq=9)} == {1}
    anew = projection.cursors("DECISIONS", [2, 0], identity="b", last_seq=9)
    assert [(each.shard, each.incarnation, each.taken) for each in anew] == [(2, 2, 0), (0, 2, 0)]
    projection.write([(anew[1], replace(anew[1], taken=7))], Rows())
    back = projection.cursors("DECISIONS", [0, 1, 2], identity="b", last_seq=5)
    assert [(each.incarnation, each.taken) for each in back] == [(3, 5), (3, 0), (3, 0)]
    assert projection.cursors("DECISIONS", [0, 1, 2], identity="b", last_seq=5) == back


def test_a_firing_that_comes_twice_is_there_and_counted_once(database: Database) -> None:
    projection = Projection(database)
    project(projection, "ENGINE", firing(1), firing(2, "bill"))
    project(projection, "ENGINE", firing(3, id="firing-1"), firing(4, id="firing-1"))
    assert ids(database, "firings") == ["firing-2", "firing-1"]
    assert ids(database, "firings", equal={"automation": "ship", "state": "Triggered"}) == ["firing-1"]
    assert ids(database, "firings", equal={"event": "event-2"}) == ["firing-2"]
    assert HistoryReader(database).counts("firings", by="automation", **FROM_TO) == [
        (START_US, "bill", 1),
        (START_US, "ship", 1),
    ]


def test_an_action_stands_as_the_newest_message_says_and_keeps_each_try(database: Database) -> None:
    projection = Projection(database)
    project(projection, "ENGINE", task(1), outcome(2, "retrying", 1))
    project(projection, "ENGINE", outcome(3, "executed", 2))
    (action,) = HistoryReader(database).page(HistoryQuery(kind="actions", equal={"firing": "firing-1"})).rows
    assert (action["state"], action["attempt"], action["result"]) == ("executed", 2, {"status": 200})
    assert [(each["attempt"], each["state"]) for each in HistoryReader(database).tries("firing-1.0")] == [
        (1, "retrying"),
        (2, "executed"),
    ]
    assert [each["sent"] for each in HistoryReader(database).tries("firing-1.0")] == ["", ""]
    assert ids(database, "actions", equal={"state": "waiting"}) == []
    assert HistoryReader(database).counts("actions", by="state", equal={"automation": "ship"}, **FROM_TO) == [
        (START_US, "executed", 1),
        (START_US, "retrying", 1),
    ]


def test_a_run_keeps_each_state_that_it_entered(database: Database) -> None:
    project(Projection(database), "KV_WT_runs", run(1, "Scheduled"), run(2, "Running"), run(3, "Completed"))
    (found,) = HistoryReader(database).page(HistoryQuery(kind="runs", equal={"deployment": "load"})).rows
    assert found["state"] == "Completed"
    assert [each["state"] for each in HistoryReader(database).states("run-1")] == ["Scheduled", "Running", "Completed"]


def test_a_note_that_stands_for_many_counts_as_many(database: Database) -> None:
    projection = Projection(database)
    project(projection, "AUDIT", note(1), note(2, count=40))
    project(projection, "AUDIT", note(3, id="note-2", count=40))
    assert HistoryReader(database).counts("audit", by="cause", **FROM_TO) == [(START_US, "signature", 41)]
    assert ids(database, "audit", equal={"kind": "request-refused", "who": "10.0.0.7"}) == ["note-2", "note-1"]


def test_decisions_are_found_by_what_they_decided(database: Database) -> None:
    decide(
        Projection(database), batch(1, "fired", "cooldown"), batch(2, "cooldown"), batch(3, "fired", automation="bill")
    )
    reader = HistoryReader(database)

    def found(**equal: str) -> list[tuple[int, str]]:
        page = reader.page(HistoryQuery(kind="decisions", equal=equal))
        return [(row["seq"], row["reason"]) for row in page.rows]

    assert found() == [(3, "fired"), (2, "cooldown"), (1, "cooldown"), (1, "fired")]
    assert found(automation="ship", reason="cooldown") == [(2, "cooldown"), (1, "cooldown")]
    assert found(event="event-1") == [(1, "cooldown"), (1, "fired")]
    assert found(firing="firing-3") == [(3, "fired")]
    assert found(reason="fired", key="k") == [(3, "fired"), (1, "fired")]
    first = reader.page(HistoryQuery(kind="decisions", limit=3))
    rest = reader.page(HistoryQuery(kind="decisions", limit=3, before=first.next or ""))
    assert [(row["seq"], row["reason"]) for row in rest.rows] == [(1, "fired")]
    assert reader.counts("decisions", by="reason", **FROM_TO) == [(START_US, "cooldown", 2), (START_US, "fired", 2)]
    assert reader.counts("decisions", equal={"automation": "ship", "reason": "fired"}, **FROM_TO) == [(START_US, "", 1)]


def test_counts_by_hour_and_by_day(database: Database) -> None:
    messages = [event(seq, time_us=START_US + seq * HOUR_US) for seq in range(1, 31)]
    project(Projection(database), "EVENTS", *messages)
    reader = HistoryReader(database)
    month = {"since_us": START_US, "until_us": START_US + 30 * 24 * HOUR_US}
    assert sum(count for _, _, count in reader.counts("events", **month)) == 30
    assert len(reader.counts("events", **month)) == 30
    assert sum(count for _, _, count in reader.counts("events", step_hours=24, **month)) == 30
    assert len(reader.counts("events", step_hours=24, by="name", **month)) <= 3
    with pytest.raises(InvalidInput):
        reader.counts("events", by="automation", **month)


@pytest.mark.parametrize("step_hours", [1, 24, 48])
@pytest.mark.parametrize(
    "asked",
    [{}, {"by": "reason"}, {"by": "automation", "equal": {"reason": "fired"}}, {"equal": {"automation": "ship"}}],
)
def test_a_time_range_of_days_counts_its_first_and_last_hours_as_well(
    database: Database, step_hours: int, asked: dict[str, Any]
) -> None:
    decide(Projection(database), *(batch(seq, "fired") for seq in range(60)), step_us=5 * HOUR_US)
    midnight_us = (START_US // DAY_US + 1) * DAY_US
    for hours in ((-30, 300), (0, 240), (3, 200), (7, 20), (23, 25), (24, 48), (1, 24), (47, 49)):
        since_us, until_us = (midnight_us + hour * HOUR_US for hour in hours)
        times = [START_US + seq * 5 * HOUR_US for seq in range(60)]
        step_us = step_hours * HOUR_US
        expected = Counter(each // step_us * step_us for each in times if since_us <= each < until_us)
        found = HistoryReader(database).counts(
            "decisions", since_us=since_us, until_us=until_us, step_hours=step_hours, **asked
        )
        assert {start: count for start, _, count in found} == expected, hours


@pytest.mark.parametrize("text", ["as it was sent", "x" * 9000], ids=["small", "large"])
def test_a_try_keeps_what_was_sent_and_what_came_back_unless_it_is_too_large(database: Database, text: str) -> None:
    sent = {"request": {"method": "POST", "body": text}, "answer": {"status": 503}}
    message = outcome(2, "retrying", 1)
    project(
        Projection(database),
        "ENGINE",
        message._replace(data=orjson.dumps({**orjson.loads(message.data), "sent": sent})),
    )
    (tried,) = HistoryReader(database).tries("firing-1.0")
    assert tried["sent"] == (orjson.dumps(sent).decode() if len(text) < 1000 else "")


def test_tallies_by_day_are_made_of_those_by_hour(database: Database) -> None:
    decide(Projection(database), *(batch(seq, "fired") for seq in range(30)), step_us=5 * HOUR_US)
    by_day = sa.select(tallies).where(tallies.c.level >= DAY_LEVELS)
    with database.writing() as connection:
        before = sorted(map(tuple, connection.execute(by_day)))
        connection.execute(sa.delete(tallies).where(tallies.c.level >= DAY_LEVELS))
        for statement in BEFORE_0003:
            connection.execute(sa.text(statement))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    database.close()
    with database.reading() as connection:
        assert sorted(map(tuple, connection.execute(by_day))) == before
    assert before


def test_more_values_than_are_told_apart_are_counted_as_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whenthen.history.projection.MOST_FIRST", 2)
    project(Projection(database), "EVENTS", *(event(seq, f"name.{seq}") for seq in range(1, 5)))
    project(Projection(database), "EVENTS", event(5, "name.1"), event(6, "name.9"))
    assert HistoryReader(database).counts("events", by="name", **FROM_TO) == [
        (START_US, "(others)", 3),
        (START_US, "name.1", 2),
        (START_US, "name.2", 1),
    ]


def test_what_is_too_old_goes_in_steps_with_its_marks(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whenthen.history.history_retention.STEP_ROWS", 10)
    projection = Projection(database)
    project(projection, "EVENTS", *(event(seq) for seq in range(1, 36)), event(36, payload="x" * 40_000))
    project(projection, "ENGINE", firing(1), task(2), outcome(3, "executed", 1))
    decide(projection, batch(1, "fired"))
    project(projection, "AUDIT", note(1))
    retention = Retention(database, Keep(events=timedelta(seconds=6), audit=timedelta(days=365)))
    now = START_US + 36_500_000
    steps = 0
    while retention.step(now_us=now):
        steps += 1
    assert steps == 3
    assert ids(database) == [f"event-{seq}" for seq in range(36, 30, -1)]
    with database.reading() as connection:
        pos = [row.pos for row in connection.execute(sa.select(event_marks.c.pos).distinct())]
    assert len(pos) == 6
    assert ids(database, "firings") == ["firing-1"]
    while retention.step(now_us=now + 500 * 24 * HOUR_US):
        pass
    stats = read_stats(database).tables
    assert {name: table.rows for name, table in stats.items() if table.rows} == {"event_names": 1}


def test_what_others_wrote_is_kept_in_bounded_room(database: Database) -> None:
    projection = Projection(database)
    huge = event(1, payload={"text": "x" * 3_000_000})
    odd = event(2, "odd", resource={"id": "a\0b", "n": "1"}, payload="😀 \0")
    many = event(3, resource={"id": "m", **{f"label-{n}": "v" for n in range(500)}})
    bad = [event(4)._replace(data=data) for data in (b"{", b"[]", b'{"event": 1}', b"\xff", b"")]
    project(projection, "EVENTS", huge, odd, many, *(each._replace(seq=4 + n) for n, each in enumerate(bad)))
    page = HistoryReader(database).page(HistoryQuery(kind="events"))
    assert [row["id"] for row in page.rows] == ["event-3", "event-2", "event-1"]
    assert page.rows[2]["payload_bytes"] > 3_000_000
    assert page.rows[1]["payload"] == "😀 \0"
    with database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(event_marks)).scalar_one() <= 64 + 4


def test_stats_say_how_much_there_is_and_how_far_it_is(database: Database) -> None:
    project(Projection(database), "EVENTS", event(1), event(2))
    stats = read_stats(database)
    assert (stats.tables["events"].rows, stats.tables["events"].oldest_us) == (2, START_US + 1_000_000)
    assert [(each["stream"], each["taken"]) for each in stats.cursors] == [("EVENTS", 2)]
    assert stats.bytes > 0


def test_rows_of_a_large_table_are_counted_beside_and_now_and_then(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_counts, "AT_ONCE", 3)
    now = 0.0
    counts = RowCounts(database, lambda: now)
    projection = Projection(database)

    def rows() -> tuple[int, bool]:
        found = read_stats(database, counts.count).tables["events"]
        return found.rows, found.more

    try:
        project(projection, "EVENTS", *(event(seq) for seq in range(1, 4)))
        assert rows() == (3, False)
        project(projection, "EVENTS", event(4), event(5))
        assert rows() == (3, True)
        eventually(lambda: rows() == (5, False))
        project(projection, "EVENTS", event(6))
        assert rows() == (5, False)
        now += row_counts.KEPT_S + 1
        eventually(lambda: rows() == (6, False))
    finally:
        counts.close()
