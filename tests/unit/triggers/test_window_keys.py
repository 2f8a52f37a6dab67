"""Keys of windows: long ones, equal ones, absent ones. Meaning: docs/rules.md, "One window for each"."""

from __future__ import annotations

import hashlib
import tracemalloc
from typing import Any

import orjson
import pytest
from trigger_samples import evaluator, event, reasons, take

from whenthen.conditions import compile_condition
from whenthen.schemas.events import decode_event

BIG = "k" * 1_000_000


def shown(text: str) -> str:
    return f"{text[:64]}…sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@pytest.mark.parametrize(
    "trigger",
    [
        {"expect": "a", "threshold": 2, "within": 60},
        {"expect": "a", "threshold": 2, "within": 60, "window": "tumbling"},
        {"expect": "a", "collect": {"events": 2}},
        {"type": "metric", "expect": "a", "aggregate": "count", "operator": ">", "threshold": 1, "within": 60},
    ],
    ids=["sliding", "tumbling", "collecting", "metric"],
)
@pytest.mark.parametrize("expression", ["$.payload.k", "k"])
def test_a_long_key_names_one_window_and_is_shown_shortened(trigger: dict[str, Any], expression: str) -> None:
    engine = evaluator({**trigger, "for_each": expression})
    other = BIG[:-1] + "x"
    events = [
        event("a", n, id=f"e{n}", payload={"k": key}, labels={"k": key}) for n, key in enumerate([BIG, other, BIG])
    ]
    first, second, third = take(engine, *events)
    assert not first.firings
    assert not second.firings
    (firing,) = third.firings
    assert firing.key == {expression: shown(BIG)}
    assert {len(key) for _, key, _ in engine.drain()} == {len(shown(BIG))}


def test_a_long_list_as_a_key_is_shortened_as_its_json() -> None:
    engine = evaluator({"expect": "a", "for_each": "$.payload.k"})
    (evaluation,) = take(engine, event("a", payload={"k": [1] * 600}))
    text = orjson.dumps([1] * 600).decode()
    assert evaluation.firings[0].key == {"$.payload.k": shown(text)}


def test_a_key_of_1024_bytes_is_whole_and_one_of_1025_is_not() -> None:
    engine = evaluator({"expect": "a", "for_each": "k"})
    ascii_key, wide_key = "k" * 1024, "é" * 513
    first, second = take(engine, event("a", 0, labels={"k": ascii_key}), event("a", 1, labels={"k": wide_key}))
    assert first.firings[0].key == {"k": ascii_key}
    assert second.firings[0].key == {"k": shown(wide_key)}


def test_parts_of_a_composite_meet_under_a_long_key() -> None:
    parts = [{"expect": "a"}, {"expect": "b", "for_each": "$.payload.n"}]
    engine = evaluator({"type": "sequence", "correlate": "$.payload.k", "triggers": parts})
    outcomes = take(engine, *(event(name, n, payload={"k": BIG, "n": 1}) for n, name in enumerate("ab")))
    assert outcomes[1].firings[0].key == {"$.payload.k": shown(BIG)}


def test_a_long_key_is_resolved_by_the_same_key() -> None:
    engine = evaluator({"expect": "a", "for_each": "$.payload.k", "resolve_on": "b"})
    outcomes = take(engine, *(event(name, n, payload={"k": BIG}) for n, name in enumerate("ab")))
    assert [firing.state.value for outcome in outcomes for firing in outcome.firings] == ["Triggered", "Resolved"]


def test_three_hundred_keys_of_a_megabyte_leave_little_in_memory() -> None:
    engine = evaluator({"expect": "a", "for_each": "$.payload.k", "threshold": 2, "within": 3600}, record=False)
    tracemalloc.start()
    try:
        for number in range(300):
            take(engine, event("a", 1, id=f"e{number}", payload={"k": f"{number}{BIG}"}))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 3_000_000


def test_equal_numbers_are_the_same_key() -> None:
    engine = evaluator({"expect": "a", "for_each": "$.payload.k", "threshold": 2, "within": 60})
    outcomes = take(engine, event("a", 0, payload={"k": 1}), event("a", 1, payload={"k": 1.0}))
    assert reasons(outcomes) == ["below_threshold", "fired"]
    assert outcomes[1].firings[0].key == {"$.payload.k": 1}


