"""What an evaluator knows between two calls: the rules, the clock, the windows, held events, which automations are paused.

It decides nothing. It keeps windows with their deadlines and expiry, gives those that changed to be stored (`drain`), takes
stored ones back (`restore`), and swaps the rules whole. What can be derived from the windows is not stored but restored with them:
deadlines, expiry, ends of buckets.

`triggers.evaluator.Evaluator` is one; the modules that decide for it are given it and keep their results in it.
"""

from __future__ import annotations

from datetime import timedelta

import orjson

from whenthen.schemas import Reason
from whenthen.triggers.bucket_deadlines import BucketDeadlines
from whenthen.triggers.predecessors import Predecessors
from whenthen.triggers.rule_set import Composite, Leaf, RuleSet
from whenthen.triggers.timing import can_expire, deadline_us, expires_us
from whenthen.triggers.window_store import LOOK_AGAIN_US, WindowStore
from whenthen.triggers.windows import tumbling
from whenthen.triggers.windows.transitions import State, Transition
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["ShardState"]


class ShardState:
    """Rules, clock and memory of one shard. Not thread-safe; the caller owns it."""

    def __init__(
        self, rules: RuleSet, *, max_depth: int = 8, follows_wait: timedelta = timedelta(0), record: bool = True
    ) -> None:
        self.rules = rules
        self.max_depth = max_depth
        self.lineage = max_depth + 1  #: automations that a firing names as having led to it
        self.record = record  #: whether outcomes list decisions; they are counted in any case
        self.clock_us = 0
        self.moment_us = 0  #: the clock of what is being decided: a deadline's time while the clock passes it
        self.stop_us = 0  #: the moment before this one at which the clock stood
        self.paused: set[str] = set()
        self.counts: dict[tuple[str, Reason], int] = {}  #: decisions by automation and reason
        self.store = WindowStore()
        self.ends: dict[str, BucketDeadlines] = {}  #: of proactive triggers with buckets
        self.begun: set[str] = set()  #: triggers that have, or had, a window
        self.unbegun: dict[str, Leaf] = {}  #: leaves that are watched from the start, and have no window yet
        self._predecessors = Predecessors(wait_us=follows_wait // timedelta(microseconds=1))
        self._list_unbegun()

    # -- what the shell asks

    def next_deadline_us(self) -> int | None:
        """When `advance` should be called at the latest if no event comes; 0 when a first look at the clock is needed."""
        if self.unbegun:
            return 0
        return self.store.next_deadline_us()

    def wants_all_events(self) -> bool:
        """Whether events were seen that name a predecessor: to tell whether it came, all events are needed."""
        return self._predecessors.in_use

    def holds(self, event_id: str) -> bool:
        """Whether an event of this id waits for the one that it follows."""
        return self._predecessors.holds(event_id)

    def remember(self, event_id: str, at_us: int | None = None) -> None:
        """Note that an event came before, at `at_us` or now, so that its followers are not held."""
        self._predecessors.note(event_id, self.clock_us if at_us is None else at_us)

    # -- storing and taking back

    def pending(self) -> int:
        """How many windows changed since the last `drain`."""
        return self.store.pending()

    def drain(self) -> list[tuple[str, str, bytes | None]]:
        """Trigger id, key and state of every window that changed; the state is None when it was forgotten."""
        return self.store.drain()

    def restore(self, trigger: str, key: str, state: bytes) -> bool:
        """Take back a stored window. False when no rule knows the trigger any more (then it can be deleted)."""
        value = orjson.loads(state)
        base = trigger.partition("~")[0]
        if base == Predecessors.ID:
            self._predecessors.restore(key, value)
            self.store.put(trigger, key, value, deadline=value[1], changed=False)
            self.clock_us = max(self.clock_us, value[0])
            return True
        node = self.rules.nodes.get(base)
        if node is None:
            return False
        if not trigger.endswith("~state"):
            self.begun.add(base)
            self.unbegun.pop(base, None)
        self.store.put(trigger, key, value, deadline=deadline_us(trigger, node, value), changed=False)
        if base == trigger:
            self._file_expiry(node, key, value)
            if isinstance(node, Leaf) and isinstance(node.rule, TumblingRule) and node.rule.proactive:
                self.note_bucket(node, node.rule, key, value)
        self.clock_us = max(self.clock_us, value[0])
        return True

    def replace_rules(self, rules: RuleSet) -> None:
        """Swap the rules whole. Windows of triggers that mean the same stay; those of others are forgotten."""
        self.rules = rules
        for trigger in self.store.triggers():
            base = trigger.partition("~")[0]
            if base != Predecessors.ID and base not in rules.nodes:
                self.store.forget(trigger)
        self.begun = {trigger for trigger in self.begun if trigger in rules.nodes}
        self.ends = {trigger: ends for trigger, ends in self.ends.items() if trigger in rules.nodes}
        self._list_unbegun()

    # -- windows

    def settle(self, node: Leaf | Composite, key: str, step: Transition, before: State | None) -> bool:
        """Store what a step leaves behind. True when the key is new."""
        if not step.changed:
            return False
        if step.state is not None:
            return self.put(node, key, step.state)
        if before is not None:
            self.store.drop(node.id, key)
        return False

    def put(self, node: Leaf | Composite, key: str, state: State) -> bool:
        """Store the state of a window. True when the key is new."""
        fresh = self.store.put(node.id, key, state, deadline=deadline_us(node.id, node, state))
        if fresh:
            self._file_expiry(node, key, state)
        return fresh

    def note_bucket(self, leaf: Leaf, rule: TumblingRule, key: str, state: State | None) -> None:
        """Let the checks of a proactive trigger know of a bucket, or that the key has none any more."""
        ends = self.ends.get(leaf.id)
        if ends is None:
            ends = self.ends[leaf.id] = BucketDeadlines()
        if state is None:
            ends.forget(key)
        else:
            ends.note(key, state[2], satisfied=tumbling.is_satisfied(rule, state))

    def expiry(self, trigger: str, state: State) -> int | None:
        """When a window can be forgotten; None while that can not be said."""
        node = self.rules.nodes.get(trigger)
        return None if node is None else expires_us(node, state)

    def is_paused(self, node: Leaf | Composite) -> bool:
        """Whether the automation fires nothing now."""
        return node.automation.name in self.paused or not node.automation.enabled

    def _file_expiry(self, node: Leaf | Composite, key: str, state: State) -> None:
        if can_expire(node):
            at_us = expires_us(node, state)
            self.store.expire(node.id, key, self.clock_us + LOOK_AGAIN_US if at_us is None else at_us)

    def _list_unbegun(self) -> None:
        self.unbegun = {
            leaf.id: leaf
            for automation in self.rules.automations.values()
            for leaf in automation.leaves
            if leaf.id not in self.begun and leaf.watches_from_the_start
        }
