"""Automations that plainly start themselves are refused; everything less certain is left to run time."""

from __future__ import annotations

import pytest

from whenthen.rules.references import Part
from whenthen.rules.self_triggering import loops
from whenthen.schemas.automations import Automation


def found(*automations: dict[str, object]) -> list[str]:
    parts = [
        Part(
            file="a.yaml", path=("automations", index), model=Automation.model_validate(automation), kind="automations"
        )
        for index, automation in enumerate(automations)
    ]
    return [finding.detail for finding in loops(parts)]


def one(trigger: dict[str, object], action: dict[str, object], name: str = "a", **more: object) -> dict[str, object]:
    return {"name": name, "trigger": trigger, "actions": [action], **more}


@pytest.mark.parametrize(
    ("trigger", "action"),
    [
        ({"expect": "x.y"}, {"emit-event": "x.y"}),
        ({"expect": "x.*"}, {"emit-event": "x.y"}),
        ({"expect": "*.y"}, {"emit-event": "x.y"}),
        ({"expect": ["q", "x.y"]}, {"emit-event": "x.y"}),
        ({}, {"emit-event": "x.y"}),
        ({"expect": "x.y", "match": {"kind": "a*"}}, {"emit-event": "x.y"}),
        ({"expect": "x.y", "match": {"kind": "a*"}}, {"emit-event": "x.y", "resource": {"id": "1", "kind": "ab"}}),
        ({"expect": "x.y", "collect": {"events": 5}}, {"emit-event": "x.y"}),
        (
            {"type": "compound", "require": "any", "triggers": [{"expect": "q"}, {"expect": "x.y"}]},
            {"emit-event": "x.y"},
        ),
    ],
)
def test_an_automation_that_emits_what_it_expects_is_refused(
    trigger: dict[str, object], action: dict[str, object]
) -> None:
    (message,) = found(one(trigger, action))
    assert message.startswith('automation "a" would start itself: it emits "x.y"')


@pytest.mark.parametrize(
    ("trigger", "action"),
    [
        ({"expect": "x.z"}, {"emit-event": "x.y"}),
        ({"expect": "x.y", "when": "event.payload.n > 0"}, {"emit-event": "x.y"}),
        ({"expect": "x.y", "within": "5m"}, {"emit-event": "x.y"}),
        ({"expect": "x.y", "threshold": 2, "within": "5m"}, {"emit-event": "x.y"}),
        ({"expect": "x.y", "cooldown": "1s"}, {"emit-event": "x.y"}),
        ({"expect": "x.y", "posture": "proactive", "within": "5m"}, {"emit-event": "x.y"}),
        ({"expect": "x.y", "match": {"kind": "a"}}, {"emit-event": "x.y", "resource": {"id": "1", "kind": "b"}}),
        ({"expect": "x.y", "match": {"kind": "!b"}}, {"emit-event": "x.y", "resource": {"id": "1", "kind": "b"}}),
        (
            {"expect": "x.y", "match": {"kind": "a"}},
            {"emit-event": "x.y", "resource": {"id": "1", "kind": "{{ event.id }}"}},
        ),
        ({"expect": "x.y", "match": {"kind": "a"}}, {"emit-event": "x.y", "resource": {"id": "1"}}),
        ({"expect": "x.y", "match_related": {"role": "owner"}}, {"emit-event": "x.y"}),
        ({"expect": "x.y"}, {"emit-event": "{{ event.event }}"}),
        ({"expect": "x.y"}, {"run-deployment": "x.y"}),
    ],
)
def test_what_is_not_certain_is_left_to_run_time(trigger: dict[str, object], action: dict[str, object]) -> None:
    assert found(one(trigger, action)) == []


def test_a_disabled_automation_starts_nothing() -> None:
    assert found(one({"expect": "x"}, {"emit-event": "x"}, enabled=False)) == []


def test_automations_that_start_each_other_are_refused_once_with_the_whole_ring() -> None:
    messages = found(
        one({"expect": "b.done"}, {"emit-event": "c.go"}, "c"),
        one({"expect": "start"}, {"emit-event": "a.go"}, "outside"),
        one({"expect": "a.go"}, {"emit-event": "b.done"}, "a"),
        one({"expect": "c.*"}, {"emit-event": "a.go"}, "b"),
    )
    (message,) = messages
    assert '"c" -> "b" -> "a" -> "c"' in message


def test_two_rings_are_both_told() -> None:
    messages = found(
        one({"expect": "1"}, {"emit-event": "2"}, "a"),
        one({"expect": "2"}, {"emit-event": "1"}, "b"),
        one({"expect": "3"}, {"emit-event": "4"}, "c"),
        one({"expect": "4"}, {"emit-event": "3"}, "d"),
    )
    assert len(messages) == 2


@pytest.mark.takes(1.3)
def test_a_chain_without_a_way_back_is_fine_however_long() -> None:
    chain = [one({"expect": f"step.{i}"}, {"emit-event": f"step.{i + 1}"}, f"a{i}") for i in range(2000)]
    assert found(*chain) == []


def test_a_crowd_that_all_emits_and_expects_one_name_ends() -> None:
    crowd = [
        one({"expect": "x", "match": {"n": str(i)}}, {"emit-event": "x", "resource": {"id": "1"}}, f"a{i}")
        for i in range(1500)
    ]
    assert found(*crowd) == []
