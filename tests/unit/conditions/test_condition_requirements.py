"""What a condition requires for certain: the tests that the rule index may file it under."""

from __future__ import annotations

from typing import Any

import pytest
from condition_expressions import typed_cases
from hypothesis import given

from tests.examples import up_to
from whenthen.conditions import ConditionError, compile_condition

REF = ("event", "payload", "ref")


@pytest.mark.parametrize(
    ("text", "equalities"),
    [
        ('event.payload.ref == "main"', [(REF, "main")]),
        ('"main" == event.payload.ref', [(REF, "main")]),
        ('event["payload"].ref == "main"', [(REF, "main")]),
        ('event.payload["a.b"] == "main"', [(("event", "payload", "a.b"), "main")]),
        ("event.n == -3 && event.t == true", [(("event", "n"), -3), (("event", "t"), True)]),
        ('(event.n == 1 && event.t) && !event.u && event.s == "x"',
         [(("event", "n"), 1), (("event", "t"), True), (("event", "u"), False), (("event", "s"), "x")]),
        ('event.n == 1 && (event.s == "a" || event.s == "b")', [(("event", "n"), 1)]),
        ('event.n == 1 || event.s == "a"', []),
        ("!(event.n == 1)", []),
        ("event.n == 1 ? true : false", []),
        ("event.n == 1.0", []),
        ("event.n == 1u", []),
        ("event.n == 9007199254740992", [(("event", "n"), 9007199254740992)]),
        ("event.n == 9007199254740993", []),  # the double 9007199254740992.0 equals it too
        ("event.n == -9007199254740993", []),
        ("event.n == null", []),
        ("event.n == event.m", []),
        ("event.n != 1", []),
        ("event == 1", []),
        ("event.xs[0] == 1", []),
        ("event.xs.exists(x, x.a == 1)", []),
        ("size(event.xs) == 1", []),
    ],
)  # fmt: skip
def test_equalities_are_the_conjuncts_that_compare_a_path_with_a_constant(text: str, equalities: list[Any]) -> None:
    assert list(compile_condition(text).equalities) == equalities


def test_memberships_are_offered_apart() -> None:
    condition = compile_condition('event.s in ["a", "b"] && event.key.startsWith("in/") && event.n in [1, 2.0]')
    assert condition.memberships == ((("event", "s"), ("a", "b")),)
    assert condition.equalities == ()


@up_to(200)
@given(first=typed_cases(), second=typed_cases())
def test_a_condition_that_holds_meets_each_of_its_equalities(first: Any, second: Any) -> None:
    (one, variables), (other, _) = first, second
    for text in (one, f"({one}) && {other}", f"event.n == 1 && ({one})"):
        condition = compile_condition(text)
        try:
            held = condition.holds(variables)
        except ConditionError:
            continue
        for (root, *path), constant in condition.equalities:
            value: Any = variables[root]
            for name in path:
                value = value.get(name)
            assert not held or value == constant
