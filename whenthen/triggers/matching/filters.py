"""Whether an event matches the filter of a trigger: name, labels, related resources, computed labels, condition.

`admitted` is fast, and gives the event as the trigger sees it: with its computed labels. `refusal` gives the reason: the label and its value, or the condition. It is called for every candidate of an
event, so it does not analyse the condition; `clause_tree` does, down to the clause and the value. Called by
`triggers.evaluator` for the candidates of the index. Meaning: docs/rules.md, "Which events".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whenthen.conditions import Condition, ConditionError
from whenthen.schemas.events import Event, SeenEvent
from whenthen.schemas.firings import Reason
from whenthen.schemas.times import from_us
from whenthen.triggers.matching.computed_labels import ComputedLabels, LabelFailed
from whenthen.triggers.matching.globs import Glob, any_of, compile_glob

__all__ = ["WHEN_VARIABLES", "Filter", "LabelTest", "Refusal", "compile_filter"]

#: what a condition of a trigger may read
WHEN_VARIABLES = frozenset({"event", "now"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a filter does not admit an event."""

    reason: Reason
    detail: str  #: `match.bucket: "tmp" is not "raw"`
    lacks_label: bool = False  #: a computed label has no value


@dataclass(frozen=True, slots=True)
class LabelTest:
    """A label and the globs of which at least one must match its value."""

    label: str
    globs: tuple[Glob, ...]
    matches: Callable[[str], bool]

    def holds(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.label)
        return value is not None and self.matches(value)

    def failure(self, labels: Mapping[str, str]) -> str:
        value = labels.get(self.label)
        wanted = " or ".join(f'"{glob.text}"' for glob in self.globs[:5]) + (" or ..." if len(self.globs) > 5 else "")
        if value is None:
            return f"{self.label}: the event has no such label, wanted {wanted}"
        return f'{self.label}: "{value[:200]}" is not {wanted}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One filter of a trigger, with all its tests: `expect`, `after` or `resolve_on`."""

    names: tuple[Glob, ...]
    named: Callable[[str], bool]
    labels: tuple[LabelTest, ...]  #: of labels as they come
    related: tuple[tuple[LabelTest, ...], ...]
    computing: ComputedLabels | None
    computed: tuple[LabelTest, ...]  #: of labels that `computing` gives
    condition: Condition | None
    reads_now: bool  #: whether the condition does

    def admits(self, event: Event, now_us: int) -> bool:
        """Whether every test holds; see `admitted`."""
        return self.admitted(event, now_us) is not None

    def admitted(self, event: Event, now_us: int) -> Event | None:
        """The event as the trigger sees it when every test holds, else None. A condition or a computed label that can not be
        evaluated does not hold. `now_us` is their `now`."""
        if not self.named(event.data["event"]):
            return None
        if self.labels:
            labels = event.data["resource"]
            for test in self.labels:
                value = labels.get(test.label)
                if value is None or not test.matches(value):
                    return None
        for tests in self.related:
            if not any(all(test.holds(labels) for test in tests) for labels in event.related):
                return None
        if self.computing is not None:
            try:
                computed = self.computing.of(event, now_us)
            except LabelFailed:
                return None
            if not all(test.holds(computed) for test in self.computed):
                return None
            event = SeenEvent(event, computed)
        if self.condition is not None:
            try:
                if not self.condition.holds(self.variables(event, now_us) if self.reads_now else event.variables):
                    return None
            except ConditionError:
                return None
        return event

    def variables(self, event: Event, now_us: int) -> dict[str, Any]:
        """What the condition sees."""
        return {**event.variables, "now": from_us(now_us)} if self.reads_now else event.variables

    def seen(self, event: Event, now_us: int) -> Event:
        """The event with its computed labels, as far as they have values."""
        if self.computing is None:
            return event
        found = {name: value for name, _, value in self.computing.explain(event, now_us) if isinstance(value, str)}
        return SeenEvent(event, found)

    @property
    def _shown_condition(self) -> str:
        return "" if self.condition is None else " ".join(self.condition.text[:500].split())

    def refusal(self, event: Event, now_us: int) -> Refusal | None:
        """The first test that fails, or None when all hold. None is also given when the name does not match."""
        if not self.named(event.name):
            return None
        for test in self.labels:
            if not test.holds(event.resource):
                return Refusal(Reason.LABEL_MISMATCH, "match." + test.failure(event.resource))
        for index, tests in enumerate(self.related):
            if not any(all(test.holds(labels) for test in tests) for labels in event.related):
                return Refusal(Reason.LABEL_MISMATCH, f"match_related[{index}]: " + _closest(tests, event.related))
        if self.computing is not None:
            try:
                computed = self.computing.of(event, now_us)
            except LabelFailed as failed:
                return Refusal(Reason.CONDITION_ERROR, f"let.{failed.name}: {failed.detail}", lacks_label=True)
            for test in self.computed:
                if not test.holds(computed):
                    return Refusal(Reason.LABEL_MISMATCH, "match." + test.failure(computed))
            event = SeenEvent(event, computed)
        if self.condition is not None:
            try:
                if not self.condition.holds(self.variables(event, now_us)):
                    return Refusal(Reason.CONDITION_FALSE, f"when: {self._shown_condition} is false")
            except ConditionError as error:
                return Refusal(Reason.CONDITION_ERROR, f"when: {error.detail}")
        return None


def compile_filter(
    *,
    names: Sequence[str],
    match: Mapping[str, Sequence[str]],
    related: Sequence[Mapping[str, Sequence[str]]],
    condition: Condition | None,
    computing: ComputedLabels | None = None,
    named: Callable[[str], bool] | None = None,
) -> Filter:
    """Compile the tests of one filter. `named` replaces the globs as the test of names; it must not match what they do not."""
    globs = tuple(compile_glob(name) for name in names)
    tests = _label_tests(match)
    hidden = frozenset[str]() if computing is None else computing.names
    return Filter(
        names=globs,
        named=any_of(globs) if named is None else named,
        labels=tuple(test for test in tests if test.label not in hidden),
        related=tuple(_label_tests(labels) for labels in related if labels),
        computing=computing,
        computed=tuple(test for test in tests if test.label in hidden),
        condition=condition,
        reads_now=condition is not None and condition.reads("now"),
    )


def _label_tests(match: Mapping[str, Sequence[str]]) -> tuple[LabelTest, ...]:
    tests = []
    for label, texts in match.items():
        globs = tuple(compile_glob(text) for text in texts)
        tests.append(LabelTest(label, globs, any_of(globs)))
    return tuple(tests)


def _closest(tests: Sequence[LabelTest], related: Sequence[Mapping[str, str]]) -> str:
    if not related:
        return "the event has no related resources"
    best = max(related, key=lambda labels: sum(test.holds(labels) for test in tests))
    failing = next(test for test in tests if not test.holds(best))
    return failing.failure(best) + f" (closest of {len(related)}: {best.get('id', '?')!r})"
