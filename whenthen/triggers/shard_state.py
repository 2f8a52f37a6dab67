"""The state of one shard between two calls: rules, clock, windows, held events, paused automations.

It makes no decisions. It stores windows with their deadlines and expiry times, returns the changed ones (`drain`), loads stored
ones (`restore`), and replaces the rule set atomically. Windows of triggers that the rule set does not have are orphans, which
`triggers.orphans` keeps. Deadlines, expiry times and bucket deadlines are derived from the windows:
they are not stored, but recomputed when a window is restored.

`triggers.evaluator.Evaluator` is a subclass; the modules that decide get it as an argument and write their results to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import orjson

from whenthen.schemas.automations import PauseChange
from whenthen.schemas.firings import Reason
from whenthen.triggers.orphans.orphan_store import OrphanStore, orphan_id_of
from whenthen.triggers.predecessors import Predecessors
from whenthen.triggers.rule_set import RuleSet
from whenthen.triggers.timing import can_expire, deadline_us, expires_us, remains_us
from whenthen.triggers.trees.trigger_nodes import Composite, Leaf
from whenthen.triggers.window_store import RECHECK_US, WindowStore
from whenthen.triggers.windows import tumbling
from whenthen.triggers.windows.absence import AbsenceRule
from whenthen.triggers.windows.bucket_deadlines import BucketDeadlines
from whenthen.triggers.windows.collecting import CollectRule
from whenthen.triggers.windows.transitions import State, Transition
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["PAUSED", "SET_ASIDE", "Aside", "ShardState"]

#: under this name a shard keeps which automations were set aside, as windows whose keys are their names
SET_ASIDE = "~aside"
#: under this name it keeps how automations that were ever paused stand
PAUSED = "~paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """An automation that is evaluated no more, as what it left could not be stored."""

    meaning: str  #: the automation's digest, by which an edit is noticed
    at_us: int  #: wall clock
    detail: str


class ShardState:
    """Rules, clock and windows of one shard. Not thread-safe."""

    def __init__(
        self,
        rules: RuleSet,
        *,
        max_depth: int = 8,
        follows_wait: timedelta = timedelta(0),
        orphans_kept: timedelta = timedelta(days=7),
        record: bool = True,
    ) -> None:
        self.rules = rules
        self.max_depth = max_depth
        self.lineage = max_depth + 1  #: the most automations in the lineage of a firing
        self.record = record  #: whether outcomes list decisions; they are counted in any case
        self.clock_us = 0
        self.deciding: Leaf | None = None  #: the trigger that was looked at last, for who finds the evaluator hanging
        self.aside: dict[str, Aside] = {}  #: automations that were set aside
        self.resumed: Mapping[str, int] = {}  #: when each automation was last resumed by somebody, wall clock; shared
        self.effective_us = (
            0  #: the time at which the current decision is made: a deadline's while deadlines are handled
        )
        self.previous_us = 0  #: the value of `effective_us` before the current one
        self.paused: set[str] = set()  #: among them pauses that have ended
        #: when a pause ends by the clock of the stream, for those that end by themselves. So an event counts or does not,
        #: whenever it is evaluated
        self.pauses_end: dict[str, int] = {}
        self._pause_versions: dict[str, int] = {}  #: of the last change of each automation that was ever paused
        self.counts: dict[tuple[str, Reason], int] = {}  #: decisions by automation and reason
        self.store = WindowStore()
        self.orphans = OrphanStore(kept_us=orphans_kept // timedelta(microseconds=1))
        self.bucket_deadlines: dict[str, BucketDeadlines] = {}  #: by id of a proactive trigger with buckets
        self.started: set[str] = set()  #: ids of triggers that have, or had, a window
        self.unstarted: dict[str, Leaf] = {}  #: leaves whose window opens without an event and is not open yet
        self._predecessors = Predecessors(wait_us=follows_wait // timedelta(microseconds=1))
        self._find_unstarted()

    # -- queries of the evaluation loop

    def next_deadline_us(self) -> int | None:
        """When `advance` must be called at the latest if no event comes; 0 when windows wait for a first clock value."""
        if self.unstarted:
            return 0
        due, orphans_due = self.store.next_deadline_us(), self.orphans.next_due_us()
        return due if orphans_due is None else orphans_due if due is None else min(due, orphans_due)

    def wants_all_events(self) -> bool:
        """Whether any event named a predecessor; then every event must be read, to see whether a predecessor arrived."""
        return self._predecessors.in_use

    def holds(self, event_id: str) -> bool:
        """Whether the event with this id is held for its predecessor."""
        return self._predecessors.holds(event_id)

    def remember(self, event_id: str, at_us: int | None = None) -> None:
        """Mark an event as seen at `at_us` (default: now), so that its followers are not held."""
        self._predecessors.remember(event_id, self.clock_us if at_us is None else at_us)

    # -- persistence

    def pending(self) -> int:
        """The number of windows changed since the last `drain`."""
        return self.store.pending() + self.orphans.pending()

    def drain(self) -> list[tuple[str, str, bytes | None]]:
        """Trigger id, key and state of every window changed since the last `drain`; the state is None when it was deleted."""
        return self.store.drain() + self.orphans.drain()

    def restore(self, trigger: str, key: str, state: bytes) -> bool:
        """Load a stored window; as an orphan when no rule has the trigger. False when it is of no use to any rule set: a rule has
        the whole trigger, and no such part in it."""
        value = orjson.loads(state)
        if trigger == SET_ASIDE:
            self.aside[key] = Aside(meaning=value[1], at_us=value[2], detail=value[3])
            self.store.put(trigger, key, value, changed=False)
            self._drop_edited()
            return True
        if trigger == PAUSED:
            self._stand(key, paused=bool(value[1]), end_us=value[2] or None, version=value[3])
            self.store.put(trigger, key, value, changed=False)
            return True
        base = trigger.partition("~")[0]
        if base == Predecessors.ID:
            self._predecessors.restore(key, value)
            self.store.put(trigger, key, value, deadline=value[1], changed=False)
            self.clock_us = max(self.clock_us, value[0])
            return True
        if base == OrphanStore.ID:
            self.orphans.restore(key, value, known=key in self.rules.ids)
            self.clock_us = max(self.clock_us, value[0])
            return True
        node = self.rules.nodes.get(base)
        if node is not None:
            self._take_in(node, trigger, key, value, changed=False)
        elif (orphan_id := orphan_id_of(trigger)) not in self.rules.ids:
            self.orphans.add(orphan_id, trigger, key, state, changed=False)
        else:
            return False
        self.clock_us = max(self.clock_us, value[0])
        return True

    def drop_outlived(self) -> int:
        """Delete windows that a store brought back after they had been deleted; gives how many. To be called when everything is
        restored, before the clock moves.

        A window that is due is decided as soon as the clock moves, and then ends or is due later. So one that was due already when
        the clock moved last was decided and deleted, and must not be decided again. A trigger that just came back is no such case:
        nobody watched.
        """
        dropped = 0
        for trigger, key, state in self.store.overdue(self.clock_us):
            if state[0] >= self.clock_us:
                continue
            if trigger == Predecessors.ID:
                self._predecessors.expire(key)
            else:
                node = self.rules.nodes.get(trigger)
                if not isinstance(node, Leaf) or not isinstance(node.rule, (AbsenceRule, CollectRule)):
                    continue
                if self.orphans.has_returned(orphan_id_of(trigger)):
                    continue
            self.store.drop(trigger, key)
            dropped += 1
        return dropped

    def remains_us(self, trigger: str) -> int | None:
        """How long after it was deleted a record of `trigger` could change a decision if it were there again; None when for ever."""
        base, _, kind = trigger.partition("~")
        if base == Predecessors.ID:
            return self._predecessors.wait_us
        node = self.rules.nodes.get(base)
        return None if node is None or kind not in ("", "held") else remains_us(node)

    def replace_rules(self, rules: RuleSet) -> None:
        """Replace the rule set. Windows of triggers with an unchanged id stay, those of absent triggers become orphans, and orphans
        whose trigger is there again are given back."""
        before, self.rules = self.rules, rules
        for trigger in self.store.triggers():
            base = trigger.partition("~")[0]
            if base and base != Predecessors.ID and base not in rules.nodes:
                orphan_id = orphan_id_of(trigger)
                name = before.ids[orphan_id].name
                for key, state, changed in self.store.take_out(trigger):
                    self.orphans.add(orphan_id, trigger, key, state, automation=name, changed=changed)
        for orphan_id in self.orphans.ids():
            if orphan_id in rules.ids:
                for trigger, key, state, changed in self.orphans.give_back(orphan_id):
                    node = rules.nodes.get(trigger.partition("~")[0])
                    if node is not None:
                        self._take_in(node, trigger, key, orjson.loads(state), changed=changed)
        self.started = {trigger for trigger in self.started if trigger in rules.nodes}
        self.bucket_deadlines = {
            trigger: deadlines for trigger, deadlines in self.bucket_deadlines.items() if trigger in rules.nodes
        }
        self._find_unstarted()
        self._drop_edited()

    # -- automations that were set aside

    def owner(self, trigger: str) -> str | None:
        """The automation of a window; None when it is no automation's."""
        node = self.rules.nodes.get(trigger.partition("~")[0])
        return None if node is None else node.automation.name

    def set_aside(self, automation: str, detail: str, *, at_us: int, windows: Iterable[tuple[str, str]] = ()) -> None:
        """Evaluate an automation no more until it is edited or resumed. `windows` (trigger, key) are dropped, its other ones
        stay as they are."""
        for trigger, key in windows:
            self.store.drop(trigger, key)
        aside = self.aside[automation] = Aside(meaning=self._meaning(automation), at_us=at_us, detail=detail)
        self.store.put(SET_ASIDE, automation, [self.clock_us, aside.meaning, at_us, detail])

    def take_pause(self, change: PauseChange) -> None:
        """Pause or resume an automation from now on. A change that is not newer than the last one says nothing."""
        name = change.automation
        if name in self._pause_versions and change.version <= self._pause_versions[name] and change.version:
            return
        self._stand(name, paused=change.paused, end_us=change.end_us, version=change.version)
        state = [self.clock_us, int(change.paused), change.end_us or 0, change.version]
        self.store.put(PAUSED, name, state)

    def knows_pause(self, automation: str) -> bool:
        """Whether the shard has taken a change of the automation."""
        return automation in self._pause_versions

    def _stand(self, automation: str, *, paused: bool, end_us: int | None, version: int) -> None:
        self._pause_versions[automation] = version
        self.pauses_end.pop(automation, None)
        if not paused:
            self.paused.discard(automation)
            return
        self.paused.add(automation)
        if end_us is not None:
            self.pauses_end[automation] = end_us

    def give_back(self) -> list[str]:
        """Evaluate again those that were resumed since they were set aside; gives their names."""
        back = [name for name, aside in self.aside.items() if self.resumed.get(name, 0) > aside.at_us]
        for name in back:
            self._end_aside(name)
        return back

    def _drop_edited(self) -> None:
        for name, aside in list(self.aside.items()):
            if self._meaning(name) != aside.meaning:
                self._end_aside(name)

    def _end_aside(self, automation: str) -> None:
        del self.aside[automation]
        self.store.drop(SET_ASIDE, automation)

    def _meaning(self, automation: str) -> str:
        """A digest of the whole automation; empty when there is none of that name."""
        found = self.rules.automations.get(automation)
        if found is None:
            return ""
        text = found.model.model_dump_json(by_alias=True)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()

    # -- windows

    def store_transition(self, node: Leaf | Composite, key: str, transition: Transition, before: State | None) -> bool:
        """Store the state after a transition. True when the key is new."""
        if not transition.changed:
            return False
        if transition.state is not None:
            return self.put(node, key, transition.state)
        if before is not None:
            self.store.drop(node.id, key)
        return False

    def put(self, node: Leaf | Composite, key: str, state: State) -> bool:
        """Store the state of a window. True when the key is new."""
        fresh = self.store.put(node.id, key, state, deadline=deadline_us(node.id, node, state))
        if fresh:
            self._schedule_expiry(node, key, state)
        return fresh

    def track_bucket(self, leaf: Leaf, rule: TumblingRule, key: str, state: State | None) -> None:
        """Register a bucket's deadline for the checks of a proactive trigger; `state` is None when the key has no bucket."""
        deadlines = self.bucket_deadlines.get(leaf.id)
        if deadlines is None:
            deadlines = self.bucket_deadlines[leaf.id] = BucketDeadlines()
        if state is None:
            deadlines.forget(key)
        else:
            deadlines.track(key, state[2], satisfied=tumbling.is_satisfied(rule, state))

    def expiry(self, trigger: str, state: State) -> int | None:
        """When a window can be deleted; None while that is not known."""
        node = self.rules.nodes.get(trigger)
        return None if node is None else expires_us(node, state)

    def is_paused(self, node: Leaf | Composite) -> bool:
        """Whether the automation is paused, set aside or disabled."""
        name = node.automation.name
        return self.pause_holds(name) or name in self.aside or not node.automation.enabled

    def pause_holds(self, automation: str) -> bool:
        """Whether somebody paused the automation, and the pause has not ended at the time of the decision."""
        if automation not in self.paused:
            return False
        end_us = self.pauses_end.get(automation)
        return end_us is None or self.effective_us < end_us

    def _take_in(self, node: Leaf | Composite, trigger: str, key: str, state: State, *, changed: bool) -> None:
        """Put a record of `node` that was stored, or was an orphan, among the windows."""
        if not trigger.endswith("~state"):
            self.started.add(node.id)
            self.unstarted.pop(node.id, None)
        self.store.put(trigger, key, state, deadline=deadline_us(trigger, node, state), changed=changed)
        if node.id == trigger:
            self._schedule_expiry(node, key, state)
            if isinstance(node, Leaf) and isinstance(node.rule, TumblingRule) and node.rule.proactive:
                self.track_bucket(node, node.rule, key, state)

    def _schedule_expiry(self, node: Leaf | Composite, key: str, state: State) -> None:
        if can_expire(node):
            at_us = expires_us(node, state)
            self.store.schedule_expiry(node.id, key, self.clock_us + RECHECK_US if at_us is None else at_us)

    def _find_unstarted(self) -> None:
        self.unstarted = {
            leaf.id: leaf
            for automation in self.rules.automations.values()
            for leaf in automation.leaves
            if leaf.id not in self.started and leaf.starts_without_event
        }
