"""Computed labels: the values that the `let` of a trigger gives an event.

An expression sees the event's own labels and those computed ones that it names, whatever their order; under its own name it sees the
event's label. So what a set of expressions means does not depend on how it is sorted. A value is text, or a number or
boolean as JSON writes it, and is a label like any other: as long at most, and without control characters. Each expression has the budget
of a condition.

Called by `filters` for an event whose other labels match, by `clause_tree` for explanations, and by `trees.trigger_compiler` at load. Meaning:
docs/rules.md, "Computed labels".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from whenthen.conditions import Condition, ConditionError, OptionalValue, Uint, Verdict, describe
from whenthen.schemas.base import CONTROL
from whenthen.schemas.errors import InvalidInput, RenderError
from whenthen.schemas.events import Event, EventLimits
from whenthen.schemas.times import from_us
from whenthen.templates import scalar_text

__all__ = ["MOST_LABELS", "ComputedLabels", "LabelFailed", "compute_labels"]

MOST_LABELS = 16  #: of one trigger, with those of the composites that it is part of
_MOST_CHARS = EventLimits().label_chars


class LabelFailed(Exception):
    """A computed label has no value for an event."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail)
        self.name = name
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class _Let:
    name: str
    condition: Condition
    needs: tuple[str, ...]  #: the other computed labels that it names
    reads_now: bool

    def variables(self, event: Event, now_us: int, computed: Mapping[str, str]) -> dict[str, Any]:
        variables = event.variables
        if self.needs:
            seen = variables["event"]
            labels = {**seen["resource"], **{name: computed[name] for name in self.needs}}
            variables = {"event": {**seen, "resource": labels}}
        return {**variables, "now": from_us(now_us)} if self.reads_now else variables


class ComputedLabels:
    """The compiled `let` of one trigger."""

    __slots__ = ("_lets", "names")

    def __init__(self, lets: tuple[_Let, ...]) -> None:
        self._lets = lets
        self.names = frozenset(let.name for let in lets)

    def of(self, event: Event, now_us: int) -> dict[str, str]:
        """The labels of an event.

        Raises:
            LabelFailed: one of them has no value; says which and why.
        """
        computed: dict[str, str] = {}
        for let in self._lets:
            try:
                value = let.condition(let.variables(event, now_us, computed))
            except ConditionError as error:
                raise LabelFailed(let.name, error.detail) from None
            computed[let.name] = value if type(value) is str and _is_plain(value) else _label(let.name, value)
        return computed

    def explain(self, event: Event, now_us: int) -> Iterator[tuple[str, Verdict, str | LabelFailed]]:
        """Each label in the order of evaluation, how its value came about, and the value; those behind a failed one are left out."""
        computed: dict[str, str] = {}
        for let in self._lets:
            verdict = let.condition.explain(let.variables(event, now_us, computed))
            if verdict.error is not None:
                yield let.name, verdict, LabelFailed(let.name, verdict.error.detail)
                return
            try:
                computed[let.name] = _label(let.name, verdict.value)
            except LabelFailed as failed:
                yield let.name, verdict, failed
                return
            yield let.name, verdict, computed[let.name]


def compute_labels(conditions: Mapping[str, Condition]) -> ComputedLabels | None:
    """The labels that these expressions compute; None for none.

    Raises:
        InvalidInput: there are too many, or some need each other in a circle; `path` starts with `let`.
    """
    if not conditions:
        return None
    if len(conditions) > MOST_LABELS:
        detail = f"{len(conditions)} computed labels, with those of the composites around it; at most {MOST_LABELS}"
        raise InvalidInput(detail, path=("let",))
    needs = {name: _needs(name, condition, conditions) for name, condition in conditions.items()}
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        ring: list[str] = error.args[1][::-1]
        chain = " -> ".join(ring)
        detail = f"computed from itself: {chain}; a computed label reads the event, or others that do not read it"
        raise InvalidInput(detail, path=("let", ring[0])) from None
    return ComputedLabels(
        tuple(
            _Let(
                name=name,
                condition=conditions[name],
                needs=needs[name],
                reads_now=conditions[name].reads("now"),
            )
            for name in order
        )
    )


def _needs(name: str, condition: Condition, conditions: Mapping[str, Condition]) -> tuple[str, ...]:
    found = {
        fields[1]: None
        for fields, _ in condition.selections("event")
        if len(fields) > 1 and fields[0] == "resource" and fields[1] != name and fields[1] in conditions
    }
    return tuple(found)


def _is_plain(text: str) -> bool:
    return len(text) <= _MOST_CHARS and text.isprintable()


def _label(name: str, value: Any) -> str:
    """A value as a label.

    Raises:
        LabelFailed: it is none.
    """
    if not isinstance(value, (str, int, float)):
        remedy = "write string(...)"
        if value is None or isinstance(value, (list, dict)):
            remedy = "name one value of it"
        elif isinstance(value, OptionalValue):
            remedy = "write .orValue(...)"
        raise LabelFailed(name, f"{describe(value)} is no text, number or boolean; {remedy}")
    try:
        text = scalar_text(int(value) if isinstance(value, Uint) else value)
    except RenderError as error:
        raise LabelFailed(name, str(error)) from None
    if len(text) > _MOST_CHARS:
        raise LabelFailed(name, f"{len(text)} characters; a label has at most {_MOST_CHARS}")
    if CONTROL.search(text):
        raise LabelFailed(name, "the text has control characters, which no label has; remove them")
    return text
