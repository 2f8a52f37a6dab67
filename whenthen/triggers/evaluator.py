"""The evaluator: events and the clock in; decisions, firings and changed windows out. Pure: no clock, no bus.

    evaluator = Evaluator(RuleSet.compile(automations))
    outcome = evaluator.process(event, now_us)      # first moves the clock, then decides for the event
    outcome.firings                                 # to be acted upon
    evaluator.drain()                               # windows that changed since, to be stored with the firings

The clock is what the caller says it is (the stream's timestamps in the server, the file's times in a replay); it never goes
back. Two evaluators that are given the same events at the same times produce the same firings with the same ids, also when
one of them was stored and restored in between.

Here is the walk of one event: hold it back if it follows another, look up who may want it, filter. What it does to windows is in
`triggers.windowing` and `triggers.buckets`, what the clock does in `triggers.deadlines`, what comes of both in `triggers.firing_outcomes`;
what is remembered from one call to the next in `triggers.shard_state`.

Called by `engine.evaluation.shard_loop` and by `replay`, `test`, `explain`. Meaning: docs/rules.md.
"""

from __future__ import annotations

from whenthen.schemas import Event, Reason
from whenthen.triggers.deadlines import begin, on_deadline
from whenthen.triggers.decisions import Evaluation, Stopped, note
from whenthen.triggers.firing_outcomes import resolve_on
from whenthen.triggers.matching.filters import Filter
from whenthen.triggers.predecessors import Predecessors
from whenthen.triggers.rule_set import EventRole, Leaf
from whenthen.triggers.shard_state import ShardState
from whenthen.triggers.windowing import apply_event

__all__ = ["Evaluation", "Evaluator", "Stopped"]


class Evaluator(ShardState):
    """Decides for one shard: its memory, and the walk of events and the clock over it."""

    def process(self, event: Event, now_us: int) -> Evaluation:
        """Move the clock to `now_us`, then decide for `event`. Deadlines that are due by then come first."""
        outcome = Evaluation()
        self._advance(now_us, outcome)
        self._take(event, outcome)
        return outcome

    def advance(self, now_us: int) -> Evaluation:
        """Move the clock to `now_us` and do what became due."""
        outcome = Evaluation()
        self._advance(now_us, outcome)
        return outcome

    # -- events

    def _take(self, event: Event, outcome: Evaluation) -> None:
        if event.follows is not None:
            state = self._predecessors.hold(event, self.clock_us)
            if state is not None:
                self.store.put(Predecessors.ID, event.id, state, deadline=state[1])
                self._note_held(event, outcome)
                return
        self._decide(event, outcome)
        if self._predecessors.wait_us:
            self._release_followers(event, outcome)

    def _release_followers(self, event: Event, outcome: Evaluation) -> None:
        """Decide for the events that waited for `event`, for those that waited for them, and so on."""
        released = self._predecessors.seen(event, self.clock_us)[::-1]
        while released:  # the next one last; those that waited for it come before the rest
            follower = released.pop()
            self.store.drop(Predecessors.ID, follower.id)
            self._decide(follower, outcome)
            released += self._predecessors.seen(follower, self.clock_us)[::-1]

    def _decide(self, event: Event, outcome: Evaluation) -> None:
        """Decide for every trigger that the event concerns, in the order of the rules."""
        entries = self.rules.entries
        both: Leaf | None = None  #: a leaf with `after` that expects the event; its next entry says if it opens too
        for number in self.rules.index.candidates(event):
            entry = entries[number]
            leaf = entry.leaf
            role = entry.role
            if both is not None and (both is not leaf or role != EventRole.AFTER):
                apply_event(self, both, event, True, False, outcome)
                both = None
            if not entry.filter.admits(event):
                self._refused(entry.filter, leaf, role, event, outcome)
            elif not leaf.automation.enabled or leaf.automation.name in self.paused:
                note(self, outcome, leaf, Reason.PAUSED, event, detail="the automation is paused or disabled")
            elif role == EventRole.RESOLVES:
                resolve_on(self, leaf, event, outcome)
            elif leaf.after is None:
                apply_event(self, leaf, event, True, False, outcome)
            elif role == EventRole.EXPECTED:
                both = leaf
            else:
                apply_event(self, leaf, event, both is leaf, True, outcome)
                both = None
        if both is not None:
            apply_event(self, both, event, True, False, outcome)

    def _refused(self, rule: Filter, leaf: Leaf, role: int, event: Event, outcome: Evaluation) -> None:
        refusal = rule.refusal(event)
        if refusal is not None and role == EventRole.EXPECTED:
            note(self, outcome, leaf, refusal.reason, event, detail=refusal.detail)

    def _note_held(self, event: Event, outcome: Evaluation) -> None:
        entries = self.rules.entries
        last: Leaf | None = None
        for number in self.rules.index.candidates(event):
            entry = entries[number]
            if entry.leaf is not last and entry.filter.admits(event):
                last = entry.leaf
                detail = f"waits for event {event.follows}"
                note(self, outcome, entry.leaf, Reason.HELD_FOR_PREDECESSOR, event, detail=detail)

    # -- the clock

    def _advance(self, now_us: int, outcome: Evaluation) -> None:
        self.stop_us = self.moment_us = self.clock_us
        if now_us > self.clock_us:
            self.clock_us = now_us
        if self.unbegun and self.clock_us:
            begin(self)
        if self.store.is_idle(self.clock_us):
            self.moment_us = self.clock_us
            return
        while (due := self.store.pop_due(self.clock_us)) is not None:
            trigger, key, state, due_us = due
            if due_us > self.moment_us:
                self.stop_us, self.moment_us = self.moment_us, due_us
            if trigger == Predecessors.ID:
                self._stop_holding(key, outcome)
            else:
                on_deadline(self, trigger, key, state, due_us, outcome)
        self.moment_us = self.clock_us
        self.store.collect(self.clock_us, self.expiry)

    def _stop_holding(self, key: str, outcome: Evaluation) -> None:
        """Decide for an event whose predecessor did not come in time, and for those that waited for it."""
        event = self._predecessors.release(key)
        self.store.drop(Predecessors.ID, key)
        if event is not None:
            self._decide(event, outcome)
            self._release_followers(event, outcome)
