"""The index finds every filter that admits an event, and evaluation through it equals asking every filter."""

from __future__ import annotations

import fnmatch
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trigger_samples import START_US, Stimulus, event, rule, rule_sets, run, streams

from tests.examples import up_to
from whenthen.conditions import Condition, compile_condition
from whenthen.schemas.automations import Automation
from whenthen.schemas.events import Event
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.matching.computed_labels import compute_labels
from whenthen.triggers.matching.filters import WHEN_VARIABLES, Filter, compile_filter
from whenthen.triggers.matching.globs import compile_glob
from whenthen.triggers.matching.index import RuleIndex
from whenthen.triggers.rule_set import RuleSet

thorough = up_to(300)

texts = st.text("ab.*?[]!-é", max_size=6)
globs = st.one_of(
    texts, st.sampled_from(["*", "a*", "*b", "a.*", "?.a", "!a*", "!", "", "a?b", "[ab]*", "[!a]*", "**"])
)
glob_lists = st.lists(globs, min_size=1, max_size=3)
matches = st.dictionaries(st.sampled_from(["k", "l", "id"]), glob_lists, max_size=2)
constants = st.sampled_from(["1", "1.0", "true", "false", '"a"', '"a.b"', "2", "9007199254740993", '"1"'])
paths = st.sampled_from(
    [
        "event.payload.n",
        "event.payload.deep.n",
        'event.payload["a.b"]',
        "event.event",
        "event.resource.k",
        'event.resource["l"]',
        "event.id",
        "event.payload",
    ]
)
equalities = st.builds("{} == {}".format, paths, constants)
turned = st.builds("{1} == {0}".format, paths, constants)
memberships = st.builds("{} in [{}, {}]".format, paths, constants, constants)
flags = st.sampled_from(["event.payload.n", "!event.payload.n", "event.payload.deep.n"])
timed = st.sampled_from(
    [
        "event.occurred <= now",
        "event.payload.n == now",
        "now == event.payload.n",
        "event.payload.n in [now, 1]",
        "now in [1, 2]",
        'now > timestamp("2026-02-01T00:00:00Z")',
    ]
)
simple = st.one_of(equalities, turned, memberships, flags, timed)
conditions = st.one_of(
    simple,
    st.builds("{} && {}".format, simple, simple),
    st.builds("{} || {}".format, simple, simple),
    st.builds("!({})".format, simple),
    st.builds("{} && !({})".format, simple, simple),
)


@cache  # the same few texts come again and again
def condition_of(text: str) -> Condition:
    return compile_condition(text, variables=WHEN_VARIABLES)


lets = st.dictionaries(
    st.sampled_from(["k", "l", "m"]),
    st.sampled_from(['"a"', "event.payload.n", 'event.resource.?l.orValue("a.b")', "event.resource.id", "event.event"]),
    max_size=2,
).filter(lambda drawn: "event.resource.?l" not in str(drawn.get("k")) or "l" not in drawn)


@st.composite
def drawn_filters(draw: st.DrawFn) -> Filter:
    text = draw(st.none() | conditions)
    return compile_filter(
        names=draw(glob_lists),
        match=draw(matches),
        related=draw(st.lists(matches, max_size=2)),
        condition=None if text is None else condition_of(text),
        computing=compute_labels({name: condition_of(each) for name, each in draw(lets).items()}),
    )


values = st.sampled_from([1, 1.0, 2, True, False, "a", "a.b", "1", None, 9007199254740993, 9007199254740992.0, [1], {}])
labels = st.dictionaries(st.sampled_from(["k", "l", "role"]), st.text("ab.é", max_size=4), max_size=3)
resources = labels.map(lambda drawn: {"id": "a.b", **drawn})
payloads = st.one_of(
    st.fixed_dictionaries(
        {}, optional={"n": values, "a.b": values, "deep": st.fixed_dictionaries({}, optional={"n": values}) | values}
    ),
    values,
)


@st.composite
def drawn_events(draw: st.DrawFn) -> Event:
    return event(
        draw(st.text("ab.", min_size=1, max_size=5)),
        labels=draw(labels),
        related=draw(st.lists(resources, max_size=2)),
        payload=draw(payloads),
        id=draw(st.sampled_from(["a", "e1"])),
    )


@thorough
@given(st.lists(drawn_filters(), max_size=12), st.lists(drawn_events(), min_size=1, max_size=6))
def test_the_index_offers_every_filter_that_admits_an_event_once_and_in_order(
    filters: list[Filter], events: list[Event]
) -> None:
    index = RuleIndex(filters)
    for each in events:
        offered = index.candidates(each)
        admitted = [number for number, one in enumerate(filters) if one.admits(each, START_US)]
        assert set(admitted) <= set(offered)
        assert offered == sorted(set(offered))


