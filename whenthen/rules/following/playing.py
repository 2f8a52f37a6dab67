"""Plays one rule test: its steps through an evaluator with a virtual clock, and with `follow: true` what comes back of the firings' actions.

With `follow` the clock stops at each deadline on its way, so that what a firing emits comes at the time of the firing, before what is later.
Of two events at one time the one that was emitted first comes first; those of earlier times come before a step, those of its own time
after it. A chain ends where the evaluator stops it (`max_depth`), all of them together at `MOST_EVENTS`, and the clock stops at `MOST_STOPS`
deadlines at most: a schedule of each minute has five million in ten years.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

from whenthen.rules.folder import Rules
from whenthen.rules.following.followed_actions import FollowedActions
from whenthen.rules.following.webhook_steps import TriedWebhooks
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.events import Event, EventLimits, new_event
from whenthen.schemas.firings import Decision, Firing, Reason
from whenthen.schemas.ruletests import RuleTest
from whenthen.schemas.times import format_duration, from_us, to_us
from whenthen.triggers import Evaluation, Evaluator, RuleSet

__all__ = ["LIMITS", "MOST_EVENTS", "Story", "contributing", "play"]

MOST_EVENTS = 10_000  #: that come back of firings in one test
MOST_STOPS = 100_000  #: of the clock at deadlines in one test
LIMITS = EventLimits(ahead=timedelta(days=36500))  #: of the events of tests


@dataclass(slots=True)
class Story:
    """What happened in one test."""

    start_us: int
    ids: list[str | None] = field(default_factory=list)  #: of each step's first event
    steps: dict[str, int] = field(default_factory=dict)  #: of each event of a step
    times_us: list[int] = field(default_factory=list)  #: of each step
    firings: list[Firing] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)  #: of steps, and what came back
    followed: dict[str, tuple[str, int]] = field(
        default_factory=dict
    )  #: what came back: what it is, for people, and when
    not_made: list[str] = field(default_factory=list)  #: what actions could not emit, and why
    loops: dict[str, str] = field(default_factory=dict)  #: of each automation that a chain came back to too often

    def step_of(self, event_id: str | None) -> int | None:
        return None if event_id is None else self.steps.get(event_id)

    def origin(self, event_id: str | None) -> str:
        """`step 2`, or what the event is that came back; empty for a decision of time."""
        if event_id is None:
            return ""
        step = self.step_of(event_id)
        return f"step {step}" if step is not None else self.followed.get(event_id, (event_id, 0))[0]


def play(rules: RuleSet, test: RuleTest, webhooks: TriedWebhooks | None = None) -> Story:
    """What happens in a test. `webhooks` are those that its steps send requests to.

    Raises:
        InvalidInput: a step has no legal event; more comes back of the firings, or more deadlines pass, than a test takes.
    """
    return _Player(rules, test, webhooks).play()


def contributing(firing: Firing, events: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of a firing, oldest first; the triggering one as its trigger saw it."""
    seen = firing.seen_event
    own = None if seen is None else seen["id"]
    return [seen if seen is not None and ref.id == own else events[ref.id] for ref in firing.refs if ref.id in events]


