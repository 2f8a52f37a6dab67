"""What an automation remembers for the key of an event, and what was missing for it to fire. Pure.

    views = window_views(evaluator, automation, event)      # before and after `evaluator.process(event, ...)`
    what_was_missing(automation, decision, views, event=event)

Called by `rules.recorded`. Which clause of a filter failed is said in `triggers.matching.clause_tree`, whose names are here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from whenthen.schemas.events import Event
from whenthen.schemas.firings import Decision, Reason, Ref
from whenthen.schemas.times import format_duration, format_time, from_us
from whenthen.triggers.matching.clause_tree import Clause, explain_automation, key_of, why_not
from whenthen.triggers.matching.filters import Filter
from whenthen.triggers.shard_state import ShardState
from whenthen.triggers.timing import deadline_us, expires_us
from whenthen.triggers.trees.trigger_nodes import CompiledAutomation, Composite, Leaf, ScheduleRule
from whenthen.triggers.window_keys import key_text, parse_key_text
from whenthen.triggers.windows.absence import AbsenceRule
from whenthen.triggers.windows.collecting import CollectRule
from whenthen.triggers.windows.metric import MetricRule
from whenthen.triggers.windows.sliding import SlidingRule
from whenthen.triggers.windows.transitions import State
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = [
    "Clause",
    "WindowView",
    "explain_automation",
    "key_of",
    "memory_us",
    "nodes_of",
    "stored_view",
    "what_was_missing",
    "why_not",
    "window_views",
]

MOST_EVENTS = 20  #: of a window that are shown, the newest
_NUMBERS = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowView:
    """What one trigger remembers for one key."""

    path: str  #: of the trigger in a composite; empty for the root
    key: str
    kind: str  #: sliding, absence, tumbling, collect, metric, compound, sequence
    count: int = 0  #: events, or parts that fired
    needed: int = 0  #: how many would do; 0 where that is no number of events
    events: tuple[Ref, ...] = ()  #: the newest of them
    opened_us: tuple[int, ...] = ()  #: when windows that are open were opened by `after` events
    ends_us: int | None = None  #: when the window ends, or the clock has it looked at again
    quiet_until_us: int = 0  #: no firing before, after an earlier one
    parts: tuple[str, ...] = ()  #: of a composite, the paths of the parts that fired


def window_views(
    shard: ShardState, automation: CompiledAutomation, key_of: Callable[[Leaf], str | None]
) -> list[WindowView]:
    """What the automation remembers for a key, of which `key_of` gives the text for each trigger; None where it has none."""
    views: list[WindowView] = []
    seen: set[tuple[str, str]] = set()
    for leaf in automation.leaves:
        key = key_of(leaf)
        if key is None:
            continue
        state = shard.store.get(leaf.id, key)
        if state is not None and not _expired(shard, leaf, state):
            views.append(_leaf_view(leaf, key, state))
        above: Composite | None = leaf.parent
        while above is not None:
            key = key_text(parse_key_text(key)[: above.correlated]) if above.correlated else ""
            if (above.id, key) not in seen:
                seen.add((above.id, key))
                state = shard.store.get(above.id, key)
                if state is not None and not _expired(shard, above, state):
                    views.append(_composite_view(above, key, state))
            above = above.parent
    return views


def nodes_of(automation: CompiledAutomation) -> list[Leaf | Composite]:
    """Its triggers, each of which has windows of its own."""
    return [*automation.leaves, *automation.composites]


def stored_view(
    automation: CompiledAutomation, trigger: str, key: str, state: State, *, now_us: int
) -> WindowView | None:
    """What a stored window holds; None for one that is over, and for what is no window of the automation but belongs to one."""
    for node in nodes_of(automation):
        if node.id == trigger:
            at_us = expires_us(node, state)
            if at_us is not None and at_us <= now_us:
                return None
            return _leaf_view(node, key, state) if isinstance(node, Leaf) else _composite_view(node, key, state)
    return None


def memory_us(automation: CompiledAutomation) -> int | None:
    """After how long without an event for a key nothing of the key is left that matters; None when something stays without limit."""
    longest = 0
    for composite in automation.composites:
        if composite.rule.within_us is None and not (composite.rule.needed == 1 and not composite.rule.ordered):
            return None
        longest = max(longest, 2 * (composite.rule.within_us or 0))
    for leaf in automation.leaves:
        rule = leaf.rule
        if isinstance(rule, SlidingRule):
            mine = max(2 * rule.within_us, rule.cooldown_us + max(rule.within_us, rule.cooldown_us))
        elif isinstance(rule, AbsenceRule):
            mine = 2 * rule.within_us + rule.cooldown_us
        elif isinstance(rule, TumblingRule):
            mine = 2 * rule.within_us + 16 * 60_000_000
        elif isinstance(rule, CollectRule):
            mine = rule.wait_us + rule.cooldown_us
        elif isinstance(rule, MetricRule):
            mine = 2 * rule.within_us + rule.hold_us
        else:
            mine = 0
        longest = max(longest, mine)
    return longest


def what_was_missing(
    automation: CompiledAutomation,
    decision: Decision | None,
    views: Sequence[WindowView],
    *,
    event: Event | None,
    now_us: int,
) -> list[str]:
    """The smallest thing that would have made it fire, in a sentence or two; empty when it fired or nothing is known.

    `decision` is None when the trigger was not even looked at for the event; `views` are the windows after it.
    """
    if decision is None:
        return [] if event is None else _first_clauses(automation, event, "", now_us)
    reason = decision.reason
    if reason in (Reason.LABEL_MISMATCH, Reason.CONDITION_FALSE, Reason.CONDITION_ERROR) and event is not None:
        return _first_clauses(automation, event, decision.path, now_us) or [decision.detail]
    view = next((each for each in views if each.path == decision.path and each.key == decision.key), None)
    leaf = next((each for each in automation.leaves if each.path == decision.path), None)
    if leaf is not None and isinstance(leaf.rule, SlidingRule) and reason in (Reason.BELOW_THRESHOLD, Reason.SPENT):
        return _too_few(leaf, leaf.rule, view, event) or [decision.detail]
    if reason is Reason.COOLDOWN and view is not None and view.quiet_until_us:
        return [f"quiet until {_clock(view.quiet_until_us)} after a firing ({decision.detail})"]
    if reason is Reason.WAITING_FOR_AFTER and leaf is not None and leaf.after is not None:
        within = getattr(leaf.rule, "within_us", 0)
        return [f"no {_names(leaf.after)} of the same key came in the {_span(within)} before it"]
    if reason is Reason.WAITING_FOR_SIBLING and view is not None:
        composite = next((each for each in automation.composites if each.path == decision.path), None)
        if composite is not None:
            return [_missing_parts(composite, view)]
    if (
        reason is Reason.OPENED
        and view is not None
        and view.kind == "absence"
        and view.ends_us
        and leaf
        and leaf.expected
    ):
        return [f"the window is open: it fires at {_clock(view.ends_us)} unless {_names(leaf.expected)} comes before"]
    if reason in (Reason.OPENED, Reason.EXPECTED, Reason.COLLECTING, Reason.BELOW_THRESHOLD) and view is not None:
        ends = f"; looked at again at {_clock(view.ends_us)}" if view.ends_us else ""
        return [f"{decision.detail or reason.value}{ends}"]
    return [decision.detail] if decision.detail and reason is not Reason.FIRED else []


def _first_clauses(automation: CompiledAutomation, event: Event, path: str, now_us: int) -> list[str]:
    """The clauses that failed, of the trigger that was nearest."""
    leaves = [leaf for leaf in automation.leaves if not path or leaf.path == path]
    named = [leaf for leaf in leaves if any(rule.named(event.name) for rule in _filters(leaf))]
    if named:
        return why_not(automation, event, named[0].path, now_us=now_us)[:3]
    wanted = sorted({glob.text for leaf in automation.leaves for rule in _filters(leaf) for glob in rule.names})
    return [f"expect: {' or '.join(wanted[:8])}{' or ...' if len(wanted) > 8 else ''}, found {event.name}"]


def _filters(leaf: Leaf) -> Iterator[Filter]:
    for rule in (leaf.expected, leaf.after, leaf.resolving):
        if rule is not None:
            yield rule


def _too_few(leaf: Leaf, rule: SlidingRule, view: WindowView | None, event: Event | None) -> list[str]:
    """`2 of 3 order.failed within 10m; the third would have had to come before 12:04:10`."""
    if view is None or event is None or not view.events:
        return []
    start = event.time_us - rule.within_us
    near = [ref for ref in view.events if start < ref.time_us < event.time_us + rule.within_us]
    # the span that holds the event and most others
    best: list[Ref] = []
    for first in near:
        inside = [ref for ref in near if first.time_us <= ref.time_us < first.time_us + rule.within_us]
        if len(inside) > len(best):
            best = inside
    if not best or len(best) >= rule.threshold:
        return []
    lack = rule.threshold - len(best)
    which = f"the {_NUMBERS[rule.threshold]}" if lack == 1 and rule.threshold in _NUMBERS else f"{lack} more"
    what = _names(leaf.expected) if leaf.expected is not None else "events"
    return [
        f"{len(best)} of {rule.threshold} {what} within {_span(rule.within_us)}; {which} would have had to come before "
        f"{_clock(best[0].time_us + rule.within_us)}"
    ]


def _missing_parts(composite: Composite, view: WindowView) -> str:
    waits = [part.path for part in composite.parts if part.path not in view.parts]
    within = composite.rule.within_us
    until = f" by {_clock(view.ends_us)}" if within is not None and view.ends_us else ""
    return f"{view.count} of {composite.rule.needed} parts fired; {', '.join(waits[:5])} would have had to fire{until}"


def _names(rule: Filter) -> str:
    texts = [glob.text for glob in rule.names[:3]]
    return " or ".join(texts) + (" or ..." if len(rule.names) > 3 else "")


def _expired(shard: ShardState, node: Leaf | Composite, state: State) -> bool:
    at_us = expires_us(node, state)
    return at_us is not None and at_us <= shard.clock_us


def _leaf_view(leaf: Leaf, key: str, state: State) -> WindowView:
    rule = leaf.rule
    ends = deadline_us(leaf.id, leaf, state)
    if isinstance(rule, SlidingRule):
        return WindowView(
            path=leaf.path,
            key=key,
            kind="sliding",
            count=(len(state) - 4) // 3,
            needed=rule.threshold,
            events=_refs(state, 4, 3),
            opened_us=tuple(state[3] or ())[-MOST_EVENTS:],
            quiet_until_us=state[1],
        )
    if isinstance(rule, AbsenceRule):
        return WindowView(
            path=leaf.path,
            key=key,
            kind="absence",
            count=(len(state) - 5) // 3,
            needed=rule.threshold,
            events=_refs(state, 5, 3),
            opened_us=(state[1],) if state[2] else (),
            ends_us=ends,
            quiet_until_us=0 if state[2] else state[1],
        )
    if isinstance(rule, TumblingRule):
        return WindowView(
            path=leaf.path,
            key=key,
            kind="tumbling",
            count=state[3],
            needed=rule.threshold,
            opened_us=(state[1],),
            ends_us=state[2],
        )
    if isinstance(rule, CollectRule):
        return WindowView(
            path=leaf.path, key=key, kind="collect", count=(len(state) - 5) // 3, needed=rule.events,
            events=_refs(state, 5, 3), ends_us=ends,
        )  # fmt: skip
    if isinstance(rule, MetricRule):
        return WindowView(
            path=leaf.path, key=key, kind="metric", count=(len(state) - 6) // 4, events=_refs(state, 6, 4), ends_us=ends
        )
    kind = "schedule" if isinstance(rule, ScheduleRule) else "event"
    return WindowView(path=leaf.path, key=key, kind=kind, ends_us=ends)


def _composite_view(node: Composite, key: str, state: State) -> WindowView:
    fired: dict[str, Any] = state[1]
    refs: list[Ref] = []
    for entry in fired.values():
        flat = entry[2]
        refs += [Ref(flat[i + 2], flat[i + 1], flat[i]) for i in range(0, len(flat), 3)]
    within = node.rule.within_us
    oldest = min((entry[0] for entry in fired.values()), default=0)
    return WindowView(
        path=node.path,
        key=key,
        kind="sequence" if node.rule.ordered else "compound",
        count=len(fired),
        needed=node.rule.needed,
        events=tuple(sorted(refs, key=lambda ref: ref.time_us)[-MOST_EVENTS:]),
        ends_us=oldest + within if within is not None and fired else None,
        parts=tuple(part.path for part in node.parts if str(part.part) in fired),
    )


def _refs(state: State, head: int, step: int) -> tuple[Ref, ...]:
    first = max(head, len(state) - step * MOST_EVENTS)
    return tuple(Ref(state[i + 2], state[i + 1], state[i]) for i in range(first, len(state), step))


def _clock(us: int) -> str:
    return format_time(from_us(us)).replace(".000000Z", "Z")


def _span(us: int) -> str:
    return format_duration(timedelta(microseconds=us))