@pytest.mark.parametrize("when", ["event.payload.n == 9007199254740993", "event.payload.n in [1, 9007199254740993]"])
@pytest.mark.parametrize("number", [9007199254740993, 9007199254740992.0])
def test_a_number_that_no_double_holds_is_found_by_the_double_that_equals_it(when: str, number: float) -> None:
    rules = RuleSet.compile([rule({"expect": "?", "when": when})])
    one = event("t", payload={"n": number})
    assert rules.entries[0].filter.admits(one, START_US)
    assert rules.index.candidates(one) == [0]


@thorough
@given(drawn_filters(), drawn_events())
def test_a_filter_refuses_with_a_reason_exactly_when_it_does_not_admit(one: Filter, each: Event) -> None:
    refusal = one.refusal(each, START_US)
    if one.admits(each, START_US):
        assert refusal is None
    elif one.named(each.name):
        assert refusal is not None
        assert refusal.detail
    else:
        assert refusal is None


class Naive:
    """Offers every filter for every event."""

    def __init__(self, count: int) -> None:
        self.all = list(range(count))

    def candidates(self, event: Event) -> list[int]:
        return self.all


@up_to(150)
@given(rule_sets, streams())
def test_evaluation_through_the_index_equals_asking_every_filter(
    rules: list[Automation], stimuli: list[Stimulus]
) -> None:
    naive = RuleSet.compile(rules)
    naive.index = Naive(len(naive.entries))  # type: ignore[assignment]
    seldom = {"label_mismatch", "condition_false", "condition_error"}
    through_index = run(Evaluator(RuleSet.compile(rules)), stimuli)
    through_all = run(Evaluator(naive), stimuli)
    for (firings, decisions), (expected, explained) in zip(through_index, through_all, strict=True):
        assert firings == expected
        assert [each for each in decisions if each.reason not in seldom] == [
            each for each in explained if each.reason not in seldom
        ]
        assert all(each in explained for each in decisions)


@pytest.mark.parametrize(
    "trigger",
    [
        {"expect": "t", "match": {"bucket": "own-{}"}},
        {"expect": "t", "match": {"bucket": "own-{}-*"}},
        {"expect": "t", "match": {"bucket": "*-{}-"}},
        {"expect": "t", "match_related": {"id": "own-{}"}},
        {"expect": "t", "when": 'event.payload.kind == "own-{}" && event.payload.size > 0'},
        {"expect": "t", "when": 'event.payload.kind in ["own-{}", "also-{}"]'},
        {"expect": "own-{}"},
    ],
)
def test_an_event_looks_only_at_the_rules_that_share_its_own_value(trigger: dict[str, Any]) -> None:
    def made(value: Any, number: int) -> Any:
        if isinstance(value, dict):
            return {key: made(below, number) for key, below in value.items()}
        return value.replace("{}", str(number))

    rules = RuleSet.compile([rule(made(trigger, number), f"r{number}") for number in range(200)])
    own = event(
        "own-77" if trigger["expect"] != "t" else "t",
        labels={"bucket": "own-77-" if "-*" in str(trigger) or "*-" in str(trigger) else "own-77"},
        related=[{"id": "own-77"}],
        payload={"kind": "own-77", "size": 1},
    )
    (found,) = rules.index.candidates(own)
    assert rules.entries[found].leaf.automation.name == "r77"
    assert rules.entries[found].filter.admits(own, START_US)


@up_to(2000)  # cheap ones, of which few match
@given(st.text("ab*?[]!-\n^\\", max_size=10), st.text("ab[]!-\n^\\", max_size=10))
def test_globs_match_as_fnmatch_does(glob: str, text: str) -> None:
    negated = glob.startswith("!")
    expected = fnmatch.fnmatchcase(text, glob[negated:])
    compiled = compile_glob(glob)
    assert compiled.matches(text) == (expected != negated)
    if compiled.matches(text) and compiled.kind in ("exact", "prefix", "other"):
        assert text.startswith(compiled.literal)


def test_a_glob_of_ten_thousand_stars_is_matched_at_once() -> None:
    assert compile_glob("*" * 10_000).matches("anything")
    assert not compile_glob("*a" * 5_000).matches("a" * 4_999)
    assert compile_glob("*a" * 5_000).matches("a" * 5_000)
    assert not compile_glob("a*" * 5_000 + "b").matches("a" * 10_000)