class _Player:
    def __init__(self, rules: RuleSet, test: RuleTest, webhooks: TriedWebhooks | None) -> None:
        self._test = test
        self._webhooks = webhooks or TriedWebhooks(Rules())
        self._evaluator = Evaluator(rules)
        self._actions = FollowedActions(rules, test.outcomes)
        self._story = Story(start_us=to_us(test.start))
        self._coming: list[tuple[int, int, Event]] = []
        self._numbers = count()
        self._stops = 0

    def play(self) -> Story:
        test, story = self._test, self._story
        self._take(self._evaluator.advance(story.start_us))
        for number, step in enumerate(test.steps):
            now_us = to_us(test.start + step.at)
            self._follow(now_us, earlier=True)
            story.times_us.append(now_us)
            if step.webhook is not None:
                events = self._of_request(number)
            else:
                events = [] if step.event is None else [_step_event(test, number)]
            story.ids.append(events[0].id if events else None)
            if not events:
                self._take(self._evaluator.advance(now_us))
            for event in events:
                if event.id in story.events:
                    continue  # a redelivery, which the stream keeps out
                story.steps[event.id] = number
                story.events[event.id] = event.data
                self._take(self._evaluator.process(event, now_us))
            self._follow(now_us)
        return story

    def _of_request(self, number: int) -> list[Event]:
        """The events of a step's request; why there is none is told where a firing is missed."""
        step = self._test.steps[number]
        assert step.webhook is not None
        request = TriedWebhooks.request(step.body, headers=step.headers, query=step.query, method=step.method)
        try:
            made = self._webhooks.read(step.webhook, request, self._test.start + step.at)
        except InvalidInput as error:
            raise error.below("steps", number) from None
        if not made.events:
            self._story.not_made.append(f"step {number}: no event: {'; '.join(made.dropped) or 'it is answered'}")
        return made.events

    def _follow(self, until_us: int, *, earlier: bool = False) -> None:
        """What comes back up to a time, and the deadlines on the way; with `earlier` only what comes before it."""
        if not self._test.follow:
            return
        evaluator = self._evaluator
        while True:
            due_us = evaluator.next_deadline_us()
            if due_us is not None and due_us <= evaluator.clock_us:
                due_us = None
            comes_us = self._coming[0][0] if self._coming else None
            following = min((at for at in (due_us, comes_us) if at is not None), default=None)
            if following is None or following > until_us or (earlier and following == until_us):
                return
            if comes_us == following:
                _, _, event = heapq.heappop(self._coming)
                self._story.events[event.id] = event.data
                self._take(evaluator.process(event, following))
            else:
                self._stops += 1
                if self._stops > MOST_STOPS:
                    raise InvalidInput(
                        f"more than {MOST_STOPS:,} deadlines passed until {self._shown(following)}; end the test sooner, or "
                        "leave out `follow`"
                    )
                self._take(evaluator.advance(following))

    def _take(self, evaluation: Evaluation) -> None:
        story = self._story
        story.firings += evaluation.firings
        story.decisions += evaluation.decisions
        if not self._test.follow:
            return
        for stopped in evaluation.stopped:
            automations = (stopped.event.data.get("lineage") or {}).get("automations") or ()
            story.loops.setdefault(stopped.automation, self._loop(stopped.automation, automations, stopped.depth))
        now_us = self._evaluator.clock_us
        for firing in evaluation.firings:
            made = self._actions.of(firing, contributing(firing, story.events), now=from_us(now_us))
            story.not_made += made.problems
            for after, event in made.events:
                at_us = now_us + after // timedelta(microseconds=1)
                said = f"{event.name} of {firing.automation} at {self._shown(at_us)}"
                story.followed[event.id] = (said, at_us)
                heapq.heappush(self._coming, (at_us, next(self._numbers), event))
        if len(story.followed) > MOST_EVENTS:
            raise InvalidInput(
                f"more than {MOST_EVENTS:,} events came back of firings until {self._shown(now_us)}; narrow what the rules fire "
                "for, or leave out `follow`"
            )

    def _loop(self, automation: str, automations: Sequence[str], depth: int) -> str:
        chain = " -> ".join([*automations, automation])
        return (
            f"{automation} would fire without end: {depth} firings led to it at {self._shown(self._evaluator.clock_us)}, "
            f"{chain}; break the chain, or expect it: not_fired: [{{automation: {automation}, reason: {Reason.LOOP.value}}}]"
        )

    def _shown(self, at_us: int) -> str:
        return format_duration(timedelta(microseconds=at_us - self._story.start_us))


def _step_event(test: RuleTest, number: int) -> Event:
    step = test.steps[number]
    assert step.event is not None
    now = test.start + step.at
    try:
        return new_event(
            step.event,
            resource={"id": "test", **step.resource},
            related=step.related,
            payload=step.payload,
            occurred=now if step.occurred is None else test.start + step.occurred,
            id=step.id or f"step-{number}",
            follows=step.follows,
            now=now,
            source="test",
            limits=LIMITS,
        )
    except InvalidInput as error:
        raise error.below("steps", number) from None
