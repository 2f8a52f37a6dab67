"""A firing names the newest 1,000 of its events and says how many there were. Meaning: docs/rules.md, "Sizes"."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from trigger_samples import START_US, evaluator, event, us

from whenthen.actions.attempts import describe_firing
from whenthen.engine.bus.records import decode_firing, encode_firing
from whenthen.schemas.firings import Firing, Ref
from whenthen.triggers.windows import collecting
from whenthen.triggers.windows.collecting import CollectRule
from whenthen.triggers.windows.transitions import State


def fire(trigger: dict[str, Any], events: int) -> Firing:
    engine = evaluator(trigger, record=False)
    firings = [
        firing
        for number in range(events)
        for firing in engine.process(event("a", number / 1000, id=f"e{number}"), us(number / 1000)).firings
    ]
    return firings[-1]


@pytest.mark.parametrize(
    "trigger",
    [
        {"expect": "a", "threshold": 1500, "within": "1h"},
        {"expect": "a", "collect": {"events": 1500, "wait": "1h"}},
        {"type": "metric", "expect": "a", "aggregate": "count", "operator": ">=", "threshold": 1500, "within": "1h"},
    ],
    ids=["sliding", "collecting", "metric"],
)
def test_a_firing_of_1500_events_names_the_newest_1000_and_says_1500(trigger: dict[str, Any]) -> None:
    firing = fire(trigger, 1500)
    assert firing.total == 1500
    assert [firing.refs[0].id, firing.refs[-1].id, len(firing.refs)] == ["e500", "e1499", 1000]
    assert describe_firing(firing)["total"] == 1500


def test_the_total_is_stored_with_the_firing_and_a_firing_of_an_earlier_version_has_as_many_as_it_names() -> None:
    firing = fire({"expect": "a", "threshold": 3, "within": "1h"}, 3)
    firing.total = 7
    stored = orjson.loads(orjson.dumps(encode_firing(firing, None)))
    assert decode_firing(stored)[0].total == 7
    del stored["total"]
    assert decode_firing(stored)[0].total == 3


def test_a_burst_of_an_earlier_version_is_carried_forward() -> None:
    burst = CollectRule(events=2502, wait_us=10**9, quiet_us=None)
    old: State = [START_US, START_US, 3]
    for number in range(2500):
        old += [START_US + number, number, f"e{number}"]
    first = collecting.on_event(burst, old, Ref("new", 1, START_US + 9999), now_us=START_US + 1)
    assert first.detail == "2501 of 2502 gathered"
    last = collecting.on_event(burst, first.state, Ref("last", 2, START_US + 9999), now_us=START_US + 2)
    assert last.refs is not None
    assert (last.total, len(last.refs), last.depth) == (2502, 1000, 3)
    ended = collecting.on_time(burst, old[: 3 + 3 * 2], now_us=START_US + 10**9)
    assert ended.total == 2


def test_a_compound_of_any_hands_on_the_total_of_its_part() -> None:
    part = {"expect": "a", "threshold": 1200, "within": "1h"}
    firing = fire({"type": "compound", "require": "any", "triggers": [part, {"expect": "b"}]}, 1200)
    assert (firing.total, len(firing.refs)) == (1200, 1000)
