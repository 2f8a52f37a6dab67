"""The budget of conditions: every operation is charged by the size of what it touches, and the charges are counted, not timed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.compiled_conditions import compile_now
from whenthen.conditions import (
    MAX_CHARS,
    MAX_DEPTH,
    MAX_NODES,
    Condition,
    ConditionFailed,
    codegen,
    compile_condition,
    value_tree,
)
from whenthen.conditions.exact import STEPS_PER_ZONE
from whenthen.conditions.frame import Frame
from whenthen.conditions.functions.network_functions import STEPS_PER_ADDRESS
from whenthen.conditions.functions.text_format import MAX_PRECISION, STEPS_PER_CLAUSE
from whenthen.conditions.functions.text_functions import CHANGED_TEXT
from whenthen.conditions.runtime.comparing import COMPARED, SCANNED
from whenthen.conditions.runtime.conversions import MAX_NUMBER_CHARS
from whenthen.conditions.runtime.cost import FREE, MAX_STEPS
from whenthen.conditions.runtime.operators import MADE_TEXT, MAX_RESULT
from whenthen.conditions.runtime.regex import STEPS_PER_PATTERN
from whenthen.conditions.shapes import shape_of

SMALL_STEPS = MAX_STEPS // 5  #: a budget that the loops alone of the cases below do not spend
MANY = 20_000
LONG = 2_000_000


def steps(text: str, **variables: Any) -> int:
    """The steps that the closures charge, however the evaluation ends."""
    found = compile_condition(text)
    frame = Frame(variables, found._constants)
    found._shape.evaluator(frame)
    return MAX_STEPS - frame.budget[0]


def both_forms(text: str) -> list[Condition]:
    closures, compiled = compile_condition(text), compile_condition(text)
    compile_now(compiled)
    return [closures, compiled]


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Less to spend, in code that is compiled meanwhile and in closures."""
    monkeypatch.setattr(codegen, "MAX_STEPS", SMALL_STEPS)
    monkeypatch.setattr(Frame.__init__, "__defaults__", (SMALL_STEPS,))
    shape_of.cache_clear()
    yield
    shape_of.cache_clear()


