"""Why a rule decided what it did, computed from a part of the log: where the answer says it is exact, it is what the server decided."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import up_to
from whenthen.rules.recorded import WhyReplay
from whenthen.schemas.automations import Automation
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.firings import Decision, Reason
from whenthen.schemas.times import from_us, parse_us
from whenthen.triggers import CompiledAutomation, Evaluator, RuleSet, compile_automation

START_US = parse_us("2026-01-31T12:00:00Z")
SECOND = 1_000_000
TRIGGERS: dict[str, dict[str, Any]] = {
    "every": {"expect": "a"},
    "sliding": {"expect": "a", "threshold": 3, "within": "10s", "for_each": ["id"]},
    "quiet": {"expect": "a", "threshold": 2, "within": "10s", "cooldown": "30s"},
    "after": {"expect": "a", "after": "b", "within": "10s", "for_each": ["id"]},
    "absence": {"expect": "a", "after": "b", "posture": "proactive", "within": "10s", "for_each": ["id"]},
    "both": {"type": "compound", "require": "all", "within": "20s", "triggers": [{"expect": "a"}, {"expect": "b"}]},
    "burst": {"expect": "a", "collect": {"events": 3, "wait": "10s"}},
    "metric": {
        "type": "metric", "expect": "a", "value": "$.payload.n", "aggregate": "sum", "operator": ">", "threshold": 5,
        "within": "10s", "for_each": ["id"],
    },
}  # fmt: skip


def compiled(name: str) -> CompiledAutomation:
    rule = {"name": name, "trigger": TRIGGERS[name], "actions": ["do-nothing"]}
    return compile_automation(Automation.model_validate(rule))


def event(number: int, at_us: int, name: str = "a", id: str = "x", late_s: int = 0, n: int = 1) -> Event:
    made = new_event(
        name,
        id=f"e{number}",
        resource={"id": id},
        payload={"n": n},
        now=from_us(at_us),
        occurred=from_us(at_us - late_s * SECOND),
        source="test",
    )
    made.seq = number + 1
    return made


def said(decisions: list[Decision]) -> list[tuple[Any, ...]]:
    return [(each.reason, each.path, each.key, each.detail, each.firing, each.seq) for each in decisions]


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 3, 7, 25, 70]), st.sampled_from("aab"), st.sampled_from("xy"), st.sampled_from([0, 0, 2])
    ),
    min_size=1,
    max_size=25,
)


@pytest.mark.parametrize("name", TRIGGERS)
@up_to(150)
@given(steps=STEPS, data=st.data())
def test_an_answer_that_is_exact_is_what_was_decided(
    name: str, steps: list[tuple[int, str, str, int]], data: st.DataObject
) -> None:
    automation = compiled(name)
    log: list[tuple[Event, int]] = []
    at_us = START_US
    for number, (gap_s, kind, id, late_s) in enumerate(steps):
        at_us += gap_s * SECOND
        log.append((event(number, at_us, kind, id, late_s, n=number % 4), at_us))
    target = data.draw(st.integers(0, len(log) - 1))
    start = data.draw(st.integers(0, target))
    server = Evaluator(RuleSet([automation]), follows_wait=timedelta(0))
    decided: list[Decision] = []
    for each, time_us in log[: target + 1]:
        decided = [found for found in server.process(each, time_us).decisions if found.seq == target + 1]
    replay = WhyReplay(
        automation, target=target + 1, begins_whole=start == 0, start_us=log[start][1] if start else START_US
    )
    for each, time_us in log[start : target + 1]:
        replay.event(each, time_us)
    answer = replay.answer()
    assert replay.found
    if start == 0:
        assert answer.exact
    if answer.exact:
        assert said(answer.decisions) == said(decided)
        main = answer.decision
        fired = main is not None and main.reason is Reason.FIRED and main.firing is not None
        assert fired or answer.missing
        recorded = replay.recorded_test(log[target][1])
        if start == 0:
            assert recorded.failures == (), recorded
