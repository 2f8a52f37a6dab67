"""Which firings would other rules have made of the same events? Two sets of rules over one stream, line by line. Pure.

    diff = ReplayDiff(before, after)
    for change in diff.changes(lines): ...
    diff.totals

Both begin without windows, at the first line, so what differs comes of the rules alone. Of a line (an event, or a moment at which something is
due) the firings of both are compared: by id, else by automation, key and state, as an edited trigger gives other ids. What only one of them has is
lost or gained, and the decision of the one that did not fire says why. Held are the windows of both, and the outcome of one line.

Called by `whenthen replay --diff`. Meaning: docs/testing.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from whenthen.rules.replay import ReplayRun, RuleSource, Skipped, end_of, printed_firing
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Decision, Firing, Reason
from whenthen.triggers import Evaluation
from whenthen.triggers.explaining import why_not

__all__ = ["DiffTotals", "Difference", "FiringChange", "ReplayDiff"]

#: of a firing, beside its id, automation, key and state
_COMPARED = ("at", "event", "events", "total")


class Difference(StrEnum):
    GAINED = "gained"  #: the rules after make a firing that the ones before do not
    LOST = "lost"
    CHANGED = "changed"  #: both fire for the same event and key, not in the same way


@dataclass(slots=True)
class DiffTotals:
    """What was counted, as far as the lines were read."""

    lines: int = 0
    events: int = 0
    same: int = 0
    gained: int = 0
    lost: int = 0
    changed: int = 0

    @property
    def differ(self) -> bool:
        return bool(self.gained or self.lost or self.changed)

    def as_json(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class FiringChange:
    """One firing that differs, as the rules before and after make it (`rules.replay.printed_firing`)."""

    difference: Difference
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    reason: str = ""  #: why the other rules did not fire
    clause: str = ""  #: which clause decided that, with the values that it compared
    fields: tuple[str, ...] = ()  #: that changed

    def as_json(self) -> dict[str, Any]:
        shown = self.after or self.before or {}
        data = {
            "difference": self.difference.value,
            "automation": shown["automation"],
            "key": shown["key"],
            "event": shown["event"],
            "before": self.before,
            "after": self.after,
        }
        if self.difference is Difference.CHANGED:
            return {**data, "fields": list(self.fields)}
        return {**data, "reason": self.reason, "clause": self.clause}


class ReplayDiff:
    """Two sets of rules, and the firings that differ. Markers of rules among the lines put none in force.

    Raises:
        InvalidInput: `until` or `format` is none.
    """

    def __init__(
        self,
        before: RuleSource,
        after: RuleSource,
        *,
        until: str | None = None,
        format: str = "native",
        skips: Sequence[Skipped] = (),
    ) -> None:
        self.totals = DiffTotals()  #: as far as the lines were read
        self._end = end_of(until)
        self._old, self._new = (
            ReplayRun(rules.automations, format, decisions=True, skips=skips, revisions=None)
            for rules in (before, after)
        )

    def changes(self, lines: Iterable[bytes | str]) -> Iterator[FiringChange]:
        """The firings that differ, in the order in which they happen.

        Raises:
            InvalidInput: as `replay` does.
        """
        old, new = self._old, self._new
        for number, line in enumerate(lines, start=1):
            outcomes = old.step(number, line), new.step(number, line)
            self.totals.lines += 1
            self.totals.events += new.event is not None
            yield from _compared(_Side(old, outcomes[0]), _Side(new, outcomes[1]), self.totals)
        yield from _compared(_Side(old, old.go_on_to(self._end)), _Side(new, new.go_on_to(self._end)), self.totals)


class _Side:
    """What one set of rules made of one line."""

    def __init__(self, run: ReplayRun, outcomes: Sequence[Evaluation]) -> None:
        self.run = run
        self.firings = [firing for outcome in outcomes for firing in outcome.firings]
        self._outcomes = outcomes

    def why_not(self, firing: Firing) -> tuple[str, str]:
        """Why these rules did not make a firing that the others made: the reason, and the clause."""
        compiled = self.run.automation(firing.automation)
        if compiled is None:
            return "absent", "the automation is not in these rules"
        event_id = None if firing.event is None else firing.event["id"]
        found = [
            decision
            for outcome in self._outcomes
            for decision in outcome.decisions
            if decision.automation == firing.automation and decision.reason is not Reason.FIRED
        ]
        about = [decision for decision in found if decision.event == event_id]
        event = self.run.event
        clauses = _clauses_of(self.run, firing, event)
        if about:
            decision = _nearest(about, firing)
            return decision.reason.value, decision.detail or "; ".join(clauses)
        if clauses:
            return "no_match", "; ".join(clauses)
        if found:
            decision = _nearest(found, firing)
            return decision.reason.value, decision.detail
        if firing.event is None:
            return "not_due", "nothing was due for this key at that moment"
        return "not_due", "it decided nothing for this event: it counted earlier, or counts later"


def _nearest(decisions: Sequence[Decision], firing: Firing) -> Decision:
    """Of several decisions, the last about the key of the firing; else the last."""
    values = list(map(str, firing.key.values()))
    keyed = [each for each in decisions if values and all(value in each.key for value in values)]
    return (keyed or decisions)[-1]


def _clauses_of(run: ReplayRun, firing: Firing, event: Event | None) -> list[str]:
    compiled = run.automation(firing.automation)
    if compiled is None or event is None or firing.event is None or event.id != firing.event["id"]:
        return []
    return why_not(compiled, event, now_us=run.clock_us)


def _compared(old: _Side, new: _Side, totals: DiffTotals) -> Iterator[FiringChange]:
    if not old.firings and not new.firings:
        return
    rest = {firing.id: firing for firing in new.firings}
    pairs: list[tuple[Firing, Firing]] = []
    alone: list[Firing] = []
    for firing in old.firings:
        same = rest.pop(firing.id, None)
        if same is None:
            alone.append(firing)
        else:
            pairs.append((firing, same))
    by_place: dict[bytes, list[Firing]] = {}
    for firing in rest.values():
        by_place.setdefault(_place(firing), []).append(firing)
    for firing in alone:
        others = by_place.get(_place(firing))
        if others:
            pairs.append((firing, others.pop(0)))
            continue
        totals.lost += 1
        reason, clause = new.why_not(firing)
        yield FiringChange(
            difference=Difference.LOST, before=printed_firing(firing), after=None, reason=reason, clause=clause
        )
    for firing in (each for others in by_place.values() for each in others):
        totals.gained += 1
        reason, clause = old.why_not(firing)
        yield FiringChange(
            difference=Difference.GAINED, before=None, after=printed_firing(firing), reason=reason, clause=clause
        )
    for one, other in pairs:
        first, second = printed_firing(one), printed_firing(other)
        fields = tuple(name for name in _COMPARED if first.get(name) != second.get(name))
        if not fields:
            totals.same += 1
            continue
        totals.changed += 1
        yield FiringChange(difference=Difference.CHANGED, before=first, after=second, fields=fields)


def _place(firing: Firing) -> bytes:
    """What two firings of one line have in common that stand for each other."""
    return orjson.dumps([firing.automation, firing.key, firing.state])
