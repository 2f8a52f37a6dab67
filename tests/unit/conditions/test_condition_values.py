"""Values as they come from JSON, failures at run time, and the limits on what an evaluation may cost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.compiled_conditions import compile_now
from whenthen.conditions import (
    CelType,
    Condition,
    ConditionError,
    ConditionFailed,
    Uint,
    compile_condition,
)

Compile = Callable[[str], Condition]


@pytest.fixture(params=["closures", "compiled"])
def condition(request: pytest.FixtureRequest) -> Compile:
    """Compile for one of the two ways to evaluate."""

    def build(text: str) -> Condition:
        built = compile_condition(text, variables={"event"})
        if request.param == "compiled":
            compile_now(built)
        return built

    return build


@pytest.mark.parametrize(
    ("text", "event", "expected"),
    [
        ("event == 1", True, False),
        ("event == true", 1, False),
        ("event in [1, 2]", True, False),
        ("event in [1, 2]", 1.0, True),
        ("event in ['a', 'b']", 1, False),
        ("true in event", [1], False),
        ("'a' in event", {"a": None}, True),
        ("event == 1", 1.0, True),
        ("event > 0", 0.5, True),
        ("event == [1, true]", [1, 1], False),
        ("event == {'a': 1}", {"a": 1.0}, True),
        ("event == {'a': 1}", {"a": True}, False),
        ("has(event.a)", {"a": None}, True),
        ("event.a == null", {"a": None}, True),
        ("size(event)", "é😀", 2),
        ("event['a'].b", {"a": {"b": 3}}, 3),
        ("event[1]", [1, 2], 2),
        ("event[0]", {0: "zero"}, "zero"),
        ("event - 1", -(2**63) + 1, -(2**63)),
        ("event / 2", -7, -3),
        ("event % 2", -7, -1),
        ("event / -2", 7, -3),
        ("event < 'b'", "a\ud800", True),
        ("type(event) == int", 1, True),
        ("type(event)", 1.0, CelType("double")),
        ("uint(event)", 7, Uint(7)),
        ("event.map(x, x * 2)", [1, 2], [2, 4]),
        ("event.map(x, x > 1, x * 2)", [1, 2], [4]),
        ("event.filter(k, k != 'a')", {"a": 1, "b": 2}, ["b"]),
        ("event.exists(x, x.a == 1)", [{}, {"a": 1}], True),
        ("event.all(x, x.a == 1)", [{}, {"a": 2}], False),
        ("event.exists(x, event.exists(y, x + y == 5))", [1, 4], True),
        ("event.exists(x, [9].exists(x, x == 9) && x == 1)", [1], True),
    ],
)
def test_plain_values_have_the_meaning_of_cel(condition: Compile, text: str, event: Any, expected: Any) -> None:
    found = condition(text)({"event": event})
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "event", "reason", "clause", "value"),
    [
        ("event.a.b > 1", {"a": {}}, "no_such_field", "event.a.b", {}),
        ("event.a.b > 1", {"a": 5}, "no_such_field", "event.a.b", 5),
        ("1 + event.a > 1", {"a": "x"}, "no_overload", "1 + event.a", 1),
        ("event.a > 1", {"a": None}, "no_overload", "event.a > 1", None),
        ("event.a + 1 > 1", {"a": 2**63 - 1}, "overflow", "event.a + 1", 2**63 - 1),
        ("1 / event.a > 1", {"a": 0}, "division_by_zero", "1 / event.a", 1),
        ("event.a[3] > 1", {"a": [1]}, "index_out_of_range", "event.a[3]", 3),
        ("event.a.startsWith('x')", {"a": 3}, "no_overload", "event.a.startsWith('x')", 3),
        ("event.a.startsWith('x')", {"a": b"x"}, "no_overload", "event.a.startsWith('x')", b"x"),
        ("event.a.matches('x')", {"a": 3}, "no_overload", "event.a.matches('x')", 3),
        ("event.a.matches('x')", {"a": "\ud800"}, "bad_conversion", "event.a.matches('x')", "\ud800"),
        ("'x'.matches(event.a)", {"a": "("}, "bad_pattern", "'x'.matches(event.a)", "("),
        ("int(event.a) > 1", {"a": "1_000"}, "bad_conversion", "int(event.a)", "1_000"),
        ("timestamp(event.a) > timestamp(0)", {"a": "today"}, "bad_conversion", "timestamp(event.a)", "today"),
        ("event.a && true", {"a": "yes"}, "no_overload", "event.a", "yes"),
        ("has(event.a.b)", {"a": [1]}, "no_overload", "has(event.a.b)", [1]),
        ("'a' in event.a", {"a": "abc"}, "no_overload", "'a' in event.a", "a"),
        ("event.a.exists(x, x > 1)", {"a": "abc"}, "no_overload", "event.a.exists(x, x > 1)", "abc"),
        ("event.a.exists(x, x.b > 1)", {"a": [{"c": 1}]}, "no_such_field", "x.b", {"c": 1}),
    ],
)
def test_a_failure_names_its_reason_clause_place_and_value(
    condition: Compile, text: str, event: Any, reason: str, clause: str, value: Any
) -> None:
    with pytest.raises(ConditionFailed) as caught:
        condition(text)({"event": event})
    failure = caught.value
    assert (failure.reason, failure.clause, failure.value) == (reason, clause, value)
    assert failure.text == text
    assert text.index(clause) <= failure.position < text.index(clause) + len(clause)
    assert failure.column == failure.position + 1
    assert str(failure).endswith(failure.caret)
    assert isinstance(failure, ConditionError)


def test_a_condition_that_is_no_bool_does_not_hold_and_says_what_it_gives(condition: Compile) -> None:
    with pytest.raises(ConditionFailed, match=r"gives 4 \(int\), not a bool") as caught:
        condition("event.a + 1").holds({"event": {"a": 3}})
    assert caught.value.reason == "not_boolean"


def test_errors_are_absorbed_on_either_side(condition: Compile) -> None:
    assert condition("event.nope == 1 || event.a == 1").holds({"event": {"a": 1}}) is True
    assert condition("event.nope == 1 && event.a == 2").holds({"event": {"a": 1}}) is False


def test_datetimes_compare_as_moments_across_zones_and_dst(condition: Compile) -> None:
    zone = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=zone, fold=0)
    second = datetime(2026, 10, 25, 2, 15, tzinfo=zone, fold=1)
    assert condition("event.a < event.b").holds({"event": {"a": first, "b": second}})
    later = condition("event.a + duration('24h')")({"event": {"a": datetime(2026, 10, 24, 12, tzinfo=zone)}})
    assert later == datetime(2026, 10, 25, 10, tzinfo=UTC)
    assert condition("event.a == event.b").holds(
        {"event": {"a": datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "b": datetime(2026, 1, 1)}}
    )


def test_nanoseconds_are_kept(condition: Compile) -> None:
    text = "string(timestamp(event) + duration('1ns')) == '2026-01-01T00:00:00.000000002Z'"
    assert condition(text).holds({"event": "2026-01-01T00:00:00.000000001Z"})
    assert condition("timestamp(event) < timestamp(event) + duration('1ns')").holds({"event": "2026-01-01T00:00:00Z"})


@pytest.mark.takes(1)
def test_macros_over_large_payloads_stop_at_their_budget(condition: Compile) -> None:
    nested = condition("event.all(x, event.all(y, event.all(z, x + y + z >= 0)))")
    with pytest.raises(ConditionFailed) as caught:
        nested({"event": list(range(1_000))})
    assert caught.value.reason == "budget"


@pytest.mark.takes(0.7)
def test_a_spent_budget_is_not_absorbed(condition: Compile) -> None:
    text = "event.all(x, event.all(y, event.all(z, x + y + z >= 0))) || true"
    with pytest.raises(ConditionFailed, match="steps"):
        condition(text)({"event": list(range(1_000))})


def test_text_does_not_grow_without_bound(condition: Compile) -> None:
    event = {"text": "x" * 1_000_000, "items": list(range(1_000))}
    for text in ("event.items.map(i, event.text + event.text)", "size(" + " + ".join(["event.text"] * 50) + ")"):
        with pytest.raises(ConditionFailed) as caught:
            condition(text)({"event": event})
        assert caught.value.reason == "budget"


def test_a_pattern_that_would_hang_a_backtracking_engine_is_answered(condition: Compile) -> None:
    assert condition(r"event.matches('^(a+)+$')").holds({"event": "a" * 50_000 + "b"}) is False


def test_a_value_nested_beyond_reason_fails_and_does_not_crash(condition: Compile) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConditionFailed) as caught:
        condition("event.a == event.b")({"event": {"a": deep, "b": [deep]}})
    assert caught.value.reason == "too_deep"
    while deep:
        deep = deep[0]


def test_conditions_of_one_shape_keep_their_own_literals() -> None:
    conditions = [compile_condition(f"event.n == {n} && event.s.matches('^{n}$')") for n in range(50)]
    for _ in range(3):
        for n, built in enumerate(conditions):
            assert built.holds({"event": {"n": n, "s": str(n)}})
            assert not built.holds({"event": {"n": n + 1, "s": str(n)}})


def test_a_variable_with_dots_takes_precedence_over_fields() -> None:
    built = compile_condition("a.b.c")
    compile_now(built)
    assert built({"a": {"b": {"c": 1}}}) == 1
    assert built({"a": {"b": {"c": 1}}, "a.b": {"c": 2}}) == 2
    assert built({"a": {"b": {"c": 1}}, "a.b": {"c": 2}, "a.b.c": 3}) == 3


def test_an_operation_that_python_warns_of_fails_in_the_way_of_cel() -> None:
    for text in ("true['a'] || true", "[1]['a'] || true", "1.a || true"):
        built = compile_condition(text)
        compile_now(built)
        assert built({}) is True


@pytest.mark.parametrize(
    "text", ["event * 2", "double(event)", "string(event)", "event + 0.5", "int(event)", "uint(event)"]
)
def test_an_integer_beyond_64_bits_fails_and_is_described_shortly(condition: Compile, text: str) -> None:
    with pytest.raises(ConditionFailed) as caught:
        condition(text)({"event": 10**5_000})
    assert len(str(caught.value)) < 400
    assert condition("event > 1 && event != 2.0").holds({"event": 10**5_000})
