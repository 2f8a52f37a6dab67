"""Chains of firings that feed themselves: they are stopped once, told of, and the telling is no new chain."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from whenthen.engine.evaluation.loop_stopped import loop_stopped_event
from whenthen.schemas.automations import Automation
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.firings import Firing, Reason
from whenthen.schemas.times import to_us
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.rule_set import RuleSet

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)


def automation(name: str, expect: str) -> Automation:
    return Automation.model_validate({"name": name, "trigger": {"expect": expect}})


def caused(firing: Firing, name: str) -> Event:
    """The event that an emit-event action of the firing publishes."""
    lineage: dict[str, Any] = {
        "depth": firing.depth,
        "firing": firing.id,
        "automations": list(firing.automations),
    }
    return new_event(name, resource={"id": "x"}, now=NOW, source="whenthen", lineage=lineage)


def play(rules: list[Automation], emits: dict[str, str], first: str, *, steps: int = 200) -> list[str]:
    """Run what the rules cause; gives the automations that fired, in order, and stops after `steps` events."""
    evaluator = Evaluator(RuleSet.compile(rules), max_depth=4)
    waiting = [new_event(first, resource={"id": "x"}, now=NOW, source="test")]
    fired: list[str] = []
    for _ in range(steps):
        if not waiting:
            return fired
        outcome = evaluator.process(waiting.pop(0), to_us(NOW))
        fired += [firing.automation for firing in outcome.firings]
        waiting += [
            caused(firing, emits[firing.automation]) for firing in outcome.firings if firing.automation in emits
        ]
        waiting += [loop_stopped_event(stopped, now=NOW) for stopped in outcome.stopped]
    raise AssertionError(f"still going on after {steps} events: {fired[:20]}")


def test_two_automations_that_start_each_other_end_at_the_depth() -> None:
    fired = play([automation("ping", "a"), automation("pong", "b")], {"ping": "b", "pong": "a"}, "a")
    assert fired == ["ping", "pong", "ping", "pong"]


def test_an_automation_may_tell_of_the_stop() -> None:
    rules = [automation("ping", "a"), automation("tell", "automation.loop-stopped")]
    assert play(rules, {"ping": "a"}, "a") == ["ping"] * 4 + ["tell"]


def test_telling_of_the_stop_does_not_feed_the_chain_for_ever() -> None:
    rules = [automation("ping", "a"), automation("tell", "automation.loop-stopped")]
    fired = play(rules, {"ping": "a", "tell": "a"}, "a")
    assert fired.count("tell") <= 2


def test_the_stop_is_told_with_the_chain_that_led_to_it() -> None:
    evaluator = Evaluator(RuleSet.compile([automation("ping", "a")]), max_depth=1)
    lineage = {"depth": 1, "firing": "f", "automations": ["ping"]}
    event = new_event("a", id="e1", resource={"id": "x"}, now=NOW, source="whenthen", lineage=lineage)
    outcome = evaluator.process(event, to_us(NOW))
    assert [decision.reason for decision in outcome.decisions] == [Reason.LOOP]
    told = loop_stopped_event(outcome.stopped[0], now=NOW)
    assert told.id == loop_stopped_event(outcome.stopped[0], now=NOW).id == "loop-8c57f773c77f2f33a9a0e78ea11de020"
    assert told.payload == {"depth": 1, "automations": ["ping", "ping"], "event": "a"}
    assert told.resource == {"id": "whenthen.automation.ping", "name": "ping"}
