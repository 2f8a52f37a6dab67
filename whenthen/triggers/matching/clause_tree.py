"""Why a trigger matches an event or does not: a tree of its clauses, each with its verdict and the actual value.

Pure. Called by `whenthen explain` and by the HTTP API. Meaning: docs/rules.md, "Decisions".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from whenthen.conditions import Verdict, describe
from whenthen.schemas.events import Event
from whenthen.schemas.times import format_duration
from whenthen.triggers.matching.computed_labels import ComputedLabels
from whenthen.triggers.matching.filters import Filter, LabelTest
from whenthen.triggers.trees.trigger_nodes import CompiledAutomation, Composite, EveryRule, Leaf, ScheduleRule
from whenthen.triggers.windows.absence import AbsenceRule
from whenthen.triggers.windows.collecting import CollectRule
from whenthen.triggers.windows.metric import MetricRule
from whenthen.triggers.windows.sliding import SlidingRule
from whenthen.triggers.windows.tumbling import TumblingRule

__all__ = ["Clause", "Mark", "explain_automation", "key_of", "why_not"]


class Mark(StrEnum):
    """The verdict of a clause."""

    HOLDS = "holds"
    FAILS = "fails"
    ERROR = "error"
    NEEDS = "needs"  #: can not be decided from one event: says what the window needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One clause and its child clauses."""

    text: str
    mark: Mark
    found: str = ""  #: the actual value
    children: tuple[Clause, ...] = ()

    def lines(self, depth: int = 0) -> Iterator[tuple[int, Clause]]:
        """This clause and all its descendants with their depths, depth first."""
        yield depth, self
        for child in self.children:
            yield from child.lines(depth + 1)

    def as_json(self) -> dict[str, Any]:
        """The tree as plain JSON."""
        data: dict[str, Any] = {"clause": self.text, "verdict": self.mark.value}
        if self.found:
            data["found"] = self.found
        if self.children:
            data["clauses"] = [child.as_json() for child in self.children]
        return data


def explain_automation(automation: CompiledAutomation, event: Event, *, now_us: int) -> Clause:
    """The whole tree of one automation's trigger for one event; `now_us` is the `now` of its conditions."""
    state = Clause(text="enabled", mark=Mark.HOLDS if automation.model.enabled else Mark.FAILS)
    tree = _node(automation.root, event, now_us)
    return Clause(
        text=f"automation {automation.name}",
        mark=_all([state, tree]),
        children=(state, tree) if not automation.model.enabled else (tree,),
    )


def why_not(automation: CompiledAutomation, event: Event, path: str = "", *, now_us: int) -> list[str]:
    """The innermost clauses that fail, each with the values that it compared; empty when none fails.

    `path` names one trigger of a composite; the whole automation otherwise.
    """
    leaf = next((leaf for leaf in automation.leaves if leaf.path == path), None)
    tree = explain_automation(automation, event, now_us=now_us) if leaf is None else _leaf(leaf, event, now_us)
    return list(_failing(tree))


def _failing(clause: Clause) -> Iterator[str]:
    if clause.mark not in (Mark.FAILS, Mark.ERROR):
        return
    below = [text for child in clause.children for text in _failing(child)]
    if below:
        yield from below
        return
    values = ", ".join(f"{child.text} is {child.found}" for child in clause.children if child.found)
    yield clause.text + (f" ({values})" if values else f", found {clause.found}" if clause.found else "")


def _node(node: Leaf | Composite, event: Event, now_us: int) -> Clause:
    if isinstance(node, Composite):
        parts = [_node(part, event, now_us) for part in node.parts]
        rule = node.rule
        what = "in this order" if rule.ordered else f"{rule.needed} of {rule.parts}"
        within = "" if rule.within_us is None else f", at most {_span(rule.within_us)} apart"
        takes = [part for part in parts if part.mark in (Mark.HOLDS, Mark.NEEDS)]
        alone = rule.needed == 1 and not rule.ordered
        mark = (
            Mark.FAILS if not takes else (Mark.HOLDS if alone and Mark.HOLDS in [p.mark for p in takes] else Mark.NEEDS)
        )
        return Clause(
            text=f"{_place(node.path)}{'sequence' if rule.ordered else 'compound'}: {what}{within}",
            mark=mark,
            found=f"this event can be part of {len(takes)} of {rule.parts}",
            children=tuple(parts),
        )
    return _leaf(node, event, now_us)


