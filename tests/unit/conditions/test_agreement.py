"""Compiled code and closures are one language: every expression has one outcome, whichever evaluates it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from condition_expressions import events, expressions, typed_cases
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.compiled_conditions import compile_now
from tests.examples import up_to
from whenthen.conditions import Condition, ConditionFailed, ConditionRefused, OptionalValue, compile_condition


def outcome(condition: Condition, variables: dict[str, Any]) -> Any:
    try:
        return "value", freeze(condition(variables))
    except ConditionFailed as failure:
        return "failed", failure.reason, failure.position, failure.clause, failure.detail


def assert_agreement(condition: Condition, variables: dict[str, Any]) -> None:
    """A condition evaluates by closures until it is compiled."""
    by_closures = outcome(condition, variables)
    compile_now(condition)
    assert outcome(condition, variables) == by_closures


def freeze(value: Any) -> Any:
    """A value with its types made visible, so that 1, 1.0 and true differ and NaN is itself."""
    if isinstance(value, list):
        return [freeze(item) for item in value]
    if isinstance(value, dict):
        return {(type(key), key): freeze(item) for key, item in value.items()}
    if isinstance(value, OptionalValue):
        return "optional", value.present, freeze(value.value)
    if isinstance(value, float):
        return "nan" if math.isnan(value) else ("double", value, math.copysign(1, value))
    return type(value), value, getattr(value, "nanos", 0)


@pytest.mark.takes(2)
@up_to(600)
@given(text=expressions(), event=events, declared=st.booleans())
def test_compiled_code_and_closures_have_the_same_outcome(text: str, event: dict[str, Any], declared: bool) -> None:
    variables = {"event": event}
    try:
        condition = compile_condition(text, variables={"event", "nothing"} if declared else None)
    except ConditionRefused:
        assume(False)
        return
    assert_agreement(condition, variables)


@pytest.mark.takes(2)
@up_to(600)
@given(case=typed_cases())
def test_compiled_code_and_closures_have_the_same_value(case: tuple[str, dict[str, Any]]) -> None:
    text, variables = case
    assert_agreement(compile_condition(text), variables)


@up_to(300)
@given(text=st.text(alphabet="ab.1u'\"\\()[]{}?:,=!<>&|+-*/% \n`xinhs", max_size=40))
def test_no_text_makes_the_compiler_fail_in_another_way_than_refusing(text: str) -> None:
    try:
        condition = compile_condition(text)
    except ConditionRefused as error:
        refusal = error
    else:
        outcome(condition, {"a": {"b": 1}, "x": [1]})
        return
    assert refusal.caret.endswith("^")
    assert 0 <= refusal.position <= len(text)


@up_to(200)
@given(text=expressions(), event=events)
def test_holds_is_true_exactly_when_the_value_is_true(text: str, event: dict[str, Any]) -> None:
    try:
        condition = compile_condition(text)
    except ConditionRefused:
        assume(False)
        return
    compile_now(condition)
    found = outcome(condition, {"event": event})
    try:
        held = condition.holds({"event": event})
    except ConditionFailed as error:
        failure = error
    else:
        assert found == ("value", freeze(held))
        return
    assert found[0] == "failed" or failure.reason == "not_boolean"
