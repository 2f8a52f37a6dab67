"""The evaluator of one shard: events and times in; decisions, firings and changed windows out. Pure: no clock, no bus.

    evaluator = Evaluator(RuleSet.compile(automations))
    evaluation = evaluator.process(event, now_us)   # advances the clock, then decides for the event
    evaluation.firings                              # to be acted upon
    evaluator.drain()                               # windows changed since, to be stored with the firings

The caller supplies the clock (the stream's timestamps in the server, the file's times in a replay); it never goes
back. Two evaluators that get the same events at the same times produce the same firings with the same ids, also when
one of them was stored and restored in between.

This module holds an event for its predecessor, looks up the candidate triggers and applies their filters. What an event does to
windows is in `triggers.windowing` and `triggers.buckets`, what the clock does in `triggers.deadlines`, how both lead to firings in
`triggers.firing_outcomes`; the state between calls is in `triggers.shard_state`.

Called by `engine.evaluation.shard_loop` and by `replay`, `test`, `explain`. Meaning: docs/rules.md.
"""

from __future__ import annotations

from whenthen.schemas.events import Event
from whenthen.schemas.firings import Reason
from whenthen.triggers.deadlines import on_deadline, open_initial_windows
from whenthen.triggers.decisions import Evaluation, Stopped, record_decision
from whenthen.triggers.firing_outcomes import resolve_on
from whenthen.triggers.matching.filters import Filter
from whenthen.triggers.orphans.gaps import close_gap
from whenthen.triggers.predecessors import Predecessors
from whenthen.triggers.rule_set import FilterKind
from whenthen.triggers.shard_state import ShardState
from whenthen.triggers.trees.trigger_nodes import Leaf
from whenthen.triggers.windowing import apply_event

__all__ = ["Evaluation", "Evaluator", "Stopped"]


