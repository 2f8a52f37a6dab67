"""Why one automation fired for one event, or did not: its part of the log, evaluated again up to there. Pure.

    replay = WhyReplay(compiled, target=1432)
    replay.event(event, time_us)      # each event of the log that the automation can match, in order, with its stored time
    replay.moment(time_us)            # ticks, and markers of rules (`replay.replace`)
    replay.answer()

The evaluator is the server's, so the decisions are, if it begins where nothing from before matters (`exact`). Called by the
queries of the API, which read the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from whenthen.rules.recorded.recording import RecordedTest, StoryItem, recorded_test
from whenthen.schemas.automations import PauseChange
from whenthen.schemas.decision_records import DecisionRow
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Decision, Reason
from whenthen.triggers import CompiledAutomation, Evaluator, RuleSet
from whenthen.triggers.explaining import (
    Clause,
    WindowView,
    explain_automation,
    key_of,
    memory_us,
    what_was_missing,
    window_views,
)

__all__ = ["WhyAnswer", "WhyReplay", "main_decision"]

D = TypeVar("D", Decision, DecisionRow)

MOST_DECISIONS = 50
MOST_STORY = 1000  #: events and moments that a recorded test is made of
#: for these an event did not get as far as a window
_NO_WINDOW = frozenset({Reason.LABEL_MISMATCH, Reason.CONDITION_FALSE, Reason.CONDITION_ERROR, Reason.MISSING_KEY})


@dataclass(slots=True)
class WhyAnswer:
    """Why, as computed."""

    decisions: list[Decision] = field(default_factory=list)  #: for the event, or the last ones of the key
    clauses: Clause | None = None
    before: list[WindowView] = field(default_factory=list)
    after: list[WindowView] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    exact: bool = True  #: whether nothing from before the first event that was read can have mattered

    @property
    def decision(self) -> Decision | None:
        """The one that tells most: of the whole trigger, else of the part that came furthest."""
        return main_decision(self.decisions)


def main_decision(decisions: Sequence[D]) -> D | None:
    """Of the decisions for one event, computed or on record, the one that tells most."""
    return max(
        decisions,
        key=lambda each: (each.firing is not None, each.reason not in _NO_WINDOW, not each.path),
        default=None,
    )


class WhyReplay:
    """Evaluates one automation. `target` is the position of the event in question; without it the question is about the key
    `key` (expression and value as text) at the moment at which the replay ends."""

    def __init__(
        self,
        automation: CompiledAutomation,
        *,
        target: int = 0,
        key: Mapping[str, str] | None = None,
        begins_whole: bool,
        absent: bool = False,
        start_us: int,
        max_depth: int = 8,
    ) -> None:
        """`begins_whole`: nothing of the log was left out before the first event; else it begins at `start_us`. `absent`: the automation is
        not in force there yet."""
        self.automation = automation
        self._target = target
        self._key = dict(key or {})
        self._evaluator = Evaluator(RuleSet([] if absent else [automation]), max_depth=max_depth)
        self._answer = WhyAnswer(exact=begins_whole)
        self._event: Event | None = None
        self._decided_us = 0
        self._memory_us = memory_us(automation)
        self._start_us = start_us
        self._times: dict[str, int] = {}  #: by key, the clock of its last decision
        self._settled: set[str] = set()  #: keys that were without anything for so long that the start does not matter
        self._story: deque[StoryItem] = deque(maxlen=MOST_STORY)
        self.events = 0

    @property
    def found(self) -> bool:
        """Whether the event in question was decided."""
        return self._event is not None

    def replace(self, automation: CompiledAutomation | None, time_us: int) -> None:
        """Put another revision of the automation in force; None when it is not in it."""
        self.moment(time_us)
        self._evaluator.replace_rules(RuleSet([] if automation is None else [automation]))
        if automation is not None:
            if automation.id != self.automation.id:  # another trigger begins with nothing
                self._answer.exact = True
            self.automation = automation
            self._memory_us = memory_us(automation)

    def event(self, event: Event, time_us: int) -> None:
        """The next event."""
        self.events += 1
        target = event.seq == self._target
        now_us = max(time_us, self._evaluator.clock_us)
        self._note(self._evaluator.advance(now_us).decisions)
        if target:
            self._event, self._decided_us = event, now_us
            self._answer.before = self._views(event)
        decisions = self._evaluator.process(event, now_us).decisions
        self._note(decisions)
        if target or any(each.reason not in _NO_WINDOW for each in decisions):
            self._story.append(StoryItem(now_us, event, tuple(decisions)))
        if target:
            self._answer.decisions = [each for each in decisions if each.seq == event.seq][:MOST_DECISIONS]
            self._answer.after = self._views(event)

    def pause(self, change: PauseChange, time_us: int) -> None:
        """The automation is paused, or resumed, from here on."""
        if time_us:
            self.moment(time_us)
        self._evaluator.take_pause(change)

    def moment(self, time_us: int) -> None:
        """The clock of the log goes on."""
        self._note(self._evaluator.advance(max(time_us, self._evaluator.clock_us)).decisions)

    def answer(self) -> WhyAnswer:
        """What is to be said at the end."""
        answer = self._answer
        now_us = self._decided_us or self._evaluator.clock_us
        if not self._target:
            answer.after = window_views(self._evaluator, self.automation, lambda leaf: self._asked_key(leaf.path))
        if self._event is not None:
            answer.clauses = explain_automation(self.automation, self._event, now_us=now_us)
        decision = answer.decision
        if not self._target and answer.decisions:  # of a key, as it stood at the moment
            decision = answer.decisions[-1]
        if decision is not None and not answer.exact:
            # windows of a key begin anew after a pause: whatever was before does not matter
            answer.exact = decision.reason in _NO_WINDOW or not self._memory_us or decision.key in self._settled
        elif decision is None and self._target:
            answer.exact = True  # no trigger looks at the event
        if decision is None or decision.reason is not Reason.FIRED or decision.firing is None:
            answer.missing = what_was_missing(self.automation, decision, answer.after, event=self._event, now_us=now_us)
        return answer

    def recorded_test(self, end_us: int) -> RecordedTest:
        """What happened to the key in question, as a test."""
        decision = self._answer.decision
        keys = {each.key for each in self._answer.decisions if each.reason not in _NO_WINDOW}
        story = [
            item
            for item in self._story
            if self.automation.composites
            or not keys
            or (item.event is not None and item.event.seq == self._target)
            or any(each.key in keys for each in item.decisions)
        ]
        if self._memory_us is not None:
            first = len(story) - 1
            while first > 0 and (
                # a deadline is handled when the clock goes on, which may be long after it was due
                story[first].event is None or story[first].time_us - story[first - 1].time_us <= self._memory_us
            ):
                first -= 1
            story = story[max(first, 0) :]
        fired = decision is not None and decision.firing is not None
        return recorded_test(
            self.automation,
            story,
            target=self._target,
            reason=None if decision is None or fired else decision.reason,
            end_us=end_us,
        )

    def _note(self, decisions: list[Decision]) -> None:
        """Take note of decisions of a key: when nothing had come for long before, and the last ones of the key that is asked for."""
        for decision in decisions:
            if decision.event is None and decision.firing is not None:
                self._story.append(StoryItem(decision.at_us, None, (decision,)))
            if decision.reason in _NO_WINDOW:
                continue
            before_us = self._times.get(decision.key, self._start_us)
            if self._memory_us is not None and decision.at_us - before_us > self._memory_us:
                self._settled.add(decision.key)
            self._times[decision.key] = decision.at_us
            if not self._target and self._is_asked(decision):
                self._answer.decisions = [*self._answer.decisions[-MOST_DECISIONS + 1 :], decision]

    def _is_asked(self, decision: Decision) -> bool:
        found = self.automation.key_of(decision.path, decision.key)
        return all(str(found.get(name)) == value for name, value in self._key.items())

    def _asked_key(self, path: str) -> str | None:
        """The text of the key that is asked for, as the log had it."""
        last = [each.key for each in self._answer.decisions if each.path == path] or [
            each.key for each in self._answer.decisions
        ]
        return last[-1] if last else None

    def _views(self, event: Event) -> list[WindowView]:
        return window_views(
            self._evaluator, self.automation, lambda leaf: key_of(leaf, event, self._evaluator.clock_us)
        )