NUMBERS = list(range(MANY))
TEXTS = [f"tag-{number}" for number in range(MANY)]
TEXT = "x" * LONG
ADVERSE = "ab" * (LONG // 2)

HEAVY = {
    "a member of a list": ("l.exists(t, t in other)", {"l": NUMBERS, "other": [-1 - n for n in NUMBERS]}),
    "a text that is a member of a list": ("l.exists(t, t in other)", {"l": TEXTS, "other": ["no" + t for t in TEXTS]}),
    "a constant text in a list": ('l.exists(t, "q" in other)', {"l": NUMBERS, "other": TEXTS * 10}),
    "a part of a long text": ("l.exists(t, text.contains(t))", {"l": TEXTS, "text": TEXT}),
    "a constant part of a long text": ('l.exists(t, text.contains("q"))', {"l": TEXTS, "text": TEXT}),
    "a part of a short text": ("l.exists(t, l.exists(s, s.contains(part)))", {"l": ["a" * 200] * 2_000, "part": "a" * 99 + "b"}),
    "a pattern over a long text": ('l.exists(t, text.matches("x+y"))', {"l": NUMBERS, "text": TEXT}),
    "a pattern that has no automaton": ('text.matches("(a|b)*a(a|b){900}c")', {"text": ADVERSE}),
    "many patterns": ('l.exists(t, "short".matches(t))', {"l": TEXTS}),
    "many bad patterns": ('l.exists(t, "short".matches(t))', {"l": ["[" + t for t in TEXTS]}),
    "patterns that are too large": (r'l.exists(t, "short".matches(t))', {"l": [rf"\pL{{100}}{t}" for t in TEXTS]}),
    "many time zones": ("l.exists(t, at.getHours(t) == 25)", {"l": TEXTS, "at": "x"}),
    "equal lists": ("l.exists(t, a != b)", {"l": NUMBERS, "a": NUMBERS * 5, "b": list(range(MANY)) * 5}),
    "equal maps": ("l.exists(t, a != b)", {"l": NUMBERS, "a": dict.fromkeys(TEXTS, 1), "b": dict.fromkeys(TEXTS, 1)}),
    "equal texts": ("l.exists(t, a != b)", {"l": NUMBERS, "a": TEXT, "b": "x" * LONG}),
    "order of texts": ("l.exists(t, a < b)", {"l": NUMBERS, "a": TEXT, "b": "x" * LONG}),
    "the start of a text": ("l.exists(t, !a.startsWith(b))", {"l": NUMBERS, "a": TEXT, "b": "x" * LONG}),
    "the end of a text": ("l.exists(t, !a.endsWith(b))", {"l": NUMBERS, "a": TEXT, "b": "x" * LONG}),
    "texts that are added": ("l.exists(t, size(a + a) == 1)", {"l": NUMBERS, "a": TEXT}),
    "lists that are added": ("l.exists(t, size(l + l) == 1)", {"l": NUMBERS}),
    "texts that are kept": ("l.map(t, t + a).size() > 0", {"l": TEXTS, "a": "x" * 10_000}),
    "bytes": ("l.exists(t, bytes(a) == b'')", {"l": NUMBERS, "a": TEXT}),
    "text of bytes": ("l.exists(t, string(a) == '')", {"l": NUMBERS, "a": b"x" * LONG}),
    "loops in loops": ("l.exists(a, l.exists(b, l.exists(c, a + b + c < 0)))", {"l": NUMBERS}),
    "one of many": ("l.exists_one(t, other.exists_one(o, o == t))", {"l": NUMBERS, "other": NUMBERS}),
    "a filter in a loop": ("l.exists(t, l.filter(o, o == t).size() > 1)", {"l": NUMBERS}),
    "a choice": ("l.all(t, a == b ? true : false)", {"l": NUMBERS, "a": NUMBERS * 5, "b": list(range(MANY)) * 5}),
    "a message of a large value": (
        "l.exists(t, google.protobuf.Struct{fields: m} == {})",
        {"l": NUMBERS, "m": {"a": list(range(100_000))}},
    ),
    "durations": ('l.exists(t, duration(t) > duration("1h"))', {"l": ["1s" * 90] * MANY}),
    "times": ('l.exists(t, timestamp(t) < timestamp("2026-01-01T00:00:00Z"))', {"l": ["2026-01-01T00:00:00Z"] * MANY * 2}),
    "numbers of many digits": ("l.exists(t, double(t) < 0.0)", {"l": ["1" * 999] * MANY * 2}),
    "places in a text": ("l.exists(t, text.indexOf(t) == 7)", {"l": TEXTS, "text": TEXT}),
    "places in a text, from its end": ("l.exists(t, text.lastIndexOf(t) == 7)", {"l": TEXTS, "text": TEXT}),
    "places in short texts, from their end": ("l.exists(t, l.exists(s, s.lastIndexOf(part) == 1))", {"l": ["a" * 200] * 2_000, "part": "ab" + "a" * 99}),
    "lower case": ("l.exists(t, text.lowerAscii() == '')", {"l": NUMBERS, "text": TEXT}),
    "upper case": ("l.exists(t, text.upperAscii() == '')", {"l": NUMBERS, "text": TEXT}),
    "trimming": ("l.exists(t, text.trim() == 'x')", {"l": NUMBERS, "text": " " * LONG}),
    "reversing": ("l.exists(t, text.reverse() == '')", {"l": NUMBERS, "text": TEXT}),
    "quoting": ("l.exists(t, strings.quote(text) == '')", {"l": NUMBERS, "text": TEXT}),
    "parts of a text": ("l.exists(t, text.substring(t) == '')", {"l": NUMBERS, "text": TEXT}),
    "replacing": ("l.exists(t, text.replace('x', '') == 'y')", {"l": NUMBERS, "text": TEXT}),
    "replacing with more": ("l.exists(t, short.replace('', text) == 'y')", {"l": NUMBERS, "short": "a", "text": TEXT}),
    "replacing nothing": ("l.exists(t, text.replace(part, '') == 'y')", {"l": NUMBERS, "text": "a" * LONG, "part": "a" * 50 + "b" + "a" * 50}),
    "splitting": ("l.exists(t, text.split('x').size() == 1)", {"l": NUMBERS, "text": TEXT}),
    "splitting into characters": ("text.split('').size() == 1", {"text": TEXT + TEXT}),
    "splitting short texts": ("l.exists(t, l.exists(s, s.split('-').size() == 9))", {"l": TEXTS}),
    "joining": ("l.exists(t, l.join(text) == '')", {"l": TEXTS, "text": "x" * 200}),
    "joining many": ("n.exists(t, l.join() != '')", {"n": NUMBERS, "l": [""] * MANY}),
    "formatting a text": ("l.exists(t, '%s'.format([text]) == '')", {"l": NUMBERS, "text": TEXT}),
    "formatting a list": ("l.exists(t, '%s'.format([l]) == '')", {"l": NUMBERS}),
    "formatting a map": ("l.exists(t, '%s'.format([m]) == '')", {"l": NUMBERS, "m": dict.fromkeys(TEXTS, 1)}),
    "formatting bytes": ("l.exists(t, '%x'.format([b]) == '')", {"l": NUMBERS, "b": b"x" * LONG}),
    "formatting unreadable bytes": ("l.exists(t, '%s'.format([b]) == '')", {"l": NUMBERS, "b": bytes([255]) * LONG}),
    "many clauses": ("text.format(l) == ''", {"l": NUMBERS * 10, "text": "%d" * MANY * 10}),
    "clauses of decimal places": ("l.exists(t, text.format(l) == '')", {"l": NUMBERS, "text": "%.100f" * 10_000}),
    "a text that is only percent signs": ("text.format([]) == ''", {"text": "%%" * 200_000}),
    "the greatest of a list": ("l.exists(t, math.greatest(l) == -1)", {"l": NUMBERS}),
    "addresses": ("l.exists(t, ip(t) == t)", {"l": ["2001:db8:1:2:3:4:5:6"] * 30_000}),
    "texts that are no addresses": ("l.exists(t, isIP(t))", {"l": ["1.2.3.4.5"] * 30_000}),
    "ranges": ("l.exists(t, cidr(t) == t)", {"l": ["2001:db8::/32"] * 30_000}),
    "addresses in a range": ("l.exists(t, cidr('10.0.0.0/8').containsIP(t))", {"l": ["11.0.0.1"] * 30_000}),
    "ranges in a range": ("l.exists(t, cidr('10.0.0.0/8').containsCIDR(t))", {"l": ["11.0.0.0/9"] * 30_000}),
    "questions about an address": ("l.exists(t, l.exists(u, !ip('10.0.0.1').isGlobalUnicast()))", {"l": list(range(300))}),
    "the first address of a range": ("l.exists(t, l.exists(u, cidr('10.0.0.0/8').masked() == t))", {"l": list(range(300))}),
    "addresses as text": ("l.exists(t, l.exists(u, string(ip('::1')) == ''))", {"l": list(range(300))}),
    "optional values that are unwrapped": ("l.exists(t, l.map(x, optional.of(x)).unwrapOpt().size() == 0)", {"l": NUMBERS}),
    "equal optional values": ("l.exists(t, optional.of(a) != optional.of(b))", {"l": NUMBERS, "a": NUMBERS * 5, "b": list(range(MANY)) * 5}),
    "an optional that is mapped": ("l.exists(t, m.?a.optMap(x, x == b).orValue(true))", {"l": NUMBERS, "m": {"a": TEXT}, "b": "x" * (LONG - 1) + "y"}),
    "numbers beside text": ("l.exists(t, m == l)", {"l": NUMBERS, "m": [*range(MANY - 1), "x"]}),
}  # fmt: skip


@pytest.mark.usefixtures("small_budget")
@pytest.mark.parametrize("name", HEAVY)
def test_work_in_loops_is_charged_by_the_size_of_what_it_touches(name: str) -> None:
    """Compiled code leaves a budget that is spent to the closures, so both must charge for the failure to be seen."""
    text, variables = HEAVY[name]
    if name == "many time zones":
        variables = {**variables, "at": datetime(2026, 1, 1, tzinfo=UTC)}
    _, compiled = both_forms(text)
    with pytest.raises(ConditionFailed, match="cost limit") as caught:
        compiled.holds(variables)
    assert caught.value.reason == "budget"


@pytest.mark.takes(0.3)
@pytest.mark.parametrize(
    ("text", "variables"),
    [
        (" || ".join(['a.contains("q")'] * 400), {"a": TEXT}),
        (" || ".join(["a != b"] * 400), {"a": NUMBERS, "b": list(range(MANY))}),
        (" || ".join(["a != b"] * 400), {"a": TEXT, "b": "x" * LONG}),
        (" || ".join(["-1 in a"] * 400), {"a": NUMBERS}),
        (" || ".join(["size(a + a) == 0"] * 400), {"a": TEXT}),
        (" || ".join(['a.matches("x+y")'] * 400), {"a": TEXT}),
        (" || ".join(f'"q".matches(a + "{number}")' for number in range(400)), {"a": "z"}),
        (" || ".join(["a.replace('x', 'y') == ''"] * 400), {"a": TEXT}),
        (" || ".join(["a.split('x').size() == 1"] * 400), {"a": TEXT}),
        (" || ".join(["'%s'.format([a]) == ''"] * 400), {"a": NUMBERS}),
        (" || ".join(["a.lowerAscii() == ''"] * 400), {"a": TEXT}),
    ],
)
def test_work_outside_of_loops_is_charged_too(text: str, variables: dict[str, Any]) -> None:
    for found in both_forms(text):
        with pytest.raises(ConditionFailed, match="cost limit"):
            found.holds(variables)


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ('a.contains("q")', {"a": TEXT}, (LONG + 1) // 32 - FREE),
        ("a == b", {"a": TEXT, "b": "x" * LONG}, LONG // 64 - FREE),
        ("a == b", {"a": NUMBERS, "b": list(range(MANY))}, MANY - FREE),
        ("a < b", {"a": TEXT, "b": TEXT}, LONG // 64 - FREE),
        ('"q" in a', {"a": NUMBERS}, MANY // 4 - FREE),
        ("7 in a", {"a": NUMBERS}, MANY - FREE),
        ("size(a + a) > 0", {"a": TEXT}, LONG * 2 // 16 - FREE),
        ("size(a + a) > 0", {"a": NUMBERS}, MANY * 2 // 4 - FREE),
        ("size(bytes(a)) > 0", {"a": TEXT}, LONG // 16 - FREE),
        ('"q".matches(a)', {"a": "z"}, STEPS_PER_PATTERN + 1 - FREE),
        ('"q".matches(a) || "r".matches(a)', {"a": "z"}, STEPS_PER_PATTERN + 1 - FREE),
        ("a.lowerAscii() == ''", {"a": TEXT}, LONG // 8 - FREE),
        ("a.substring(5) == ''", {"a": TEXT}, (LONG - 5) // 16 - FREE),
        ("math.greatest(a) > 0", {"a": NUMBERS}, 4 * MANY - FREE),
        ("l.exists(t, isIP(t))", {"l": ["x"] * MANY}, (1 + 2 + 80) * MANY),
        ("ip(a) == ip('10.0.0.1')", {"a": "10.0.0.2"}, 0),
        ("m.?a.orValue(0) > 0", {"m": {}}, 0),
        ("size(a) > 0", {"a": TEXT}, 0),
        ('a == "x"', {"a": TEXT}, 0),
        ("a in m", {"a": "x", "m": dict.fromkeys(TEXTS, 1)}, 0),
        ('a.contains("q") || a == b', {"a": "x" * 500, "b": "x" * 500}, 0),
        ("l.all(t, t >= 0)", {"l": NUMBERS}, 4 * MANY),
        ('l.all(t, t != "y")', {"l": TEXTS}, 4 * MANY),
        (f'l.all(t, t != "{"y" * 640}")', {"l": TEXTS}, 14 * MANY),
    ],
)
def test_steps_of_an_operation(text: str, variables: dict[str, Any], expected: int) -> None:
    assert steps(text, **variables) == expected


def test_a_time_zone_of_the_event_is_charged_once() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert steps("at.getHours(z) == 1 && at.getHours(z) == 1", at=at, z="Europe/Berlin") == STEPS_PER_ZONE
    assert steps('at.getHours("Europe/Berlin") == 1', at=at) == 0


@pytest.mark.parametrize("conversion", ["int", "uint", "double"])
@pytest.mark.parametrize("text", ["1" * LONG, "1" * LONG + "x", "." * LONG, "1." + "0" * LONG, "1e" + "1" * LONG])
def test_a_number_is_read_from_text_of_bounded_length(conversion: str, text: str) -> None:
    for found in both_forms(f"{conversion}(a) == {conversion}(a)"):
        with pytest.raises(ConditionFailed, match=f"at most {MAX_NUMBER_CHARS:,} are read") as caught:
            found.holds({"a": text})
        assert caught.value.reason == "bad_conversion"


def test_the_longest_exact_doubles_are_read() -> None:
    smallest = f"{5e-324:.1074f}"[:MAX_NUMBER_CHARS]
    for found in both_forms("double(a) >= 0.0 && double('1.') == 1.0 && double('.5') == 0.5"):
        assert found.holds({"a": smallest})


def test_a_condition_over_large_texts_works_within_the_budget() -> None:
    wanted = 'text.contains("xy") || text.matches("ERROR [0-9]+") || text.startsWith("x")'
    for found in both_forms(wanted):
        assert found.holds({"text": TEXT})


@pytest.mark.usefixtures("small_budget")
def test_a_spent_budget_of_an_operation_is_not_absorbed() -> None:
    for found in both_forms("l.exists(t, t in other) || true"):
        with pytest.raises(ConditionFailed, match="cost limit"):
            found.holds({"l": NUMBERS, "other": [-1 - n for n in NUMBERS]})


def test_an_explanation_is_bounded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_tree, "MAX_STEPS", SMALL_STEPS)
    heavy = " || ".join(f"l.exists(t, l.exists(u, t + u == -{number + 1}))" for number in range(50))
    shown = compile_condition(heavy).explain({"l": list(range(600))})
    assert "cost limit" in shown.render()
    assert shown.error is not None


def test_the_limits_are_those_of_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "rules.md").read_text()
    rows = page.split("| limit of a condition | value |\n| --- | --- |\n")[1].split("\n\n")[0].splitlines()
    stated = {name.strip(): int(value.replace(",", "")) for _, name, value, _ in (row.split("|") for row in rows)}
    assert list(stated.values()) == [
        MAX_STEPS,
        FREE,
        1 << COMPARED,
        1 << SCANNED,
        1 << MADE_TEXT,
        1 << CHANGED_TEXT,
        STEPS_PER_CLAUSE,
        STEPS_PER_ADDRESS,
        STEPS_PER_PATTERN,
        STEPS_PER_ZONE,
        MAX_RESULT,
        MAX_PRECISION,
        MAX_NUMBER_CHARS,
        MAX_CHARS,
        MAX_NODES,
        MAX_DEPTH,
    ]
