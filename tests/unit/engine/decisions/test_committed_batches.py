"""Which batches of decisions a reader takes: those that the offset or a later batch names."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from whenthen.engine.decisions.committed import CommittedBatches
from whenthen.schemas.decision_records import DecisionBatch, KeptDecisions, encode_batch, row_of
from whenthen.schemas.firings import Decision, Reason


def batch(name: str, prev: int, **more: Any) -> DecisionBatch:
    fields: dict[str, Any] = {"part": 0, "parts": 1, "shard": 0, "writer": "w", "rules": 1, "after": 0, "seq": 1}
    return DecisionBatch(batch=name, prev=prev, counts={}, rows=(), **{**fields, **more})


def names(given: list[DecisionBatch]) -> list[str]:
    return [each.batch for each in given]


def test_a_batch_is_taken_when_the_next_one_or_the_offset_names_it() -> None:
    reader = CommittedBatches()
    assert names(reader.message(1, batch("a", 0))) == []
    assert names(reader.message(2, batch("b", 1))) == ["a"]
    assert names(reader.offset(1)) == []
    assert names(reader.offset(2)) == ["b"]
    assert names(reader.offset(2)) == [], "once"
    assert reader.accepted == 2


def test_what_a_killed_process_wrote_before_its_commit_is_passed_over() -> None:
    reader = CommittedBatches()
    reader.message(1, batch("a", 0))
    assert names(reader.message(2, batch("phantom", 1))) == ["a"]
    assert names(reader.message(3, batch("anew", 1))) == []
    assert names(reader.message(4, batch("c", 3))) == ["anew"]
    assert names(reader.message(5, batch("late phantom", 1))) == []
    assert names(reader.offset(4)) == ["c"]


def test_a_message_that_was_stored_twice_counts_once() -> None:
    reader = CommittedBatches()
    reader.message(1, batch("a", 0))
    reader.message(2, batch("a", 0))
    assert names(reader.message(3, batch("b", 1))) == ["a"]
    reader = CommittedBatches()
    reader.message(1, batch("a", 0))
    reader.message(2, batch("a", 0))
    assert names(reader.message(3, batch("b", 2))) == ["a"]


def test_the_parts_of_a_batch_are_taken_together() -> None:
    reader = CommittedBatches()
    reader.message(1, batch("a", 0, part=0, parts=2))
    reader.message(2, batch("a", 0, part=1, parts=2))
    assert [each.part for each in reader.message(3, batch("b", 2))] == [0, 1]


def test_a_reader_goes_on_behind_a_gap_that_retention_left_and_counts_it() -> None:
    fresh = CommittedBatches()
    fresh.message(70, batch("x", 60))
    assert names(fresh.offset(70)) == ["x"]
    assert fresh.gaps == 0, "a fresh reader misses nothing that it had"
    behind = CommittedBatches(accepted=5)
    behind.message(70, batch("x", 60))
    assert names(behind.offset(70)) == ["x"]
    assert behind.gaps == 1


def test_a_batch_is_read_as_it_was_written_in_as_many_parts_as_it_needs() -> None:
    rows = {
        name: [
            row_of(Decision(automation=name, reason=Reason.FIRED, at_us=1, event=f"e{n}", seq=n, firing=f"f{n}"))
            for n in range(50)
        ]
        for name in ("a", "b")
    }
    counts = {"a": {"fired": 50, "cooldown": 9}, "b": {"fired": 50}}
    head = {"batch": "x", "shard": 3, "writer": "w", "rules": 2, "after": 1, "seq": 60}
    parts = encode_batch(head, counts, rows, part_bytes=2000)
    assert len(parts) > 2
    read = [DecisionBatch.decode(orjson.dumps({**part, "prev": 9})) for part in parts]
    assert [each.last for each in read] == [False] * (len(parts) - 1) + [True]
    assert [(row.automation, row.seq, row.rules) for each in read for row in each.rows] == [
        (name, n, 2) for name in ("a", "b") for n in range(50)
    ]
    total: dict[tuple[str, str], int] = {}
    for each in read:
        for name, reasons in each.counts.items():
            for reason, count in reasons.items():
                total[name, reason] = total.get((name, reason), 0) + count
    assert total == {("a", "fired"): 50, ("a", "cooldown"): 9, ("b", "fired"): 50}


@pytest.mark.parametrize("char", ["a", "\N{GRINNING FACE}", '"', "\\"])
def test_no_part_is_larger_than_a_server_takes_whatever_the_keys_are_made_of(char: str) -> None:
    head = {"batch": "b", "shard": 0, "writer": "w", "rules": 1, "after": 0, "seq": 1, "prev": 0}
    decision = Decision(
        automation=char * 200, reason=Reason.FIRED, at_us=1, firing="f" * 32, key=char * 512, detail=char * 512
    )
    counts = {f"{char * 200}{number}": {"fired": 1} for number in range(200)}
    rows = {f"{char * 200}0": [row_of(decision)] * 200}
    parts = encode_batch(head, counts, rows, part_bytes=20_000)
    assert sum(len(part["rows"]) for part in parts) == 200
    assert max(len(orjson.dumps(part)) for part in parts) < 20_000 + 8192


def test_a_busy_reason_does_not_push_out_a_rare_one() -> None:
    kept = KeptDecisions()
    rare = row_of(Decision(automation="a", reason=Reason.LATE, at_us=1, event="e", seq=1))
    kept.add({"late": 1}, [rare], rules=1, keep=3)
    for number in range(2, 100):
        busy = row_of(Decision(automation="a", reason=Reason.COOLDOWN, at_us=number, event="e", seq=number))
        kept.add({"cooldown": 1}, [busy], rules=1, keep=3)
    again = KeptDecisions.decode(kept.encode(7))
    assert again.counts == {"late": 1, "cooldown": 98}
    assert [(row.reason, row.seq) for row in again.newest("a")] == [
        ("cooldown", 99), ("cooldown", 98), ("cooldown", 97), ("late", 1),
    ]  # fmt: skip
