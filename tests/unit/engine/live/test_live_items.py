"""Items of the live stream: the fields and filters of the history, for the same messages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from tests.contract.history import history_messages as made
from whenthen.engine.live.live_filter import KINDS, Wanted, new_filter
from whenthen.engine.live.live_items import CommittedItems, Item, item_of
from whenthen.engine.live.live_marks import Mark, Place
from whenthen.history import Database, HistoryQuery, HistoryReader, Projection, history_queries
from whenthen.schemas.decision_records import DecisionBatch, DecisionRow
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.history_rows import shown_row

MESSAGES = {
    "events": made.event(1, payload={"large": "x" * 10_000}),
    "firings": made.firing(2),
    "actions": made.outcome(3, "failed", 2),
    "runs": made.run(4, "Running"),
    "audit": made.note(5),
}


def item(kind: str) -> Item:
    found = item_of(KINDS[kind].stream, "0", MESSAGES[kind])
    assert found is not None
    return found


def data(frame: bytes) -> object:
    return orjson.loads(frame.partition(b"data: ")[2])


@pytest.mark.parametrize("kind", MESSAGES)
def test_an_item_has_the_fields_that_the_history_gives(kind: str, tmp_path: Path) -> None:
    database = Database(tmp_path / "history.db")
    made.project(Projection(database), "S", MESSAGES[kind])
    (row,) = HistoryReader(database).page(HistoryQuery(kind=kind)).rows
    assert data(item(kind).frame) == orjson.loads(orjson.dumps(shown_row(row)))
    database.close()


def test_kinds_have_the_filters_of_their_lists() -> None:
    lists = {name: (kind.equal, kind.id) for name, kind in history_queries._KINDS.items()}
    assert {name: (kind.equal, kind.id) for name, kind in KINDS.items()} == lists


@pytest.mark.parametrize(
    ("wanted", "kinds"),
    [
        (Wanted(), ["events", "decisions", "firings", "actions", "runs", "audit"]),
        (Wanted(equal={"automation": "a"}), ["decisions", "firings", "actions"]),
        (Wanted(equal={"automation": "a", "name": "x.*"}), ["events", "decisions", "firings", "actions"]),
        (Wanted(kinds=["events", "firings"], equal={"automation": "a"}), ["events", "firings"]),
        (Wanted(labels={"team": "data"}), ["events"]),
        (Wanted(text="x"), ["events", "decisions", "firings", "actions", "runs", "audit"]),
        (Wanted(kinds=["runs", "runs"]), ["runs"]),
    ],
)
def test_filters_choose_the_kinds_that_have_them(wanted: Wanted, kinds: Sequence[str]) -> None:
    assert list(new_filter(wanted).kinds) == kinds


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(kinds=["firing"]), "of: 'firing' is none of .*; did you mean 'firings'"),
        (Wanted(kinds=["audit"], equal={"automation": "a"}), "automation: audit have no filter 'automation'"),
        (Wanted(kinds=["runs"], labels={"a": "b"}), "label: runs have no filter 'label'"),
        (Wanted(id_prefix="ab"), "id: 'ab' is too short"),
    ],
)
def test_what_fits_no_kind_is_refused_by_name(wanted: Wanted, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        new_filter(wanted)


def test_what_is_none_of_ours_is_no_item() -> None:
    for subject, text in (
        ("events.x", b"{"),
        ("engine.firing.a.b", b"[]"),
        ("$KV.WT_runs.r", b""),
        ("audit.x", b"null"),
    ):
        assert item_of("e", "0", made.Message(subject, 1, 0, text)) is None


def batch(prev: int, part: int, parts: int, ids: Sequence[str], name: str) -> DecisionBatch:
    rows = tuple(
        DecisionRow(
            automation="a", path="", reason="fired", seq=1, event="e", at_us=0, key="", detail="", firing=each, rules=1
        )
        for each in ids
    )
    return DecisionBatch(
        batch=name,
        prev=prev,
        part=part,
        parts=parts,
        shard=0,
        writer="w",
        rules=1,
        after=0,
        seq=1,
        counts={},
        rows=rows,
    )


def test_the_rows_of_a_batch_in_parts_come_once_it_is_committed_and_each_has_its_place() -> None:
    committed = CommittedItems("0", 0, 10)
    assert committed.message(11, 5, batch(10, 0, 2, ["f-1", "f-2"], "one")) == []
    assert committed.message(12, 6, batch(10, 0, 1, ["phantom"], "two")) == []
    assert committed.message(13, 7, batch(10, 1, 2, ["f-3"], "one")) == []
    assert committed.held
    items = committed.message(14, 8, batch(13, 0, 1, ["f-4"], "three"))
    assert [each.row["firing"] for each in items] == ["f-1", "f-2", "f-3"]
    mark = Mark("0", [Place(10)])
    for number, each in enumerate(items):
        assert not any(later.shown(mark) for later in items[number:])
        each.move(mark)
        assert all(before.shown(mark) for before in items[: number + 1])
    assert mark.places == [Place(13)]
    (last,) = committed.offset(14)
    assert (last.row["firing"], last.prev, last.seq, committed.held) == ("f-4", 13, 14, False)
