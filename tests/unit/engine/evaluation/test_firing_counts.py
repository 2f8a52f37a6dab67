"""How often automations fired: the record of a shard, and what is counted beside it. That faults change no number is in test_shard_loop."""

from __future__ import annotations

import orjson

from whenthen.engine.evaluation.firing_counts import (
    MOST_ABSENT,
    STORE_EVERY_S,
    FiredTotal,
    FiringCounts,
    decode_totals,
)
from whenthen.schemas.firings import Firing, FiringState

SINCE, FIRST, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"


def firing(automation: str, at: str, state: FiringState = FiringState.TRIGGERED) -> Firing:
    return Firing(id=f"{automation}-{at}", automation=automation, state=state, at=at, key={}, event=None, refs=())


def record(counts: FiringCounts) -> bytes:
    return counts.record(0.0, clock_us=7, automations=set(counts.totals))


def test_totals_survive_in_the_record_and_resolutions_do_not_count() -> None:
    counts = FiringCounts()
    counts.begin(SINCE)
    counts.add([firing("a", FIRST), firing("a", LATER), firing("a", LATER, FiringState.RESOLVED), firing("b", FIRST)])
    again = FiringCounts()
    again.restore(record(counts))
    again.begin(LATER)
    assert (again.since, again.totals) == (SINCE, {"a": FiredTotal(2, LATER), "b": FiredTotal(1, FIRST)})


def test_firings_that_are_stored_after_the_record_are_added_for_automations_of_the_shard_alone() -> None:
    counts = FiringCounts()
    counts.restore(orjson.dumps([7, SINCE, {"a": [3, FIRST]}]))
    for name in ("a", "other"):
        counts.add_stored(orjson.dumps({"automation": name, "state": "Triggered", "at": LATER}), {"a"})
    counts.add_stored(orjson.dumps({"automation": "a", "state": "Resolved", "at": LATER}), {"a"})
    counts.add_stored(b"no firing", {"a"})
    assert counts.totals == {"a": FiredTotal(4, LATER)}


def test_the_record_is_due_when_numbers_changed_not_at_each_commit_and_at_once_when_idle() -> None:
    counts = FiringCounts()
    counts.begin(SINCE)
    assert counts.due(0.0)
    record(counts)
    assert not counts.due(STORE_EVERY_S * 2)
    counts.add([firing("a", FIRST)])
    assert not counts.due(STORE_EVERY_S / 2)
    assert counts.due(STORE_EVERY_S / 2, idle=True)
    assert counts.due(STORE_EVERY_S)


def test_a_record_that_can_not_be_read_begins_anew() -> None:
    counts = FiringCounts()
    for bad in (b"{", b"[1]", b'[1,"t",{"a":1}]'):
        counts.restore(bad)
        assert counts.totals == {}
    counts.begin(SINCE)
    assert counts.since == SINCE


def test_automations_that_are_not_in_the_rules_are_kept_up_to_a_bound() -> None:
    counts = FiringCounts()
    counts.add([firing(f"gone-{number}", FIRST) for number in range(MOST_ABSENT + 5)])
    counts.add([firing("here", FIRST)])
    totals = decode_totals(counts.record(0.0, clock_us=7, automations={"here"}))[1]
    assert len(totals) == MOST_ABSENT + 1
    assert "here" in totals