def _leaf(leaf: Leaf, event: Event, now_us: int) -> Clause:
    children: list[Clause] = []
    if isinstance(leaf.rule, ScheduleRule):
        return Clause(text=f"{_place(leaf.path)}schedule", mark=Mark.FAILS, found="fires by time, never for an event")
    filters: list[Clause] = []
    if leaf.expected is not None:
        filters.append(_filter("expect", leaf.expected, event, now_us))
    if leaf.after is not None:
        filters.append(_filter("after", leaf.after, event, now_us))
    if leaf.resolving is not None:
        filters.append(_filter("resolve_on", leaf.resolving, event, now_us))
    children += filters[0].children if len(filters) == 1 else filters
    taken = any(clause.mark is Mark.HOLDS for clause in filters)
    key = _key(leaf, event, now_us)
    if key is not None:
        children.append(key)
    window = _window(leaf)
    if window is not None:
        children.append(window)
    if not taken or (key is not None and key.mark is Mark.FAILS):
        mark = Mark.ERROR if any(clause.mark is Mark.ERROR for clause in filters) else Mark.FAILS
    else:
        mark = Mark.HOLDS if window is None else Mark.NEEDS
    kind = "metric" if isinstance(leaf.rule, MetricRule) else "event"
    return Clause(text=f"{_place(leaf.path)}{kind} trigger", mark=mark, children=tuple(children))


def _seen(leaf: Leaf, event: Event, now_us: int) -> Event:
    """The event with the labels that the filter which takes it computes."""
    filters = [rule for rule in (leaf.expected, leaf.after, leaf.resolving) if rule is not None]
    taking = [rule for rule in filters if rule.named(event.name)]
    admitting = [rule for rule in taking if rule.admits(event, now_us)]
    return next(iter([*admitting, *taking, *filters])).seen(event, now_us) if filters else event


def _filter(kind: str, rule: Filter, event: Event, now_us: int) -> Clause:
    wanted = " or ".join(glob.text for glob in rule.names[:8]) + (" or ..." if len(rule.names) > 8 else "")
    clauses = [
        Clause(text=f"{kind}: {wanted}", mark=Mark.HOLDS if rule.named(event.name) else Mark.FAILS, found=event.name)
    ]
    for test in rule.labels:
        clauses.append(_label(f"match.{test.label}", test, event.resource))
    for index, tests in enumerate(rule.related):
        clauses.append(_related(index, tests, event))
    if rule.computing is not None:
        computed = list(_computed(rule.computing, event, now_us))
        clauses += computed
        event = rule.seen(event, now_us)
        if any(clause.mark is Mark.ERROR for clause in computed):
            rest = [f"match.{test.label}" for test in rule.computed] + ["when"] * (rule.condition is not None)
            clauses += [Clause(text=text, mark=Mark.NEEDS, found="not looked at without that label") for text in rest]
            return Clause(text=kind, mark=_all(clauses), children=tuple(clauses))
        clauses += [_label(f"match.{test.label}", test, event.resource) for test in rule.computed]
    if rule.condition is not None:
        clauses.append(_condition(rule.condition.explain(rule.variables(event, now_us)), "when: "))
    return Clause(text=kind, mark=_all(clauses), children=tuple(clauses))


def _label(text: str, test: LabelTest, labels: dict[str, str]) -> Clause:
    wanted = " or ".join(glob.text for glob in test.globs[:8]) + (" or ..." if len(test.globs) > 8 else "")
    value = labels.get(test.label)
    return Clause(
        text=f"{text}: {wanted}",
        mark=Mark.HOLDS if test.holds(labels) else Mark.FAILS,
        found="no such label" if value is None else value,
    )


def _computed(computing: ComputedLabels, event: Event, now_us: int) -> Iterator[Clause]:
    for name, verdict, value in computing.explain(event, now_us):
        text = f"let.{name}: {' '.join(verdict.text.split())}"
        if isinstance(value, str):
            children = tuple(_condition(child) for child in verdict.children)
            yield Clause(text=text, mark=Mark.HOLDS, found=value, children=children)
        else:
            yield Clause(text=text, mark=Mark.ERROR, found=value.detail)


