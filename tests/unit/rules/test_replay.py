"""Replaying events in virtual time: the clock, the forms of a line, what is printed, and bad input."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import up_to
from whenthen.rules import Rules
from whenthen.rules.replay import replay, skips_of
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import InvalidInput, WhenthenError
from whenthen.triggers.matching.sharding import shard_of

EVERY = {"name": "every", "trigger": {"expect": "order.*"}}
THREE = {"name": "three", "trigger": {"expect": "a", "threshold": 3, "within": "10s", "for_each": "id"}}
ABSENT = {
    "name": "absent",
    "trigger": {"posture": "proactive", "after": ["start"], "expect": "end", "within": "30s", "for_each": "id"},
}


def rules(*specs: dict[str, Any]) -> list[Automation]:
    return [Automation.model_validate(spec) for spec in specs]


def at(second: float) -> str:
    return f"2026-01-01T00:{int(second) // 60:02d}:{int(second) % 60:02d}Z"


def event(name: str, second: float, *, resource: str = "r", **more: Any) -> str:
    return json.dumps({"event": name, "occurred": at(second), "resource": {"id": resource}, **more})


def tick(second: float) -> str:
    return json.dumps({"tick": at(second)})


def fired(automations: list[Automation], *lines: str, **options: Any) -> list[dict[str, Any]]:
    return list(replay(automations, lines, **options))


def test_a_firing_says_what_fired_when_and_for_which_event() -> None:
    found = fired(rules(EVERY), event("order.created", 1, id="e1"))
    assert len(found) == 1
    assert found[0].pop("firing")
    assert found[0] == {
        "automation": "every",
        "at": "2026-01-01T00:00:01.000000Z",
        "key": {},
        "event": "e1",
        "events": ["e1"],
        "state": "Triggered",
    }


def test_all_contributing_events_are_named() -> None:
    found = fired(rules(THREE), *(event("a", second, id=f"e{second}") for second in (0, 4, 9)))
    assert [(f["event"], f["events"], f["key"]) for f in found] == [("e9", ["e0", "e4", "e9"], {"id": "r"})]


def test_a_tick_moves_the_clock_past_deadlines() -> None:
    found = fired(rules(ABSENT), event("start", 0), tick(29), tick(31))
    assert [(f["automation"], f["at"]) for f in found] == [("absent", "2026-01-01T00:00:30.000000Z")]


def test_the_clock_follows_the_times_of_events() -> None:
    assert [f["automation"] for f in fired(rules(ABSENT), event("start", 0), event("other", 40))] == ["absent"]


def test_until_moves_the_clock_after_the_last_line() -> None:
    assert fired(rules(ABSENT), event("start", 0)) == []
    assert len(fired(rules(ABSENT), event("start", 0), until=at(30))) == 1


def test_the_same_input_gives_the_same_output_without_ids() -> None:
    lines = [event("order.created", 1), event("order.created", 1), event("order.paid", 2)]
    first, second = fired(rules(EVERY), *lines), fired(rules(EVERY), *lines)
    assert first == second
    assert len({f["event"] for f in first}) == 3


def test_an_id_that_comes_again_is_the_same_event() -> None:
    lines = [event("order.created", 1, id="e"), event("order.created", 2, id="e"), event("order.created", 200, id="e")]
    assert [f["at"][14:19] for f in fired(rules(EVERY), *lines)] == ["00:01", "03:20"]


def test_a_cloudevent_is_told_by_its_specversion() -> None:
    line = {
        "specversion": "1.0",
        "id": "7",
        "source": "/shop",
        "type": "order.created",
        "subject": "o-1",
        "time": at(3),
    }
    (found,) = fired(rules({**EVERY, "trigger": {"expect": "order.*", "for_each": "id"}}), json.dumps(line))
    assert (found["event"], found["key"]) == ("/shop#7", {"id": "o-1"})


def test_labels_of_prefect_events_are_renamed() -> None:
    trigger = {"expect": "a", "match": {"name": "orders"}, "match_related": {"role": "flow"}, "for_each": "id"}
    line = {
        "id": "e",
        "event": "a",
        "occurred": at(1),
        "resource": {"prefect.resource.id": "r", "prefect.resource.name": "orders", "team": "red"},
        "related": [{"prefect.resource.id": "f", "prefect.resource.role": "flow"}],
    }
    assert [f["key"] for f in fired(rules({"name": "x", "trigger": trigger}), json.dumps(line), format="prefect")] == [
        {"id": "r"}
    ]


def test_a_stored_event_keeps_its_times_and_its_lineage() -> None:
    stored = {"received": at(5), "source": "api", "lineage": {"depth": 8, "automations": ["x"]}}
    assert fired(rules(EVERY), event("order.created", 1, **stored)) == []
    assert [f["at"][14:19] for f in fired(rules(EVERY), event("order.created", 1, received=at(5)))] == ["00:01"]


def test_a_follower_is_decided_after_the_event_that_it_follows() -> None:
    lines = [event("order.b", 2, id="b", follows="a"), event("order.a", 1, id="a")]
    assert [f["event"] for f in fired(rules(EVERY), *lines)] == ["a", "b"]


def test_a_chain_of_a_thousand_followers_in_reverse_order_is_decided_at_once() -> None:
    lines = [event("order.x", 1, id=f"e{n}", follows=f"e{n - 1}") for n in range(1500, 0, -1)]
    assert len(fired(rules(EVERY), *lines, event("order.x", 1, id="e0"))) == 1501


def test_decisions_are_printed_with_their_reasons_before_the_firings() -> None:
    found = fired(rules(THREE), event("a", 0), event("b", 1), decisions=True)
    assert [(d["automation"], d["decision"]) for d in found] == [("three", "below_threshold")]


def test_blank_lines_count_but_say_nothing() -> None:
    with pytest.raises(InvalidInput, match=r"^line 3: not JSON"):
        fired(rules(EVERY), "", event("a", 1), "{")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"event": "a", "resource": {"id": "r"}}', "occurred: missing, and no line before"),
        ('{"tick": "yesterday"}', "tick: 'yesterday' is not a time"),
        ('{"tick": 5}', "tick: an RFC 3339 time"),
        ('{"tick": "9999-01-01T00:00:00Z"}', "between the years"),
        ('{"event": "a", "occurred": "2026-01-01T00:00:00", "resource": {"id": "r"}}', "has no time zone"),
        ('{"evnt": "a", "occurred": "2026-01-01T00:00:00Z"}', 'did you mean "event"'),
        ("[1]", "missing, and no line before|an event is a JSON object"),
        ('{"specversion": "1.0", "type": "a", "id": "1", "time": "2026-01-01T00:00:00Z"}', "source: missing"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(line: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"^line 1: .*(?:{message})"):
        fired(rules(EVERY), line)


def test_a_jump_of_more_than_ten_years_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^line 2: .*more than 10 years"):
        fired(rules(EVERY), tick(0), '{"tick": "2046-01-01T00:00:00Z"}')


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one of native, cloudevents, prefect"):
        fired(rules(EVERY), tick(0), format="avro")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TIMES = st.sampled_from([at(0), at(5), at(59), "2025-12-31T23:59:59.5+02:00", "2026-13-01T00:00:00Z", "x"])
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "event": st.sampled_from(["a", "start", "end", "order.x"]) | JSON,
        "occurred": TIMES | JSON,
        "resource": st.just({"id": "r"}) | st.just({"prefect.resource.id": "r"}) | JSON,
        "related": JSON,
        "payload": JSON,
        "id": st.sampled_from(["1", "2"]) | JSON,
        "follows": st.sampled_from(["1", "2"]) | JSON,
        "received": TIMES | JSON,
        "lineage": JSON | st.fixed_dictionaries({"depth": st.integers(), "automations": JSON}),
        "tick": TIMES | JSON,
        "specversion": st.just("1.0") | JSON,
        "source": st.text(max_size=3) | JSON,
        "type": st.text(max_size=3) | JSON,
    },
)
LINES = st.lists(
    FIELDS.map(json.dumps) | JSON.map(json.dumps) | st.text(max_size=20) | st.binary(max_size=20), max_size=6
)
BUCKETS = {**ABSENT, "name": "buckets", "trigger": {**ABSENT["trigger"], "window": "tumbling", "threshold": 2}}  # type: ignore[dict-item]
PAIR = {
    "name": "pair",
    "trigger": {"type": "sequence", "within": "5s", "triggers": [THREE["trigger"], EVERY["trigger"]]},
}
COMPILED = rules(EVERY, THREE, ABSENT, BUCKETS, PAIR)


@up_to(300)
@given(lines=LINES, form=st.sampled_from(["native", "cloudevents", "prefect"]), decisions=st.booleans())
def test_no_line_crashes_a_replay(lines: list[str | bytes], form: str, decisions: bool) -> None:
    found = []
    with contextlib.suppress(WhenthenError):
        found += replay(COMPILED, lines, format=form, decisions=decisions, until=at(600))
    json.dumps(found)


def skip(event_id: str | None, *, shard: int = 0, shards: int = 1) -> str:
    return json.dumps({"skip": {"event": event_id, "shard": shard, "shards": shards, "position": 7, "reason": "hung"}})


def test_what_a_server_passed_over_is_passed_over_though_the_line_that_says_so_comes_later() -> None:
    lines = [
        event("a", 0, id="e0"),
        event("a", 1, id="bad"),
        event("a", 2, id="e2"),
        event("a", 3, id="e3"),
        skip("bad"),
    ]
    without = fired(rules(THREE), *lines)
    assert [one["event"] for one in without] == ["e2"]
    passed = fired(rules(THREE), *lines, skips=skips_of(lines))
    assert [one["events"] for one in passed] == [["e0", "e2", "e3"]]


def test_a_skip_is_of_one_shard_and_automations_of_the_others_see_the_event() -> None:
    names = [f"every-{number}" for number in range(8)]
    automations = rules(*({"name": name, "trigger": {"expect": "order.*"}} for name in names))
    lines = [event("order.created", 1, id="bad"), skip("bad", shard=2, shards=4), event("order.created", 2, id="good")]
    found = fired(automations, *lines, skips=skips_of(lines))
    saw = {one["automation"] for one in found if one["event"] == "bad"}
    assert saw == {name for name in names if shard_of(name, 4) != 2}
    assert saw not in (set(), set(names))
    assert {one["automation"] for one in found if one["event"] == "good"} == set(names)


def test_a_skip_of_a_tick_changes_nothing() -> None:
    lines = [event("start", 0, id="s"), tick(40), skip(None)]
    assert skips_of(lines) == []
    assert len(fired(rules(ABSENT), *lines, skips=skips_of(lines))) == 1


@pytest.mark.parametrize(
    "line",
    [
        '{"skip": {"event": "a"}}',
        '{"skip": {"event": "a", "shard": 1, "shards": 1}}',
        '{"skip": {"event": "a", "shard": 0, "shards": 100000000}}',
        '{"skip": {"event": "a", "shard": "0", "shards": 1}}',
    ],
)
def test_a_skip_that_names_no_shard_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(InvalidInput, match="line 2: a skip has a shard from 0"):
        skips_of([event("a", 0), line])


def test_skips_of_different_servers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="different numbers of shards"):
        skips_of([skip("a", shards=2), skip("b", shards=3)])


def test_an_event_that_speaks_of_a_skip_is_an_event() -> None:
    lines = [event("a", 0, id="e0", payload={"skip": {"event": "x"}})]
    assert skips_of(lines) == []


def marker(number: Any, second: float | None = None) -> str:
    return json.dumps({"rules": number, **({} if second is None else {"at": at(second)})})


def test_a_marker_puts_other_rules_in_force_and_decides_what_was_due_before() -> None:
    revisions = {2: Rules(automations=tuple(rules(THREE))), 3: Rules(automations=tuple(rules(EVERY)))}
    lines = [
        event("start", 0),
        event("a", 1, id="a1"),
        marker(2, 40),
        event("a", 41),
        event("a", 42),
        event("a", 43, id="a4"),
        marker(3),
        marker(2),
        event("order.placed", 44, id="o1"),
    ]
    found = fired(rules(ABSENT), *lines, revisions=revisions)
    assert [(each["automation"], each["event"]) for each in found] == [
        ("absent", None),
        ("three", "a4"),
        ("every", "o1"),
    ]


@pytest.mark.parametrize(
    ("number", "said"), [(7, "add --revision-rules 7=PATH"), ("2", "the number of a revision"), (0, "from 1")]
)
def test_a_marker_without_rules_is_refused_with_its_line(number: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"line 2: rules: .*{said}"):
        fired(rules(EVERY), event("a", 0), marker(number, 1))


def test_a_marker_as_the_server_stores_it_is_read_too() -> None:
    class Given:
        automations = (Automation.model_validate(EVERY),)
        revision = "abc"

    event = json.dumps({"id": "e", "event": "order.made", "occurred": "2026-01-01T00:00:00Z", "resource": {"id": "r"}})
    own, other = json.dumps({"revision": 1, "digest": "abc"}), json.dumps({"revision": 2, "digest": "other"})
    assert len(list(replay(Given(), [own, event]))) == 1
    with pytest.raises(InvalidInput, match="line 2: rules: the rules of revision 2 are not given"):
        list(replay(Given(), [own, other, event]))
    assert list(replay(Given(), [own, other, event], revisions={2: _Nothing()})) == []


class _Nothing:
    automations = ()


def pause(name: str, second: float, **fields: Any) -> str:
    return json.dumps({"pause": {"automation": name, **fields}, "at": at(second)})


def test_a_paused_automation_does_not_fire_until_it_is_resumed() -> None:
    lines = [event("order.a", 1, id="1"), pause("every", 2), event("order.a", 2, id="2")]
    lines += [pause("every", 3, paused=False), event("order.a", 3, id="3")]
    assert [each["event"] for each in fired(rules(EVERY), *lines)] == ["1", "3"]
    until = [
        event("order.a", 1, id="1"),
        pause("every", 2, until=at(5)),
        event("order.a", 4, id="2"),
        event("order.a", 5, id="3"),
    ]
    assert [each["event"] for each in fired(rules(EVERY), *until)] == ["1", "3"]


def test_an_older_change_of_a_pause_says_nothing() -> None:
    lines = [pause("every", 1, version=5), pause("every", 2, paused=False, version=4), event("order.a", 3)]
    assert fired(rules(EVERY), *lines) == []


@pytest.mark.parametrize(
    "fields",
    [
        5,
        {"automation": 3},
        {"automation": "a", "until": "soon"},
        {"automation": "a", "paused": "yes"},
        {"automation": "a", "version": "x"},
    ],
)
def test_a_pause_that_is_none_is_named(fields: Any) -> None:
    with pytest.raises(InvalidInput, match="line 1: pause"):
        fired(rules(EVERY), json.dumps({"pause": fields, "at": at(1)}))
