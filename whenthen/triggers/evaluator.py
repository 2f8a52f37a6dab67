"""The evaluator: events and the clock in; decisions, firings and changed windows out. Pure: no clock, no bus.

    evaluator = Evaluator(RuleSet.compile(automations))
    outcome = evaluator.process(event, now_us)      # first moves the clock, then decides for the event
    outcome.firings                                 # to be acted upon
    evaluator.drain()                               # windows that changed since, to be stored with the firings

The clock is what the caller says it is (the stream's timestamps in the server, the file's times in a replay); it never goes
back. Two evaluators that are given the same events at the same times produce the same firings with the same ids, also when
one of them was stored and restored in between.

Called by `engine.evaluation` and by `replay`, `test`, `explain`. Meaning: docs/rules.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from whenthen.schemas.errors import RenderError
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Decision, Firing, FiringState, Reason, Ref
from whenthen.triggers.ends import BucketEnds
from whenthen.triggers.firings import Cause, make_firing, make_plain_firing, tells_of
from whenthen.triggers.holding import Holding
from whenthen.triggers.keys import key_text, parse_key_text
from whenthen.triggers.rules import Composite, EveryRule, Leaf, Role, RuleSet, ScheduleRule
from whenthen.triggers.store import LOOK_AGAIN_US, WindowStore
from whenthen.triggers.timing import can_expire, deadline_us, expires_us, next_time_us, times_due
from whenthen.triggers.windows import absence, collecting, composite, metric, sliding, tumbling
from whenthen.triggers.windows.absence import AbsenceRule
from whenthen.triggers.windows.collecting import CollectRule
from whenthen.triggers.windows.metric import MetricRule
from whenthen.triggers.windows.sliding import SlidingRule
from whenthen.triggers.windows.steps import State, Step
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["Evaluator", "Outcome", "Stopped"]

_MAX_EXACT = 2**53  #: larger whole numbers are kept as floats
_MAX_CHECKS = 20_000  #: of one trigger's buckets, when the clock jumps over many


@dataclass(frozen=True, slots=True)
class Stopped:
    """A firing that was not made because too many firings led to it."""

    automation: str
    event: Event
    depth: int


@dataclass(slots=True)
class Outcome:
    """What one call concluded."""

    firings: list[Firing] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    stopped: list[Stopped] = field(default_factory=list)


class Evaluator:
    """Decides for one shard. Not thread-safe; the caller owns it."""

    def __init__(
        self, rules: RuleSet, *, max_depth: int = 8, follows_wait: timedelta = timedelta(0), record: bool = True
    ) -> None:
        self.rules = rules
        self.max_depth = max_depth
        self._lineage = max_depth + 1  #: automations that a firing names as having led to it
        self.record = record  #: whether outcomes list decisions; they are counted in any case
        self.clock_us = 0
        self._moment_us = 0  #: the clock of what is being decided: a deadline's time while the clock passes it
        self._stop_us = 0  #: the moment before this one at which the clock stood
        self.paused: set[str] = set()
        self.counts: dict[tuple[str, Reason], int] = {}  #: decisions by automation and reason
        self._store = WindowStore()
        self._holding = Holding(wait_us=follows_wait // timedelta(microseconds=1))
        self._ends: dict[str, BucketEnds] = {}
        self._begun: set[str] = set()
        self._unbegun: dict[str, Leaf] = {}
        self._list_unbegun()

    # -- what the shell calls

    def process(self, event: Event, now_us: int) -> Outcome:
        """Move the clock to `now_us`, then decide for `event`. Deadlines that are due by then come first."""
        outcome = Outcome()
        self._advance(now_us, outcome)
        self._take(event, outcome)
        return outcome

    def advance(self, now_us: int) -> Outcome:
        """Move the clock to `now_us` and do what became due."""
        outcome = Outcome()
        self._advance(now_us, outcome)
        return outcome

    def next_deadline_us(self) -> int | None:
        """When `advance` should be called at the latest if no event comes; 0 when a first look at the clock is needed."""
        if self._unbegun:
            return 0
        return self._store.next_deadline_us()

    def wants_all_events(self) -> bool:
        """Whether events were seen that name a predecessor: to tell whether it came, all events are needed."""
        return self._holding.in_use

    def pending(self) -> int:
        """How many windows changed since the last `drain`."""
        return self._store.pending()

    def drain(self) -> list[tuple[str, str, bytes | None]]:
        """Trigger id, key and state of every window that changed; the state is None when it was forgotten."""
        return self._store.drain()

    def restore(self, trigger: str, key: str, state: bytes) -> bool:
        """Take back a stored window. False when no rule knows the trigger any more (then it can be deleted)."""
        value = orjson.loads(state)
        base = trigger.partition("~")[0]
        if base == Holding.ID:
            self._holding.restore(key, value)
            self._store.put(trigger, key, value, deadline=value[1], changed=False)
            self.clock_us = max(self.clock_us, value[0])
            return True
        node = self.rules.nodes.get(base)
        if node is None:
            return False
        if not trigger.endswith("~state"):
            self._begun.add(base)
            self._unbegun.pop(base, None)
        self._store.put(trigger, key, value, deadline=deadline_us(trigger, node, value), changed=False)
        if base == trigger:
            self._file_expiry(node, key, value)
            if isinstance(node, Leaf) and isinstance(node.rule, TumblingRule):
                self._note_end(node, node.rule, key, value)
        self.clock_us = max(self.clock_us, value[0])
        return True

    def replace_rules(self, rules: RuleSet) -> None:
        """Swap the rules whole. Windows of triggers that mean the same stay; those of others are forgotten."""
        self.rules = rules
        for trigger in self._store.triggers():
            base = trigger.partition("~")[0]
            if base != Holding.ID and base not in rules.nodes:
                self._store.forget(trigger)
        self._begun = {trigger for trigger in self._begun if trigger in rules.nodes}
        self._ends = {trigger: ends for trigger, ends in self._ends.items() if trigger in rules.nodes}
        self._list_unbegun()

    def remember(self, event_id: str, at_us: int | None = None) -> None:
        """Note that an event came before, at `at_us` or now, so that its followers are not held."""
        self._holding.note(event_id, self.clock_us if at_us is None else at_us)

    def holds(self, event_id: str) -> bool:
        """Whether an event of this id waits for the one that it follows."""
        return self._holding.holds(event_id)

    # -- events

    def _take(self, event: Event, outcome: Outcome) -> None:
        if event.follows is not None:
            state = self._holding.hold(event, self.clock_us)
            if state is not None:
                self._store.put(Holding.ID, event.id, state, deadline=state[1])
                self._note_held(event, outcome)
                return
        self._decide(event, outcome)
        if self._holding.wait_us:
            self._release_followers(event, outcome)

    def _release_followers(self, event: Event, outcome: Outcome) -> None:
        """Decide for the events that waited for `event`, for those that waited for them, and so on."""
        released = self._holding.seen(event, self.clock_us)[::-1]
        while released:  # the next one last; those that waited for it come before the rest
            follower = released.pop()
            self._store.drop(Holding.ID, follower.id)
            self._decide(follower, outcome)
            released += self._holding.seen(follower, self.clock_us)[::-1]

    def _decide(self, event: Event, outcome: Outcome) -> None:
        """Decide for every trigger that the event concerns, in the order of the rules."""
        entries = self.rules.entries
        both: Leaf | None = None  #: a leaf with `after` that expects the event; its next entry says if it opens too
        for number in self.rules.index.candidates(event):
            entry = entries[number]
            leaf = entry.leaf
            role = entry.role
            if both is not None and (both is not leaf or role != Role.AFTER):
                self._matched(both, event, True, False, outcome)
                both = None
            if not entry.filter.admits(event):
                self._refused(entry.filter, leaf, role, event, outcome)
            elif not leaf.automation.enabled or leaf.automation.name in self.paused:
                self._note(outcome, leaf, Reason.PAUSED, event, detail="the automation is paused or disabled")
            elif role == Role.RESOLVES:
                self._resolve_on(leaf, event, outcome)
            elif leaf.after is None:
                self._matched(leaf, event, True, False, outcome)
            elif role == Role.EXPECTED:
                both = leaf
            else:
                self._matched(leaf, event, both is leaf, True, outcome)
                both = None
        if both is not None:
            self._matched(both, event, True, False, outcome)

    def _matched(self, leaf: Leaf, event: Event, counts: bool, opens: bool, outcome: Outcome) -> None:
        rule = leaf.rule
        if isinstance(rule, TumblingRule):
            self._bucketed(leaf, rule, event, counts, opens, outcome)
            return
        key = leaf.keys.text(event)
        if key is None:
            missing = leaf.keys.missing(event)
            self._note(outcome, leaf, Reason.MISSING_KEY, event, detail=f"for_each: the event has no {missing}")
            return
        now_us = self.clock_us
        time_us = event.time_us
        ref = Ref(event.data["id"], event.seq, time_us)
        if isinstance(rule, EveryRule):
            depth = event.depth
            if leaf.parent is None and not depth and not leaf.automation.keeps_state:
                firing = make_plain_firing(leaf, key, (ref,), event, depth=depth, at_us=time_us, lineage=self._lineage)
                outcome.firings.append(firing)
                self._note(outcome, leaf, Reason.FIRED, event, key=key, firing=firing.id)
            else:
                step = Step(Reason.FIRED, None, refs=(ref,), at_us=time_us)
                self._fired(leaf, key, step, Cause(event, depth, time_us), outcome)
            return
        state = self._store.get(leaf.id, key)
        if isinstance(rule, SlidingRule):
            step = sliding.on_event(rule, state, ref, now_us=now_us, counts=counts, opens=opens)
        elif isinstance(rule, AbsenceRule):
            step = absence.on_event(rule, state, ref, now_us=now_us, counts=counts, opens=opens, depth=event.depth)
        elif isinstance(rule, CollectRule):
            step = collecting.on_event(rule, state, ref, now_us=now_us, depth=event.depth)
        elif isinstance(rule, MetricRule):
            value = self._metric_value(leaf, event, outcome)
            if value is None:
                return
            step = metric.on_event(rule, state, ref, value[0], now_us=now_us, depth=event.depth)
        else:
            return
        self._settle(leaf, key, step, state)
        self._conclude(leaf, key, step, Cause(event, max(event.depth, step.depth), step.at_us or time_us), outcome)

    def _bucketed(
        self, leaf: Leaf, rule: TumblingRule, event: Event, counts: bool, opens: bool, outcome: Outcome
    ) -> None:
        """As `_matched`, for a trigger with buckets. What the event lacks of the key is empty text."""
        key = leaf.keys.text_or_empty(event)
        now_us = self._moment_us
        ref = Ref(event.data["id"], event.seq, event.time_us)
        cause = Cause(event, event.depth, now_us)
        if not rule.remembers:
            self._fired(leaf, key, Step(Reason.FIRED, None, refs=(ref,), at_us=now_us), cause, outcome)
            return
        state = self._store.get(leaf.id, key)
        step = tumbling.on_event(rule, state, ref, now_us=now_us, counts=counts, opens=opens, data=event.data)
        self._settle(leaf, key, step, state)
        self._note_end(leaf, rule, key, step.state)
        self._conclude(leaf, key, step, cause, outcome)

    def _metric_value(self, leaf: Leaf, event: Event, outcome: Outcome) -> tuple[Any] | None:
        """The value in a tuple; None (and a decision that says why) when the event has no usable one."""
        assert isinstance(leaf.rule, MetricRule)
        if leaf.value is None:
            return (None,)
        try:
            value = leaf.value.one(event.data)
        except RenderError as error:
            self._note(outcome, leaf, Reason.MISSING_KEY, event, detail=f"value: {error}")
            return None
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        if not number and leaf.rule.aggregate not in ("count", "distinct"):
            detail = f"value: {leaf.value.text} is {value!r:.100}, not a number"
            self._note(outcome, leaf, Reason.CONDITION_ERROR, event, detail=detail)
            return None
        if isinstance(value, int) and abs(value) > _MAX_EXACT and leaf.rule.aggregate != "distinct":
            value = float(value)
        return (value,)

    def _conclude(self, leaf: Leaf, key: str, step: Step, cause: Cause, outcome: Outcome) -> None:
        """What a step of a leaf means for the automation."""
        if step.reason is Reason.FIRED:
            self._fired(leaf, key, step, cause, outcome)
        elif step.reason is Reason.RESOLVED:
            refs = step.refs or ()
            if leaf.parent is not None or not self._resolved(leaf, key, refs, cause, outcome, detail=step.detail):
                self._note(outcome, leaf, Reason.RESOLVED, cause.event, key=key, detail=step.detail)
        else:
            self._note(outcome, leaf, step.reason, cause.event, key=key, detail=step.detail)
            satisfied = step.reason is Reason.EXPECTED and step.refs
            if satisfied and leaf.parent is None and leaf.automation.keeps_state:
                self._resolved(leaf, key, step.refs or (), cause, outcome, detail="what it waits for came")

    # -- firing and resolving

    def _fired(self, node: Leaf | Composite, key: str, step: Step, cause: Cause, outcome: Outcome) -> None:
        parent = node.parent
        if parent is None:
            self._root_fired(node, key, step, cause, outcome)
            return
        at_us = self._moment_us if parent.by_clock else step.at_us
        above = key_text(parse_key_text(key)[: parent.correlated]) if parent.correlated else ""
        state = self._store.get(parent.id, above)
        expires = None if state is None else composite.expires_us(parent.rule, state)
        now_us = self._moment_us if parent.by_clock else self.clock_us
        if expires is not None and expires <= now_us:
            state = None
        if isinstance(node, Leaf):
            self._note(outcome, node, Reason.FIRED, cause.event, key=key, detail=step.detail)
        up = composite.on_part_fired(
            parent.rule, state, node.part, step.refs or (), at_us=at_us, now_us=now_us, depth=cause.depth
        )
        self._settle(parent, above, up, state)
        if up.reason is Reason.FIRED:
            above_cause = Cause(cause.event, max(cause.depth, up.depth), up.at_us, cause.due_us, cause.opener)
            self._fired(parent, above, up, above_cause, outcome)
        else:
            self._note(outcome, parent, up.reason, cause.event, key=above, detail=up.detail)

    def _root_fired(self, node: Leaf | Composite, key: str, step: Step, cause: Cause, outcome: Outcome) -> None:
        automation = node.automation
        tells_of_it = cause.event is not None and tells_of(cause.event, automation.name)
        if cause.depth >= self.max_depth or tells_of_it:
            detail = f"{cause.depth} firings led to it, at most {self.max_depth} are followed"
            self._note(outcome, node, Reason.LOOP, cause.event, key=key, detail=detail)
            if cause.event is not None and not tells_of_it:
                outcome.stopped.append(Stopped(automation.name, cause.event, cause.depth))
            return
        edge = True
        if automation.keeps_state:
            edge = self._store.get(f"{automation.id}~state", key) is None
            self._store.put(f"{automation.id}~state", key, [self.clock_us, step.at_us])
        refs = step.refs or ()
        firing = make_firing(
            node, key, FiringState.TRIGGERED, refs, cause, at_us=step.at_us, edge=edge, lineage=self._lineage
        )
        if isinstance(node, Composite) and any(firing.id == known.id for known in outcome.firings):
            detail = "the event made it fire through another part"
            self._note(outcome, node, Reason.SPENT, cause.event, key=key, detail=detail, firing=firing.id)
            return
        outcome.firings.append(firing)
        self._note(outcome, node, Reason.FIRED, cause.event, key=key, detail=step.detail, firing=firing.id)

    def _resolve_on(self, leaf: Leaf, event: Event, outcome: Outcome) -> None:
        key = leaf.keys.text(event)
        if key is None:
            missing = leaf.keys.missing(event)
            self._note(outcome, leaf, Reason.MISSING_KEY, event, detail=f"resolve_on: the event has no {missing}")
            return
        cause = Cause(event, event.depth, event.time_us)
        self._resolved(leaf, key, (Ref(event.id, event.seq, event.time_us),), cause, outcome, detail="resolve_on")

    def _resolved(
        self, leaf: Leaf, key: str, refs: Sequence[Ref], cause: Cause, outcome: Outcome, *, detail: str
    ) -> bool:
        """End the Triggered state of a key. False when it is not Triggered."""
        automation = leaf.automation
        if self._store.get(f"{automation.id}~state", key) is None:
            return False
        self._store.drop(f"{automation.id}~state", key)
        firing = make_firing(
            leaf, key, FiringState.RESOLVED, refs, cause, at_us=cause.at_us, edge=True, lineage=self._lineage
        )
        outcome.firings.append(firing)
        self._note(outcome, leaf, Reason.RESOLVED, cause.event, key=key, detail=detail, firing=firing.id)
        return True

    # -- the clock

    def _advance(self, now_us: int, outcome: Outcome) -> None:
        self._stop_us = self._moment_us = self.clock_us
        if now_us > self.clock_us:
            self.clock_us = now_us
        if self._unbegun and self.clock_us:
            self._begin()
        if self._store.is_idle(self.clock_us):
            self._moment_us = self.clock_us
            return
        due = self._store.pop_due(self.clock_us)
        while due is not None:
            self._due(*due, outcome)
            due = self._store.pop_due(self.clock_us)
        self._moment_us = self.clock_us
        self._store.collect(self.clock_us, self._expiry)

    def _begin(self) -> None:
        """Open the windows that are watched before any event came."""
        for leaf in self._unbegun.values():
            rule = leaf.rule
            self._begun.add(leaf.id)
            if isinstance(rule, AbsenceRule):
                self._put(leaf, "", absence.begin(rule, now_us=self.clock_us))
            elif isinstance(rule, MetricRule):
                self._put(leaf, "", metric.begin(rule, now_us=self.clock_us))
            elif isinstance(rule, ScheduleRule):
                self._put(leaf, "", [self.clock_us, next_time_us(rule, self.clock_us)])
            elif isinstance(rule, TumblingRule):
                check = f"{leaf.id}~check"
                if self._store.get(check, "") is None:
                    self._store.put(check, "", [self.clock_us, self.clock_us, 1], deadline=self.clock_us)
        self._unbegun = {}

    def _due(self, trigger: str, key: str, state: State, due_us: int, outcome: Outcome) -> None:
        """Do what a deadline asks for."""
        if due_us > self._moment_us:
            self._stop_us, self._moment_us = self._moment_us, due_us
        if trigger == Holding.ID:
            event = self._holding.release(key)
            self._store.drop(trigger, key)
            if event is not None:
                self._decide(event, outcome)
                self._release_followers(event, outcome)
            return
        base, _, kind = trigger.partition("~")
        node = self.rules.nodes.get(base)
        if not isinstance(node, Leaf):
            return
        if kind == "check":
            self._check_buckets(node, trigger, due_us, outcome)
            return
        rule = node.rule
        cause = Cause(None, 0, due_us, due_us)
        if isinstance(rule, ScheduleRule):
            self._schedule_due(node, rule, state, outcome)
            return
        if isinstance(rule, AbsenceRule):
            cause.depth, cause.opener = state[3], state[4]
            step = absence.on_time(rule, state, now_us=self.clock_us)
        elif isinstance(rule, CollectRule):
            step = collecting.on_time(rule, state, now_us=due_us)
            cause.depth = step.depth
            cause.opener = step.refs[0].id if step.refs else ""
        elif isinstance(rule, MetricRule):
            cause.depth = state[4]
            step = metric.on_time(rule, state, now_us=due_us)
        else:
            return
        self._settle(node, key, step, state)
        if step.reason not in (Reason.FIRED, Reason.RESOLVED):
            return
        if self._is_paused(node):
            self._note(outcome, node, Reason.PAUSED, None, key=key, detail="due while the automation is paused")
        else:
            self._conclude(node, key, step, cause, outcome)

    def _schedule_due(self, leaf: Leaf, rule: ScheduleRule, state: State, outcome: Outcome) -> None:
        """Fire for every time that passed, the newest thousand at most."""
        times, due = times_due(rule, state[1], self.clock_us)
        self._put(leaf, "", [self.clock_us, due])
        for at_us in times:
            if self._is_paused(leaf):
                self._note(outcome, leaf, Reason.PAUSED, None, detail="due while the automation is paused")
                continue
            step = Step(Reason.FIRED, None, refs=(), at_us=at_us)
            self._fired(leaf, "", step, Cause(None, 0, at_us, at_us), outcome)

    def _check_buckets(self, leaf: Leaf, trigger: str, due_us: int, outcome: Outcome) -> None:
        """Look at all buckets of a proactive trigger with tumbling windows, as Prefect's periodic check does."""
        rule = leaf.rule
        assert isinstance(rule, TumblingRule)
        now_us = max(due_us, self._moment_us, self.clock_us - _MAX_CHECKS * rule.within_us)
        if now_us > self._moment_us:
            self._stop_us, self._moment_us = self._moment_us, now_us
        opens_itself = not leaf.keys.expressions and not rule.needs_after
        if opens_itself and self._store.get(leaf.id, "") is None:
            bucket = tumbling.begin(rule, now_us=now_us)
            self._put(leaf, "", bucket)
            self._note_end(leaf, rule, "", bucket)
        ends = self._ends.setdefault(leaf.id, BucketEnds())
        for key in ends.take_satisfied():
            state = self._store.get(leaf.id, key)
            if state is not None and tumbling.is_satisfied(rule, state):
                self._store.drop(leaf.id, key)
                ends.forget(key)
        ended = [
            (key, state) for key in ends.take_ended(now_us) if (state := self._store.get(leaf.id, key)) is not None
        ]
        for key, state in sorted(ended, key=lambda item: (item[1][1], item[0])):
            if tumbling.expires_us(state) <= self._stop_us:
                self._store.drop(leaf.id, key)
                continue
            end = state[2]
            step = tumbling.on_time(rule, state, now_us=now_us)
            self._settle(leaf, key, step, state)
            self._note_end(leaf, rule, key, step.state)
            if step.reason is not Reason.FIRED:
                continue
            if self._is_paused(leaf):
                self._note(outcome, leaf, Reason.PAUSED, None, key=key, detail="due while the automation is paused")
            else:
                event = None if step.event is None else Event(step.event[2], step.event[1])
                cause = Cause(event, 0 if event is None else event.depth, now_us, end)
                self._fired(leaf, key, step, cause, outcome)
        again = min(now_us + rule.within_us, ends.next_end() or now_us + rule.within_us)
        watched = opens_itself or self._store.has(leaf.id)
        self._store.put(trigger, "", [now_us, again, int(watched)], deadline=again if watched else None)

    # -- windows

    def _settle(self, node: Leaf | Composite, key: str, step: Step, before: State | None) -> None:
        """Store what a step leaves behind."""
        if not step.changed:
            return
        if step.state is not None:
            self._put(node, key, step.state)
        elif before is not None:
            self._store.drop(node.id, key)

    def _put(self, node: Leaf | Composite, key: str, state: State) -> None:
        fresh = self._store.put(node.id, key, state, deadline=deadline_us(node.id, node, state))
        if fresh:
            self._file_expiry(node, key, state)
            if isinstance(node, Leaf) and isinstance(node.rule, TumblingRule) and node.rule.proactive:
                self._schedule_check(node, node.rule)

    def _file_expiry(self, node: Leaf | Composite, key: str, state: State) -> None:
        if can_expire(node):
            at_us = expires_us(node, state)
            self._store.expire(node.id, key, self.clock_us + LOOK_AGAIN_US if at_us is None else at_us)

    def _note_end(self, leaf: Leaf, rule: TumblingRule, key: str, state: State | None) -> None:
        """Let the checks of a proactive trigger know of a bucket."""
        if not rule.proactive:
            return
        ends = self._ends.get(leaf.id)
        if ends is None:
            ends = self._ends[leaf.id] = BucketEnds()
        if state is None:
            ends.forget(key)
        else:
            ends.note(key, state[2], satisfied=tumbling.is_satisfied(rule, state))

    def _schedule_check(self, leaf: Leaf, rule: TumblingRule) -> None:
        """Have a new bucket looked at by the next check. While there was no bucket, checks went on in steps of `within`."""
        check = f"{leaf.id}~check"
        now_us = self._moment_us
        known = self._store.get(check, "")
        following = now_us + rule.within_us if known is None else known[1]
        if following <= now_us:
            following += ((now_us - following) // rule.within_us + 1) * rule.within_us
        self._store.put(check, "", [now_us, following, 1], deadline=following)

    def _expiry(self, trigger: str, state: State) -> int | None:
        node = self.rules.nodes.get(trigger)
        return None if node is None else expires_us(node, state)

    def _list_unbegun(self) -> None:
        self._unbegun = {
            leaf.id: leaf
            for automation in self.rules.automations.values()
            for leaf in automation.leaves
            if leaf.id not in self._begun and leaf.watches_from_the_start
        }

    # -- decisions

    def _is_paused(self, node: Leaf | Composite) -> bool:
        return node.automation.name in self.paused or not node.automation.enabled

    def _refused(self, rule: Any, leaf: Leaf, role: int, event: Event, outcome: Outcome) -> None:
        refusal = rule.refusal(event)
        if refusal is not None and role == Role.EXPECTED:
            self._note(outcome, leaf, refusal.reason, event, detail=refusal.detail)

    def _note_held(self, event: Event, outcome: Outcome) -> None:
        entries = self.rules.entries
        last: Leaf | None = None
        for number in self.rules.index.candidates(event):
            entry = entries[number]
            if entry.leaf is not last and entry.filter.admits(event):
                last = entry.leaf
                detail = f"waits for event {event.follows}"
                self._note(outcome, entry.leaf, Reason.HELD_FOR_PREDECESSOR, event, detail=detail)

    def _note(
        self,
        outcome: Outcome,
        node: Leaf | Composite,
        reason: Reason,
        event: Event | None,
        *,
        key: str = "",
        detail: str = "",
        firing: str | None = None,
    ) -> None:
        name = node.automation.name
        counted = (name, reason)
        self.counts[counted] = self.counts.get(counted, 0) + 1
        if self.record:
            outcome.decisions.append(
                Decision(
                    automation=name,
                    reason=reason,
                    at_us=self.clock_us,
                    event=None if event is None else event.data["id"],
                    seq=0 if event is None else event.seq,
                    path=node.path,
                    key=key,
                    detail=detail,
                    firing=firing,
                )
            )
