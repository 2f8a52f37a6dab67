"""Two sets of rules over one stream: firings gained, lost and changed, and the clause that decided."""

from __future__ import annotations

import json
from typing import Any

import pytest

from whenthen.rules.replay import RuleSource
from whenthen.rules.replay_diff import ReplayDiff
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import InvalidInput


class Set:
    def __init__(self, *specs: dict[str, Any]) -> None:
        self.automations = [Automation.model_validate(spec) for spec in specs]


def at(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}Z"


def event(name: str, second: int, *, resource: str = "r", **more: Any) -> str:
    return json.dumps({"id": f"e{second}", "event": name, "occurred": at(second), "resource": {"id": resource}, **more})


def changes(before: RuleSource, after: RuleSource, *lines: str, **options: Any) -> tuple[list[Any], dict[str, int]]:
    diff = ReplayDiff(before, after, **options)
    return [change.as_json() for change in diff.changes(lines)], diff.totals.as_json()


ALL = {"name": "big", "trigger": {"expect": "order.made"}}
BIG = {"name": "big", "trigger": {"expect": "order.made", "when": "event.payload.total > 100"}}
EU = {"name": "big", "trigger": {"expect": "order.made", "match": {"id": "eu-*"}}}


def order(second: int, total: int, **more: Any) -> str:
    return event("order.made", second, payload={"total": total}, **more)


def test_the_same_rules_differ_in_nothing() -> None:
    found, totals = changes(Set(ALL), Set(ALL), order(1, 5), order(2, 500))
    assert found == []
    assert totals == {"lines": 2, "events": 2, "same": 2, "gained": 0, "lost": 0, "changed": 0}


def test_a_lost_firing_names_the_condition_that_is_false_now() -> None:
    (found,), totals = changes(Set(ALL), Set(BIG), order(1, 5), order(2, 500))
    assert (found["difference"], found["event"], found["after"]) == ("lost", "e1", None)
    assert found["reason"] == "condition_false"
    assert "event.payload.total > 100" in found["clause"]
    assert found["before"]["firing"]
    assert (totals["lost"], totals["same"]) == (1, 1)


def test_a_gained_firing_names_the_label_that_the_rules_before_wanted() -> None:
    (found,), _ = changes(Set(EU), Set(ALL), order(1, 5, resource="us-1"), order(2, 5, resource="eu-1"))
    assert (found["difference"], found["event"], found["before"]) == ("gained", "e1", None)
    assert "match.id" in found["clause"]
    assert "us-1" in found["clause"]


def test_an_automation_that_is_new_or_gone_says_so() -> None:
    gained, _ = changes(Set(), Set(ALL), order(1, 5))
    lost, _ = changes(Set(ALL), Set(), order(1, 5))
    assert [each["reason"] for each in (*gained, *lost)] == ["absent", "absent"]


def windowed(threshold: int) -> dict[str, Any]:
    trigger = {"expect": "a", "threshold": threshold, "within": "1h", "for_each": "id", "cooldown": "0s"}
    return {"name": "counted", "trigger": trigger}


def test_another_threshold_loses_firings_and_gains_others_with_how_many_were_missing() -> None:
    lines = [event("a", second) for second in range(1, 7)]
    found, totals = changes(Set(windowed(2)), Set(windowed(3)), *lines)
    kinds = [(each["difference"], each["event"], each.get("reason")) for each in found]
    assert ("lost", "e2", "below_threshold") in kinds
    assert ("gained", "e3", "spent") in kinds  # its predecessors were used by the firing that is lost
    assert all(each["clause"] for each in found if each["difference"] != "changed")
    # both fire at the sixth event, of other events
    assert [(each["event"], each["fields"]) for each in found if each["difference"] == "changed"] == [
        ("e6", ["events"])
    ]
    assert totals["changed"] == 1


def test_firings_by_time_are_compared_too() -> None:
    def absent(within: str) -> dict[str, Any]:
        trigger = {"posture": "proactive", "after": ["start"], "expect": "end", "within": within, "for_each": "id"}
        return {"name": "absent", "trigger": trigger}

    found, _ = changes(Set(absent("30s")), Set(absent("50s")), event("start", 0), event("end", 40), until=at(59))
    assert [(each["difference"], each["event"]) for each in found] == [("lost", None)]
    assert found[0]["clause"]


def test_markers_put_no_rules_in_force() -> None:
    marker = json.dumps({"rules": 7, "at": at(2)})
    stored = json.dumps({"revision": 8, "digest": "d"})
    found, _ = changes(Set(ALL), Set(ALL), order(1, 5), marker, stored, order(3, 5))
    assert found == []


def test_a_bad_line_is_named() -> None:
    with pytest.raises(InvalidInput, match="line 2"):
        changes(Set(ALL), Set(ALL), order(1, 5), "{")


@pytest.mark.takes(5)
def test_nothing_is_kept_of_lines_that_are_over() -> None:
    """As many events as one likes: what is held are ids of the last minutes and windows."""
    diff = ReplayDiff(Set(ALL), Set(BIG))

    def lines() -> Any:
        for number in range(20_000):
            moment = f"2026-01-{1 + number // 1440:02d}T{number // 60 % 24:02d}:{number % 60:02d}:00Z"
            body = {"id": str(number), "event": "order.made", "occurred": moment, "resource": {"id": "r"}}
            yield json.dumps({**body, "payload": {"total": 5}})

    assert sum(1 for _ in diff.changes(lines())) == 20_000
    assert len(diff._new._seen) < 10