def test_null_is_no_key() -> None:
    engine = evaluator({"expect": "a", "for_each": "$.payload.k"})
    assert reasons(take(engine, event("a", payload={"k": None}))) == ["missing_key"]


EQUAL = [
    (1, 1.0),
    (0, -0.0),
    (-3, -3.0),
    (2**53, 2.0**53),
    (2**63, 2.0**63),
    ([1, [2]], [1.0, [2.0]]),
    ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1.0}),
]
OTHER = [(1, 1.5), (1, "1"), (1, True), (0, False), (1.5, "1.5"), ([1], ["1"]), ("", 0), ([], {})]


@pytest.mark.parametrize("trigger", [
    {"expect": "a", "threshold": 2, "within": 60},
    {"expect": "a", "threshold": 2, "within": 60, "window": "tumbling"},
    {"expect": "a", "collect": {"events": 2}},
    {"type": "metric", "expect": "a", "aggregate": "count", "operator": ">", "threshold": 1, "within": 60},
], ids=["sliding", "tumbling", "collecting", "metric"])  # fmt: skip
@pytest.mark.parametrize(
    ("one", "other", "same"), [*((*pair, True) for pair in EQUAL), *((*pair, False) for pair in OTHER)]
)
def test_values_that_conditions_call_equal_are_one_key_and_others_are_not(
    trigger: dict[str, Any], one: Any, other: Any, same: bool
) -> None:
    engine = evaluator({**trigger, "for_each": "$.payload.k"})
    events = [event("a", number, id=f"e{number}", payload={"k": key}) for number, key in enumerate([one, other])]
    first, second = take(engine, *events)
    assert not first.firings
    assert len(second.firings) == int(same)
    condition = compile_condition("event.payload.a == event.payload.b", variables=("event",))
    both = decode_event(orjson.dumps({**events[0].data, "payload": {"a": one, "b": other}}))
    assert condition.holds(both.variables) is same


def test_null_correlates_nothing() -> None:
    parts = [{"expect": "a"}, {"expect": "b"}]
    engine = evaluator({"type": "sequence", "within": 60, "correlate": "$.payload.k", "triggers": parts})
    outcomes = take(engine, *(event(name, n, id=name, payload={"k": None}) for n, name in enumerate("ab")))
    assert [outcome.firings for outcome in outcomes] == [[], []]
    assert set(reasons(outcomes)) == {"missing_key"}


@pytest.mark.parametrize("path", ["k", "related:flow:k", "$.payload.k"])
@pytest.mark.parametrize("default", ["none", 0, 1.5, False, ""])
def test_a_default_stands_for_what_an_event_lacks(path: str, default: Any) -> None:
    engine = evaluator({"expect": "a", "for_each": {"path": path, "default": default}})
    there = event(labels={"k": "x"}, related=[{"id": "f", "role": "flow", "k": "x"}], payload={"k": "x"})
    found = take(engine, there, event("a", 1), event("a", 2, payload={"k": None}))
    assert [firing.key for each in found for firing in each.firings] == [{path: "x"}, {path: default}, {path: default}]


def test_a_default_is_a_value_like_any_other() -> None:
    engine = evaluator({"expect": "a", "for_each": {"path": "$.payload.k", "default": 1}, "threshold": 2, "within": 9})
    (_, second) = take(engine, event(payload={"k": 1.0}), event("a", 1))
    assert [firing.key for firing in second.firings] == [{"$.payload.k": 1}]


def test_buckets_take_the_default_instead_of_the_empty_text() -> None:
    engine = evaluator({"expect": "a", "window": "tumbling", "for_each": [{"path": "k", "default": "-"}, "l"]})
    (found,) = take(engine, event())
    assert [firing.key for firing in found.firings] == [{"k": "-", "l": ""}]


def test_parts_meet_by_the_default_of_their_composite() -> None:
    parts = [{"expect": "a", "for_each": "l"}, {"expect": "b"}]
    engine = evaluator({"type": "sequence", "correlate": {"path": "k", "default": "-"}, "triggers": parts})
    found = take(engine, event("a", labels={"l": "1"}), event("b", 1, labels={"k": "x"}), event("b", 2))
    assert [firing.key for each in found for firing in each.firings] == [{"k": "-"}]
