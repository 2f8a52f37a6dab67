"""The explanation of a condition: each part, its value or its error, for `whenthen explain`."""

from __future__ import annotations

from whenthen.conditions import Verdict, compile_condition


def outline(verdict: Verdict) -> list[str]:
    return verdict.render().split("\n")


def test_both_sides_of_each_comparison_are_shown() -> None:
    condition = compile_condition('event.size > 10 && event.key.startsWith("in/")', variables={"event"})
    verdict = condition.explain({"event": {"size": 3, "key": "in/a"}})
    assert outline(verdict) == [
        'event.size > 10 && event.key.startsWith("in/")  ->  false',
        "  event.size > 10  ->  false",
        "    event.size  ->  3",
        '  event.key.startsWith("in/")  ->  true',
        '    event.key  ->  "in/a"',
    ]
    assert [child.holds for child in verdict.children] == [False, True]
    assert verdict.children[1].column == 20


def test_every_operand_is_shown_even_when_an_earlier_one_decides() -> None:
    verdict = compile_condition("event.a == 1 || event.b == 2").explain({"event": {"a": 1, "b": 3}})
    assert verdict.holds
    assert [child.value for child in verdict.children] == [True, False]


def test_an_error_is_shown_where_it_arose_and_where_it_was_absorbed() -> None:
    verdict = compile_condition("event.nope > 1 || event.a == 1").explain({"event": {"a": 1}})
    assert verdict.value is True
    failed = verdict.children[0]
    assert failed.error is not None
    assert failed.error.reason == "no_such_field"
    assert failed.error.clause == "event.nope"
    assert outline(verdict)[1] == "  event.nope > 1  ->  error: no such field: 'nope'"


def test_a_ternary_shows_its_test_and_the_result_it_chose() -> None:
    verdict = compile_condition("event.a ? event.b > 1 : event.c > 1").explain({"event": {"a": False, "b": 0, "c": 2}})
    assert [child.text for child in verdict.children] == ["event.a", "event.c > 1"]
    assert verdict.value is True


def test_not_and_has_and_macros_show_what_they_looked_at() -> None:
    condition = compile_condition("!has(event.p.x) && event.items.exists(i, i.n > 1)")
    assert outline(condition.explain({"event": {"p": {"y": 1}, "items": [{"n": 1}]}})) == [
        "!has(event.p.x) && event.items.exists(i, i.n > 1)  ->  false",
        "  !has(event.p.x)  ->  true",
        "    has(event.p.x)  ->  false",
        "      event.p  ->  {'y': 1}",
        "  event.items.exists(i, i.n > 1)  ->  false",
        "    event.items  ->  [{'n': 1}]",
    ]


def test_an_explanation_agrees_with_the_condition() -> None:
    condition = compile_condition("(event.a + 1) * 2 == 4")
    verdict = condition.explain({"event": {"a": 1}})
    assert verdict.value is condition({"event": {"a": 1}}) is True
    assert verdict.text == condition.text