class Evaluator(ShardState):
    """The state of one shard, and the decisions for events and times over it."""

    def process(self, event: Event, now_us: int) -> Evaluation:
        """Advance the clock to `now_us`, handling the deadlines until then, and decide for `event`."""
        self.deciding = None
        evaluation = Evaluation()
        self._advance(now_us, evaluation)
        self._apply(event, evaluation)
        return evaluation

    def advance(self, now_us: int) -> Evaluation:
        """Advance the clock to `now_us` and handle the deadlines until then."""
        self.deciding = None
        evaluation = Evaluation()
        self._advance(now_us, evaluation)
        return evaluation

    # -- events

    def _apply(self, event: Event, evaluation: Evaluation) -> None:
        if event.follows is not None:
            state = self._predecessors.hold(event, self.clock_us)
            if state is not None:
                self.store.put(Predecessors.ID, event.id, state, deadline=state[1])
                self._record_held(event, evaluation)
                return
        self._decide(event, evaluation)
        if self._predecessors.wait_us:
            self._release_followers(event, evaluation)

    def _release_followers(self, event: Event, evaluation: Evaluation) -> None:
        """Decide for the events that were held for `event`, then for those held for these, and so on."""
        released = self._predecessors.mark_seen(event, self.clock_us)[::-1]
        while released:  # a stack: the followers of one event are decided before its siblings
            follower = released.pop()
            self.store.drop(Predecessors.ID, follower.id)
            self._decide(follower, evaluation)
            released += self._predecessors.mark_seen(follower, self.clock_us)[::-1]

    def _decide(self, event: Event, evaluation: Evaluation) -> None:
        """Decide for every trigger that the index returns for the event, in the order of the rules."""
        entries = self.rules.entries
        #: a leaf with `after` whose `expect` matched; its next entry tells whether `after` does too
        both: Leaf | None = None
        expected = event  #: as that leaf sees it
        for number in self.rules.index.candidates(event):
            entry = entries[number]
            leaf = self.deciding = entry.leaf
            kind = entry.kind
            if both is not None and (both is not leaf or kind != FilterKind.AFTER):
                apply_event(self, both, expected, True, False, evaluation)
                both = None
            seen = entry.filter.admitted(event, self.effective_us)
            if seen is None:
                self._record_refusal(entry.filter, leaf, kind, event, evaluation)
                continue
            if not leaf.automation.enabled or self.pause_holds(leaf.automation.name):
                detail = "the automation is paused or disabled"
                record_decision(self, evaluation, leaf, Reason.PAUSED, seen, detail=detail)
            elif leaf.automation.name in self.aside:
                detail = f"the automation is set aside: {self.aside[leaf.automation.name].detail}"
                record_decision(self, evaluation, leaf, Reason.PAUSED, seen, detail=detail)
            elif kind == FilterKind.RESOLVES:
                resolve_on(self, leaf, seen, evaluation)
            elif leaf.after is None:
                apply_event(self, leaf, seen, True, False, evaluation)
            elif kind == FilterKind.EXPECTED:
                both, expected = leaf, seen
            else:
                apply_event(self, leaf, seen, both is leaf, True, evaluation)
                both = None
        if both is not None:
            apply_event(self, both, expected, True, False, evaluation)

    def _record_refusal(self, rule: Filter, leaf: Leaf, kind: int, event: Event, evaluation: Evaluation) -> None:
        refusal = rule.refusal(event, self.effective_us)
        if refusal is None:
            return
        if kind == FilterKind.EXPECTED:
            record_decision(self, evaluation, leaf, refusal.reason, event, detail=refusal.detail)
        elif refusal.lacks_label and not (leaf.expected is not None and leaf.expected.named(event.name)):
            detail = f"{'after' if kind == FilterKind.AFTER else 'resolve_on'}: {refusal.detail}"
            record_decision(self, evaluation, leaf, refusal.reason, event, detail=detail)

    def _record_held(self, event: Event, evaluation: Evaluation) -> None:
        entries = self.rules.entries
        last: Leaf | None = None
        for number in self.rules.index.candidates(event):
            entry = entries[number]
            if entry.leaf is not last and entry.filter.admits(event, self.effective_us):
                last = entry.leaf
                detail = f"waits for event {event.follows}"
                record_decision(self, evaluation, entry.leaf, Reason.HELD_FOR_PREDECESSOR, event, detail=detail)

    # -- the clock

    def _advance(self, now_us: int, evaluation: Evaluation) -> None:
        self.previous_us = self.effective_us = self.clock_us
        if now_us > self.clock_us:
            self.clock_us = now_us
        if self.unstarted and self.clock_us:
            open_initial_windows(self)
        if self.orphans.due_us <= self.clock_us:
            self._settle_orphans(evaluation)
        if self.store.is_idle(self.clock_us):
            self.effective_us = self.clock_us
            return
        while (due := self.store.pop_due(self.clock_us)) is not None:
            trigger, key, state, due_us = due
            if due_us > self.effective_us:
                self.previous_us, self.effective_us = self.effective_us, due_us
            if trigger == Predecessors.ID:
                self._on_wait_expired(key, evaluation)
            else:
                on_deadline(self, trigger, key, state, due_us, evaluation)
        self.effective_us = self.clock_us
        self.store.expire_due(self.clock_us, self.expiry)

    def _settle_orphans(self, evaluation: Evaluation) -> None:
        """End the gap of the triggers that came back, and forget the windows of those that were away long enough."""
        returned, evaluation.orphan_notes = self.orphans.settle(self.clock_us)
        for orphan_id in returned:
            automation = self.rules.ids.get(orphan_id)
            for leaf in automation.leaves if automation is not None else ():
                close_gap(self, leaf, evaluation)

    def _on_wait_expired(self, key: str, evaluation: Evaluation) -> None:
        """Decide for an event whose predecessor did not come in time, and for the events held for it."""
        event = self._predecessors.expire(key)
        self.store.drop(Predecessors.ID, key)
        if event is not None:
            self._decide(event, evaluation)
            self._release_followers(event, evaluation)
