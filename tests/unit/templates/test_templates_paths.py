"""JSONPath: plain paths, the rest, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whenthen.schemas.errors import InvalidTemplate, RenderError, WhenthenError
from whenthen.templates import compile_path
from whenthen.templates.paths import spell_step

DOCUMENT = {
    "a": {"b": [{"c d": 1}, {"c d": 2}]},
    "x.y": "dotted",
    "x-trace-id": "t",
    "it's": 5,
    'say "hi"': 6,
    "größe": 7,
    "none": None,
    "books": [{"title": "A", "price": 8}, {"title": "B", "price": 12}, {"title": "C"}],
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", DOCUMENT),
        ("$.a.b[0]['c d']", 1),
        ('$.a.b[-1]["c d"]', 2),
        ("$['x.y']", "dotted"),
        ("$.x-trace-id", "t"),
        ("$['it\\'s']", 5),
        ('$["it\'s"]', 5),
        ("$['say \"hi\"']", 6),
        ("$.größe", 7),
        ("$['gr\\u00f6\\u00dfe']", 7),
        ("$.none", None),
        ("$[ 'a' ].b[ 1 ]['c d']", 2),
    ],
)
def test_plain_path_gives_the_value_with_its_type(path: str, value: object) -> None:
    compiled = compile_path(path)
    assert compiled.one(DOCUMENT) == value
    assert compiled.find(DOCUMENT) == [value]
    assert compiled.text == path


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("$.a.b[*]['c d']", [1, 2]),
        ("$.books[*].price", [8, 12]),
        ("$.books[0:2].title", ["A", "B"]),
        ("$..price", [8, 12]),
        ("$.books[?(@.price < 10)].title", ["A"]),
        ("$.books[?(@.price > 1 && @.title == 'B')].price", [12]),
        ("$['x.y','none']", ["dotted", None]),
        ("$.nothing[*].here", []),
        ("$.a.*[0]['c d']", [1]),
    ],
)
def test_path_that_may_match_often_gives_all_matches(path: str, values: list[object]) -> None:
    compiled = compile_path(path)
    assert compiled.one(DOCUMENT) == values
    assert compiled.find(DOCUMENT) == values


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("$.a.x.y", "$.a.x.y: no 'x' in $.a; there are b"),
        ("$.a.b[5].c", "$.a.b[5].c: no [5] in $.a.b, a list of 2"),
        ("$.none.x", "$.none is null, it has no 'x'"),
        ("$.größe.x", "is a number"),
        ("$['x.y'][0]", "$['x.y'] is text"),
        ("$.a.b.c", "take an item with [0] or all with [*]"),
        ("$.a[0]", "no '0' in $.a"),
    ],
)
def test_absent_value_names_the_first_missing_step_and_what_is_there(path: str, message: str) -> None:
    compiled = compile_path(path)
    with pytest.raises(RenderError) as caught:
        compiled.one(DOCUMENT)
    assert message in str(caught.value)
    assert compiled.find(DOCUMENT) == []


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("a.b", "column 1"),
        ("", "column 1"),
        ("$a", "column 2"),
        ("$.", "column 2"),
        ("$.a..", "column 4"),
        ("$.a b", "column 4"),
        ("$.a.0", "['0']"),
        ("$.a[", "column 5"),
        ("$.a[0", "not closed"),
        ("$[]", "column 3"),
        ("$[a]", "needs quotes"),
        ("$['a\\q']", "unknown escape"),
        ("$['\\ud800']", "surrogate"),
        ("$..a..b", "descends twice"),
        ("$..*..*..*", "descends twice"),
        ("$['a','a']['a','a']['a','a']", "unions"),
        ("$[?(@.a =~ '(a+)+$')]", "regular expressions"),
        ("$[?(@.a.`len` == 1)]", "functions"),
        ("$[?(@.a & @.b)]", "write &&"),
        ("$[?(@.a)]]", "column 10"),
        ("$.a" * 3000, "characters"),
        ("$" + ".a" * 100, "100 steps"),
    ],
)
def test_what_is_no_path_is_refused_with_its_column(path: str, part: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        compile_path(path)
    assert part in str(caught.value)


def test_descent_into_a_deep_document_ends_with_an_answer_or_a_render_error() -> None:
    deep: object = {"b": 1}
    for _ in range(10_000):
        deep = {"a": deep}
    try:
        found = compile_path("$..b").find(deep)
    except RenderError:
        found = [1]
    assert found == [1]


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.integers(0, 3)), max_size=6)
)
def test_any_key_can_be_reached_as_its_step_is_spelled(steps: list[str | int]) -> None:
    document: object = "here"
    for step in reversed(steps):
        document = {step: document} if isinstance(step, str) else [0] * step + [document]
    assert compile_path("$" + "".join(map(spell_step, steps))).one(document) == "here"


@settings(deadline=None)
@given(st.text(alphabet="$.[]'\"*?@()ab01:,-\\`~=<&| ", max_size=30))
def test_no_text_crashes_the_compiler_or_the_search(text: str) -> None:
    try:
        json.dumps(compile_path("$" + text).find(DOCUMENT))
    except WhenthenError:
        pass
