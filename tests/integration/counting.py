"""A tiny evaluator with the interface of the real one: counts events for each resource and fires at every
`threshold`th.

Its firings can be told from the stream alone, so a test can compare what was stored with what must have been.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from whenthen.schemas.automations import Automation
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Firing, FiringState
from whenthen.schemas.times import format_time, from_us
from whenthen.triggers.decisions import Evaluation
from whenthen.triggers.rule_set import RuleSet
from whenthen.triggers.shard_state import Aside

WIDEST = 2000  #: firings of one `burst`


class CountingRules(RuleSet):
    """Rules that name what they want to see and do, and have no triggers to compile."""

    def __init__(
        self,
        *,
        globs: Sequence[str] = ("order.*", "burst", "arm"),
        actions_of: Sequence[Any] = ("do-nothing",),
        triggers: frozenset[str] = frozenset({"count", "due"}),
    ) -> None:
        super().__init__([])
        self.automations = dict.fromkeys(["count", "due", *(f"wide-{number}" for number in range(WIDEST))])  # type: ignore[arg-type]
        self.globs = globs
        self.actions_of = actions_of
        self.triggers = triggers

    def patterns(self) -> list[str]:
        return list(self.globs)

    def actions(self, automation: str) -> Automation:
        return Automation.model_validate(
            {"name": automation, "trigger": {"expect": "x"}, "actions": list(self.actions_of)}
        )


@dataclass
class CountingEvaluator:
    threshold: int = 3
    rules: CountingRules = field(default_factory=CountingRules)
    clock_us: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    changed: set[tuple[str, str]] = field(default_factory=set)
    processed: list[int] = field(default_factory=list)
    restored: int = 0
    aside: dict[str, Aside] = field(default_factory=dict)

    def process(self, event: Event, now_us: int) -> Evaluation:
        outcome = self.advance(now_us)
        self.processed.append(event.seq)
        key = event.resource["id"]
        if event.name == "poison":
            raise RuntimeError("this event can not be evaluated")
        if event.name == "burst":
            for number in range(int(event.resource["fan"])):
                outcome.firings.append(self._fire(f"wide-{number}", f"{event.id}-{number}", event))
                self._touch("count", f"wide-{number}", 1)
        elif event.name == "arm":
            self.due[key] = now_us + int(event.resource["after_us"])
            self.changed.add(("due", key))
        else:
            self._touch("count", key, self.counts.get(key, 0) + 1)
            if self.counts[key] % self.threshold == 0:
                outcome.firings.append(self._fire("count", f"{key}-{self.counts[key]}", event))
        return outcome

    def advance(self, now_us: int) -> Evaluation:
        assert now_us >= self.clock_us
        self.clock_us = now_us
        outcome = Evaluation()
        for key, due in list(self.due.items()):
            if due <= now_us:
                del self.due[key]
                self.changed.add(("due", key))
                outcome.firings.append(self._fire("due", f"{key}-{due}", None))
        return outcome

    def next_deadline_us(self) -> int | None:
        return min(self.due.values(), default=None)

    def wants_all_events(self) -> bool:
        return False

    def pending(self) -> int:
        return len(self.changed)

    def drain(self) -> list[tuple[str, str, bytes | None]]:
        changed, self.changed = self.changed, set()
        values = {"count": self.counts, "due": self.due}
        return [
            (trigger, key, orjson.dumps(values[trigger][key]) if key in values[trigger] else None)
            for trigger, key in sorted(changed)
        ]

    def drop_outlived(self) -> int:
        return 0

    def remains_us(self, trigger: str) -> int | None:
        return 0

    def restore(self, trigger: str, key: str, state: bytes) -> bool:
        if trigger not in self.rules.triggers:
            return False
        {"count": self.counts, "due": self.due}[trigger][key] = orjson.loads(state)
        self.restored += 1
        return True

    def remember(self, event_id: str, at_us: int | None = None) -> None:
        raise AssertionError("no event here names a predecessor")

    def holds(self, event_id: str) -> bool:
        return False

    def replace_rules(self, rules: RuleSet) -> None:
        assert isinstance(rules, CountingRules)
        self.rules = rules

    def owner(self, trigger: str) -> str | None:
        return trigger

    def set_aside(self, automation: str, detail: str, *, at_us: int, windows: Iterable[tuple[str, str]] = ()) -> None:
        self.aside[automation] = Aside(meaning="", at_us=at_us, detail=detail)

    def give_back(self) -> list[str]:
        return []

    def _touch(self, trigger: str, key: str, value: int) -> None:
        self.counts[key] = value
        self.changed.add((trigger, key))

    def _fire(self, automation: str, id: str, event: Event | None) -> Firing:
        return Firing(
            id=id,
            automation=automation,
            state=FiringState.TRIGGERED,
            at=format_time(from_us(self.clock_us)),
            key={},
            event=event.data if event is not None else None,
            seq=event.seq if event is not None else 0,
        )
