"""JSONPath: plain paths, the rest, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.schemas.errors import InvalidTemplate, RenderError, WhenthenError
from whenthen.templates import compile_path, compile_value
from whenthen.templates.budget import MAX_VISITS
from whenthen.templates.path_parser import parse_path
from whenthen.templates.path_query import MAX_MATCHES, Search
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
        ("$.books[?(10 > @.price)].title", ["A"]),
        ("$.books[?('B' != @.title)].title", ["A", "C"]),
        ("$.books[?@.größe]", []),
        ("$..größe", [7]),
        ("$[?@ == 7]", [7]),
        ("$..b..['c d']", [1, 2]),
        ("$.books[?!(@.price)].title", ["C"]),
        ("$.books[?match(@.title, '[AB]') && @.price == $.books[1].price].title", ["B"]),
        ("$.books[?length(@.title) == count(@.*)].title", ["C"]),
        ("$..x-trace-id", ["t"]),
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
        ("$.a[", "column 4: '$.a[': the bracket is not closed"),
        ("$.a[0", "not closed"),
        ("$[]", "column 3"),
        ("$[a]", "needs quotes"),
        ("$['a\\q']", "unknown escape"),
        ("$['\\ud800']", "surrogate"),
        ("$[?(@.a =~ '(a+)+$')]", "regular expressions"),
        ("$[?(@.a.`len` == 1)]", "column 8"),
        ("$[?(@.a | @.b)]", "column 9"),
        ("$[?(@sku == 'b')]", "column 6"),
        ("$[?(sku == 'b')]", "a filter compares @.name"),
        ("$[?(@.a == 1)", "not closed"),
        ("$[?@.a == 'b]", "the quote is not closed"),
        ("$[?@.* == 1]", "may match more than once"),
        ("$[?lenght(@.a) == 1]", "did you mean length()?"),
        ("$[?match(@.a)]", "match() takes 2 arguments, found 1"),
        ("$[01]", "no leading zeros"),
        ("$['a\nb']", "written \\u000a"),
        ("$.a ", "does not end with blanks"),
        ("$[?" + "(" * 17 + "@.a" + ")" * 17 + "]", "nested more than 16 deep"),
        ("$[?" + "!(" * 17 + "@.a" + ")" * 17 + "]", "nested more than 16 deep"),
        ("$[?" + "@[?" * 17 + "@.a" + "]" * 17 + "]", "nested more than 16 deep"),
        ("$[?" + "count(" * 17, "nested more than 16 deep"),
        ("$[?" + "length(value(" * 300, "nested more than 16 deep"),
        ("$[?" + " && ".join(["@.a"] * 300) + "]", "more than 256 selectors and comparisons"),
        ("$[" + ",".join(["0"] * 300) + "]", "more than 256 selectors and comparisons"),
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


@given(
    st.lists(st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.integers(0, 3)), max_size=6)
)
def test_any_key_can_be_reached_as_its_step_is_spelled(steps: list[str | int]) -> None:
    document: object = "here"
    for step in reversed(steps):
        document = {step: document} if isinstance(step, str) else [0] * step + [document]
    assert compile_path("$" + "".join(map(spell_step, steps))).one(document) == "here"


MANY = 300_000


@pytest.mark.takes(0.3)
@pytest.mark.parametrize(
    ("path", "made"),
    [
        ("$..id", lambda: {"body": list(range(1_900_000))}),
        ("$..*", lambda: {"body": list(range(1_900_000))}),
        ("$..*..*", lambda: {"body": [[0] * 1_000 for _ in range(1_000)]}),
        ("$[?@.a == 1 || @.b == 1 || @.c == 1]", lambda: [{"a": 0, "b": 0, "c": 0}] * MANY),
        ("$[?@ == $[0]]", lambda: [list(range(1_000))] * MANY),
        ("$[?@.a == @.b]", lambda: [{"a": "x" * 20_000, "b": "x" * 20_000}] * 5_000),
        ("$[?@.a <= @.b]", lambda: [{"a": "x" * 20_000, "b": "x" * 20_000}] * 5_000),
        ("$[?$..x]", lambda: [0] * 10_000),
        ("$[?@[?@[?@ > $[0]]]]", lambda: [[[1] * 100] * 100] * 1_000),
        ("$[?count($[*]) == 0]", lambda: [0] * 10_000),
        ("$[?match(@.a, @.p)]", lambda: [{"a": "x", "p": f"p{number}"} for number in range(20_000)]),
        ("$[?match('x', @)]", lambda: [rf"\\pL{{100}}{number}" for number in range(20_000)]),
        ("$[?search(@.a, 'x+y')]", lambda: [{"a": "x" * 20_000}] * 5_000),
        ("$[?search(@.a, '(a|b)*a(a|b){900}c')]", lambda: [{"a": "ab" * 10_000}] * 5_000),
        ("$" + "['a','a']" * 40, lambda: {"a": {}}),
        ("$" + "[0,0,0,0,0,0,0,0]" * 30, lambda: [[[[[[[[[[1]]]]]]]]]]),
    ],
)
def test_a_search_is_bounded_by_the_values_that_it_visits(path: str, made: Callable[[], object]) -> None:
    document = made()  # not by every process that collects the tests
    if path.startswith("$['a'"):
        for _ in range(40):
            document = {"a": document}
    with pytest.raises(RenderError, match="the search visits more than 1000000 values") as caught:
        compile_path(path).find(document)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_paths_of_one_value_share_a_budget() -> None:
    value = compile_value({str(number): "$..x" for number in range(20)})
    with pytest.raises(RenderError, match="the search visits more than 1000000 values"):
        value.render({"items": list(range(100_000))})
    assert compile_value(["$..x"] * 9).render({"items": list(range(100_000))}) == [[]] * 9


def test_matches_are_bounded() -> None:
    assert len(compile_path("$[*]").find([0] * MAX_MATCHES)) == MAX_MATCHES
    with pytest.raises(RenderError, match="100001 matches; at most 100000 are allowed"):
        compile_path("$[*]").find([0] * (MAX_MATCHES + 1))


@pytest.mark.parametrize(
    ("path", "document", "visits"),
    [
        ("$[*]", [0] * 1_000, 1_001),
        ("$..a", {"a": [0] * 1_000}, 1 + 1 + 1 + 1_000 + 2 + 1),
        ("$[?@.a == 1]", [{"a": 1}] * 1_000, 1 + 1_000 + 2 * 1_000 + 1_000),
        ("$[?@ == 'x']", ["y" * 640] * 1_000, 1 + 1_000 + 1_000),
        ("$[?@ == $[0]]", ["y" * 640] * 1_000, 1 + 1_000 + 1_000 * (2 + 10) + 1_000),
    ],
)
def test_visits_of_a_search(path: str, document: object, visits: int) -> None:
    search = Search(document)
    parse_path(path).find(document, search)
    assert MAX_VISITS - search.left == visits


def test_a_path_that_reads_the_root_in_its_filter_may_read_everything() -> None:
    assert compile_path("$.event[?@ == $.key]").reads_root
    assert not compile_path("$.event[?@ == 1]").reads_root


@given(st.text(alphabet="$.[]'\"*?@()ab01:,-\\`~=<&| ", max_size=30))
def test_no_text_crashes_the_compiler_or_the_search(text: str) -> None:
    try:
        json.dumps(compile_path("$" + text).find(DOCUMENT))
    except WhenthenError:
        pass
