"""What a trigger may not be: each refusal is a validation error that names the field and the remedy, never a crash."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.examples import up_to
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import InvalidInput
from whenthen.triggers.rule_set import RuleSet
from whenthen.triggers.trees.trigger_compiler import compile_automation, trigger_id


def automation(trigger: Any, **more: Any) -> Automation:
    return Automation.model_validate({"name": "a", "trigger": trigger, **more})


def metric(aggregate: str, operator: str, threshold: float) -> dict[str, Any]:
    value = "$.payload.n"
    return {
        "type": "metric",
        "aggregate": aggregate,
        "value": value,
        "operator": operator,
        "threshold": threshold,
        "within": 5,
    }


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        ({"threshold": 2}, "threshold 2 needs `within`"),
        ({"threshold": 2, "within": 0}, "threshold 2 needs `within`"),
        ({"threshold": 0}, "at least 1"),
        ({"threshold": -1, "within": 5}, "greater than or equal to 0"),
        ({"threshold": 100_001, "within": 5}, "less than or equal to 100000"),
        ({"threshold": 10**30, "within": 5}, "less than or equal to 100000"),
        ({"threshold": True, "within": 5}, "valid integer"),
        ({"threshold": "2", "within": 5}, "valid integer"),
        ({"threshold": 2.5, "within": 5}, "valid integer"),
        ({"within": -5}, "is negative"),
        ({"within": "soon"}, "is not a duration"),
        ({"within": "11 years"}, "is not a duration"),
        ({"within": "99999d"}, "longer than 10 years"),
        ({"within": 1e300}, "not a usable duration"),
        ({"cooldown": -1}, "is negative"),
        ({"expct": "a"}, "Extra inputs"),
        ({"expect": []}, "at least 1 item"),
        ({"expect": 5}, "valid string"),
        ({"expect": "*" * 10_000}, "at most 4096"),
        ({"match": {"bucket": 5}}, "valid string"),
        ({"match": {"": "x"}}, "at least 1 character"),
        ({"match": {"bucket": []}}, "at least 1 item"),
        ({"match_related": ["x"]}, "valid dictionary"),
        ({"when": "x" * 20_001}, "at most 20000"),
        ({"after": [""], "within": 5}, "1 to 4096 characters"),
        ({"after": "a"}, "`after` needs `within`"),
        ({"for_each": ["k"] * 17}, "at most 16 items"),
        ({"posture": "proactive"}, "needs `within`"),
        ({"posture": "proactive", "within": 5, "threshold": 0}, "threshold of at least 1"),
        ({"posture": "proactive", "within": 5, "collect": {}}, "`collect` gathers events of a reactive trigger"),
        ({"posture": "retroactive"}, "'reactive' or 'proactive'"),
        ({"window": "hopping"}, "'sliding' or 'tumbling'"),
        ({"window": "tumbling", "within": 5, "cooldown": 1}, "`cooldown` belongs to `window: sliding`"),
        ({"collect": {}, "threshold": 2, "within": 5}, "do not go together"),
        ({"collect": {}, "within": 5}, "a burst ends by `collect` alone"),
        ({"collect": {}, "window": "tumbling"}, "a burst ends by `collect` alone"),
        ({"collect": {"events": 0}}, "greater than or equal to 1"),
        ({"collect": {"events": 10_001}}, "less than or equal to 10000"),
        ({"type": "sequence", "triggers": [{"expect": "a"}]}, "at least 2 items"),
        ({"type": "sequence", "triggers": []}, "at least 2 items"),
        ({"type": "compound", "triggers": []}, "at least 1 item"),
        ({"type": "compound", "triggers": [{"expect": "a"}] * 101}, "at most 100 items"),
        ({"type": "compound", "require": 3, "triggers": [{"expect": "a"}] * 2}, "3 of 2 triggers can never hold"),
        ({"type": "compound", "require": 0, "triggers": [{"expect": "a"}]}, "greater than or equal to 1"),
        ({"type": "compound", "require": "most", "triggers": [{"expect": "a"}]}, "'any' or 'all'"),
        ({"type": "metric", "aggregate": "sum", "operator": ">", "threshold": 1, "within": 5}, "needs `value`"),
        ({"type": "metric", "aggregate": "mode", "operator": ">", "threshold": 1, "within": 5}, "'count'"),
        ({"type": "metric", "aggregate": "count", "operator": "=>", "threshold": 1, "within": 5}, "'<'"),
        ({"type": "metric", "aggregate": "count", "operator": ">", "threshold": "many", "within": 5}, "valid number"),
        ({"type": "metric", "aggregate": "count", "operator": ">", "threshold": float("nan"), "within": 5}, "finite"),
        ({"type": "metric", "aggregate": "count", "operator": ">", "threshold": 1, "within": 0}, "needs `within`"),
        (metric("count", "<", 0), "count < 0 never holds: it is 0 or more; for no events at all write `== 0`"),
        (metric("count", "<=", -1), "never holds"),
        (metric("distinct", "==", -1), "never holds"),
        (metric("count", "==", 2.5), "never holds: it is a whole number"),
        (metric("count", ">", 1e300), "never holds: it stays below"),
        (metric("distinct", "!=", 70_000), "can not be decided: more than 65535 values are estimated"),
        (metric("max", ">", 1.7976931348623157e308), "never holds: no number is beyond it"),
        (metric("p99", "<", -1.7976931348623157e308), "never holds: no number is beyond it"),
        ({"type": "schedule"}, "one of cron, interval or rrule; found none"),
        ({"type": "schedule", "cron": "* * * * *", "interval": 60}, "found cron, interval"),
        ({"type": "schedule", "interval": 0}, "shortest interval"),
        ({"type": "schedule", "cron": "61 * * * *"}, "cron"),
        ({"type": "unknown"}, "does not match any of the expected tags"),
        ({"type": 5}, "event"),
        ("a.b", "valid dictionary"),
        (None, "valid dictionary"),
        ([], "valid dictionary"),
    ],
)
def test_a_trigger_that_can_not_work_is_refused_with_the_reason(trigger: Any, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        automation(trigger)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        ({"for_each": "$.payload["}, "trigger.for_each"),
        ({"for_each": "related:flow"}, "lacks a role or a label"),
        ({"for_each": "related::id"}, "lacks a role or a label"),
        ({"for_each": {"path": "$.payload[", "default": 1}}, "trigger.for_each"),
        ({"for_each": [{"path": "k", "default": 1}, "k"]}, "for_each[1]: k has another default"),
        (
            {
                "type": "compound",
                "correlate": {"path": "k", "default": 1},
                "triggers": [{"expect": "a", "for_each": "k"}],
            },
            "trigger.triggers[0].for_each[0]: k has another default",
        ),
        ({"let": {"k": "evnt.id"}}, "trigger.let.k"),
        ({"when": "event.payload.size >"}, "trigger.when"),
        ({"when": "evnt.payload.size > 1"}, "trigger.when"),
        ({"when": 'event.event.matches("(")'}, "trigger.when"),
        (
            {"type": "metric", "aggregate": "sum", "value": "$.[", "operator": ">", "threshold": 1, "within": 5},
            "trigger.value",
        ),
        (
            {"type": "compound", "triggers": [{"expect": "a"}, {"expect": "b", "resolve_on": "c"}]},
            "trigger.triggers[1].resolve_on: belongs to the outermost trigger",
        ),
        (
            {"type": "compound", "correlate": "k", "triggers": [{"expect": "a"}, {"type": "schedule", "interval": 60}]},
            "trigger.triggers[1]: a schedule has no labels",
        ),
    ],
)
def test_what_does_not_compile_is_refused_with_the_automation_and_the_field(trigger: Any, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        RuleSet.compile([automation(trigger)])
    assert refused.value.path[:3] == ("automations", "a", "trigger")
    assert said in str(refused.value)


@pytest.mark.parametrize("depth", [21, 100])
def test_deep_nesting_is_refused(depth: int) -> None:
    trigger: dict[str, Any] = {"expect": "a"}
    for _ in range(depth):
        trigger = {"type": "compound", "triggers": [trigger]}
    with pytest.raises((ValidationError, InvalidInput)) as refused:
        compile_automation(automation(trigger))
    assert "deep" in str(refused.value) or "recursion" in str(refused.value).lower()


def test_nesting_of_twenty_is_accepted() -> None:
    trigger: dict[str, Any] = {"expect": "a"}
    for _ in range(20):
        trigger = {"type": "compound", "triggers": [trigger]}
    assert len(compile_automation(automation(trigger)).composites) == 20


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(
    [
        "type",
        "expect",
        "match",
        "match_related",
        "when",
        "after",
        "for_each",
        "posture",
        "threshold",
        "within",
        "window",
        "cooldown",
        "resolve_on",
        "collect",
        "require",
        "triggers",
        "correlate",
        "aggregate",
        "value",
        "operator",
        "for",
        "cron",
        "interval",
        "anchor",
        "rrule",
        "timezone",
    ]
)


@up_to(500, usually=100)
@given(
    st.dictionaries(fields, values, max_size=5),
    st.sampled_from(["event", "compound", "sequence", "metric", "schedule"]),
)
def test_no_value_of_any_field_crashes_the_check(given_fields: dict[str, Any], kind: str) -> None:
    try:
        compile_automation(automation({"type": kind, **given_fields}))
    except (ValidationError, InvalidInput):
        pass


def test_the_id_of_a_trigger_follows_its_meaning_alone() -> None:
    plain = automation({"expect": "a", "within": "1m", "threshold": 2})
    same = automation(
        {"type": "event", "threshold": 2, "expect": ["a"], "within": 60},
        description="other words",
        actions=[{"type": "do-nothing"}],
        tags=["x"],
    )
    assert trigger_id(plain) == trigger_id(same)
    assert trigger_id(plain) != trigger_id(automation({"expect": "a", "within": "2m", "threshold": 2}))
    other_name = Automation.model_validate({"name": "b", "trigger": {"expect": "a", "within": 60, "threshold": 2}})
    assert trigger_id(plain) != trigger_id(other_name)


@pytest.mark.parametrize(
    "trigger",
    [
        metric("count", ">", 150_000),
        metric("count", ">=", 0),
        metric("count", "!=", 2.5),
        metric("sum", "<", 0),
        metric("sum", ">", 1.7976931348623157e308),
        metric("distinct", ">", 1_000_000),
        metric("distinct", "==", 65_535),
    ],
)
def test_a_metric_that_can_fire_is_not_refused(trigger: dict[str, Any]) -> None:
    assert automation(trigger).trigger.type == "metric"