def _related(index: int, tests: tuple[LabelTest, ...], event: Event) -> Clause:
    best: list[Clause] = []
    for labels in event.related:
        clauses = [_label(f"match_related[{index}].{test.label}", test, labels) for test in tests]
        if sum(c.mark is Mark.HOLDS for c in clauses) > sum(c.mark is Mark.HOLDS for c in best) or not best:
            best = clauses
    holds = bool(best) and all(clause.mark is Mark.HOLDS for clause in best)
    return Clause(
        text=f"match_related[{index}]: one related resource with all of these",
        mark=Mark.HOLDS if holds else Mark.FAILS,
        found=f"closest of {len(event.related)}" if best else "no related resources",
        children=tuple(best),
    )


def _condition(verdict: Verdict, prefix: str = "") -> Clause:
    if verdict.error is not None:
        mark, found = Mark.ERROR, verdict.error.detail
    elif verdict.value is True:
        mark, found = Mark.HOLDS, "true"
    elif verdict.value is False:
        mark, found = Mark.FAILS, "false"
    else:
        mark, found = Mark.HOLDS, describe(verdict.value)
    return Clause(
        text=prefix + " ".join(verdict.text.split()),
        mark=mark,
        found=found,
        children=tuple(_condition(child) for child in verdict.children),
    )


def key_of(leaf: Leaf, event: Event, now_us: int) -> str | None:
    """The text of the key that a trigger gives an event, computed labels included; None when the event lacks a value."""
    seen = _seen(leaf, event, now_us)
    buckets = isinstance(leaf.rule, TumblingRule)  # which take the empty text for what is absent
    return leaf.keys.text_or_empty(seen) if buckets else leaf.keys.text(seen)


def _key(leaf: Leaf, event: Event, now_us: int) -> Clause | None:
    if not leaf.keys.expressions:
        return None
    text = key_of(leaf, event, now_us)
    if text is None:
        return Clause(
            text=f"for_each: {', '.join(leaf.keys.expressions)}",
            mark=Mark.FAILS,
            found=f"the event has no {leaf.keys.missing(_seen(leaf, event, now_us))}",
        )
    pairs = ", ".join(f"{name}={value}" for name, value in leaf.keys.mapping(text).items())
    return Clause(text=f"for_each: {', '.join(leaf.keys.expressions)}", mark=Mark.HOLDS, found=pairs)


def _window(leaf: Leaf) -> Clause | None:
    rule = leaf.rule
    after = " after an `after` event opened the window" if leaf.after is not None else ""
    if isinstance(rule, EveryRule):
        return None
    if isinstance(rule, SlidingRule):
        if rule.threshold == 1 and leaf.after is None:
            needs = f"that the key did not fire in the last {_span(rule.cooldown_us)} (cooldown)"
        else:
            quiet = f", and no firing in the last {_span(rule.cooldown_us)}" if rule.cooldown_us else ""
            needs = f"{rule.threshold} such events within {_span(rule.within_us)}{after}{quiet}"
    elif isinstance(rule, TumblingRule):
        comparison = "fewer than " if rule.proactive else ""
        needs = f"{comparison}{rule.threshold} such events in one bucket of {_span(rule.within_us)}{after}"
    elif isinstance(rule, AbsenceRule):
        needs = f"that fewer than {rule.threshold} such events come within {_span(rule.within_us)}{after}"
    elif isinstance(rule, CollectRule):
        needs = f"{rule.events} such events, or {_span(rule.wait_us)} after the first"
    elif isinstance(rule, MetricRule):
        hold = f" for {_span(rule.hold_us)}" if rule.hold_us else ""
        needs = f"{rule.aggregate} over {_span(rule.within_us)} {rule.operator} {rule.threshold:g}{hold}"
    else:
        return None
    return Clause(text="window", mark=Mark.NEEDS, found=needs)


def _all(clauses: list[Clause]) -> Mark:
    for mark in (Mark.ERROR, Mark.FAILS, Mark.NEEDS):
        if any(clause.mark is mark for clause in clauses):
            return mark
    return Mark.HOLDS


def _place(path: str) -> str:
    return f"{path}: " if path else ""


def _span(us: int) -> str:
    return format_duration(timedelta(microseconds=us))
