"""What is refused when a condition is compiled, where the caret points, and what the message advises."""

from __future__ import annotations

import pytest

from tests.compiled_conditions import compile_now
from whenthen.conditions import (
    MAX_CHARS,
    MAX_DEPTH,
    MAX_NODES,
    ConditionRefused,
    ConditionSyntaxError,
    compile_condition,
)


def refusal(text: str, variables: set[str] | None = None) -> ConditionRefused:
    with pytest.raises(ConditionRefused) as caught:
        compile_condition(text, variables=variables)
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("", 1, 1),
        ("   ", 1, 4),
        ("1 +", 1, 4),
        ("event.payload.size >> 1", 1, 21),
        ("event.payload.size = 1", 1, 20),
        ("event.a and event.b", 1, 9),
        ("event.a & event.b", 1, 9),
        ("(event.a", 1, 9),
        ("event.a)", 1, 8),
        ("[1, 2", 1, 6),
        ("{'a' 1}", 1, 6),
        ("event..a", 1, 7),
        ("event.true", 1, 7),
        ("event.a ==\n  == 1", 2, 3),
        ("event.a ==\n\n// comment\n  'open", 4, 3),
        ("'bad \\q escape'", 1, 6),
        ("b'\\u0041'", 1, 3),
        ("'\\ud800'", 1, 2),
        ("'''never closed'", 1, 1),
        ("9223372036854775808", 1, 1),
        ("1 + 99999999999999999999u", 1, 5),
        ("-1u", 1, 2),
        ("for > 1", 1, 1),
        ("a ? b", 1, 6),
        ("size(1,)", 1, 8),
        ("has(event)", 1, 1),
        ("has(event.a, event.b)", 1, 1),
        ("[1].all(1, true)", 1, 9),
        ("[1].all(x.y, true)", 1, 9),
        ("[1].exists(x, x, x)", 1, 15),
        ("[1].map(x)", 1, 5),
        ("event.?a(1)", 1, 9),
        ("event.?", 1, 8),
        ("has(event.?a)", 1, 1),
        ("size(?event.a)", 1, 6),
        ("[1].optMap(x)", 1, 5),
        ("1.5.2", 1, 4),
        ("0xg", 1, 2),
        ("#", 1, 1),
        ("- !true", 1, 3),
    ],
)
def test_a_syntax_error_points_at_its_line_and_column(text: str, line: int, column: int) -> None:
    error = refusal(text)
    assert isinstance(error, ConditionSyntaxError)
    assert (error.line, error.column) == (line, column), str(error)
    shown, caret = error.caret.split("\n")
    assert caret.index("^") == 2 + column - 1
    assert shown[2:] == text.split("\n")[line - 1].replace("\n", "")


def test_the_message_reads_as_place_problem_remedy_line_and_caret() -> None:
    error = refusal("event.a and event.b")
    assert str(error) == (
        '1:9: expected an operator or the end, found \'and\'; "and" is "&&"\n  event.a and event.b\n          ^'
    )


def test_a_caret_in_a_long_line_shows_the_neighbourhood() -> None:
    error = refusal("event.payload.value == 1 && " * 20 + "event.a === 1")
    shown, caret = error.caret.split("\n")
    assert len(shown) <= 82
    assert shown[caret.index("^")] == "="


@pytest.mark.parametrize(
    ("text", "reason", "column", "hint"),
    [
        ("evnt.payload.size > 0", "unknown_variable", 1, 'did you mean "event"?'),
        ("event.a == other", "unknown_variable", 12, "known are event"),
        ("[1].exists(x, y > 0)", "unknown_variable", 15, None),
        ("[1].exists(x, .x > 0)", "unknown_variable", 16, None),
        ("event.a.startswith('x')", "unknown_function", 9, 'did you mean "startsWith"?'),
        ("frobnicate(event)", "unknown_function", 1, None),
        ("true || frobnicate(event)", "unknown_function", 9, None),
        ("startsWith(event.a, 'x')", "unknown_function", 1, "write string.startsWith(string)"),
        ("size(event, event)", "unknown_function", 1, "write size(string|bytes|list|map) or"),
        ("event.a.size(1)", "unknown_function", 9, "write size(string|bytes|list|map) or"),
        ("event.a.matches('(')", "bad_constant", 17, None),
        ("event.a.matches('a{1,100000}')", "bad_constant", 17, None),
        ("duration('soon') > event.a", "bad_constant", 10, None),
        ("timestamp('2026-13-01T00:00:00Z') < event.a", "bad_constant", 11, None),
        ("google.protobuf.Any{}", "unknown_type", 1, None),
        ("google.protobuf.Int32Value{valeu: 1}", "unknown_type", 35, "it has value"),
    ],
)
def test_names_and_constants_are_checked_when_the_variables_are_declared(
    text: str, reason: str, column: int, hint: str | None
) -> None:
    error = refusal(text, {"event"})
    assert not isinstance(error, ConditionSyntaxError)
    assert (error.reason, error.column) == (reason, column), str(error)
    assert hint is None or hint in str(error)


def test_without_declared_variables_names_are_looked_up_at_each_call() -> None:
    assert compile_condition("x + y")({"x": 1, "y": 2}) == 3


def test_without_declared_variables_an_unknown_function_is_refused_unless_its_error_can_be_absorbed() -> None:
    assert refusal("frobnicate(1) == 2").reason == "unknown_function"
    assert compile_condition("frobnicate(1) == 2 || true")({}) is True


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1_000, 10_000])
@pytest.mark.parametrize(
    ("before", "middle", "after"),
    [("(", "1", ")"), ("[", "1", "]"), ("{1:", "1", "}"), ("!(", "true", ")"), ("size(", "'a'", ")"),
     ("-(", "1", ")"), ("true ? 1 : ", "2", ""), ("[1].all(x, ", "true", ")"), ("", "event", ".a"),
     ("", "event", "[0]"), ("1 + ", "1", "")],
)  # fmt: skip
def test_deep_nesting_is_refused_not_a_recursion_error(before: str, middle: str, after: str, depth: int) -> None:
    error = refusal(before * depth + middle + after * depth, {"event"})
    assert error.reason == "too_large"


def test_a_hundred_levels_of_brackets_are_evaluated() -> None:
    depth = MAX_DEPTH - 1
    assert compile_condition("(" * depth + "1" + ")" * depth)({}) == 1
    assert compile_condition("[" * depth + "]" * depth + " == []")({}) is False


def test_long_chains_of_and_or_and_not_are_no_nesting() -> None:
    condition = compile_condition(" && ".join(["true"] * 2_000))
    compile_now(condition)
    assert condition({}) is True
    assert compile_condition("!" * 5_000 + "true")({}) is True
    assert compile_condition("-" * 5_001 + "1")({}) == -1


@pytest.mark.parametrize(
    "text",
    [
        "x" * (MAX_CHARS + 1),
        "event.a == '" + "a" * 100_000 + "'",
        "event.a.matches('" + "a?" * 500_000 + "')",
        "[" + "1," * 16_000 + "]",
        " || ".join(["true"] * (MAX_NODES + 1)),
        "\"" + "\\" * 99_999,
    ],
)  # fmt: skip
def test_an_oversized_condition_is_refused(text: str) -> None:
    assert refusal(text).reason == "too_large"


def test_a_list_of_five_hundred_constants_is_accepted() -> None:
    condition = compile_condition("event.id in [" + ", ".join(f"'{n}'" for n in range(500)) + "]", variables={"event"})
    assert condition.holds({"event": {"id": "499"}})
