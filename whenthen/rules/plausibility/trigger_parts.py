"""The triggers inside a trigger, and the filters of each, with their paths."""

from __future__ import annotations

from collections.abc import Iterator

from whenthen.schemas.errors import FieldPath
from whenthen.schemas.triggers import (
    CompoundTrigger,
    EventFilter,
    EventTrigger,
    SequenceTrigger,
    Trigger,
)

__all__ = ["expressions_of", "filters_of", "triggers_of"]


def triggers_of(trigger: Trigger, path: FieldPath = ("trigger",)) -> Iterator[tuple[FieldPath, Trigger]]:
    """A trigger and the parts of it, each with its path."""
    yield path, trigger
    if isinstance(trigger, (CompoundTrigger, SequenceTrigger)):
        for index, part in enumerate(trigger.triggers):
            yield from triggers_of(part, (*path, "triggers", index))


def filters_of(trigger: Trigger, path: FieldPath) -> Iterator[tuple[FieldPath, EventFilter]]:
    """The filters of one trigger, without those of its parts."""
    if isinstance(trigger, EventFilter):
        yield path, trigger
    if isinstance(trigger, EventTrigger) and trigger.resolve_on is not None:
        yield (*path, "resolve_on"), trigger.resolve_on


def expressions_of(trigger: Trigger) -> Iterator[tuple[FieldPath, str]]:
    """Every CEL expression of a trigger and its parts: conditions and computed labels."""
    for path, part in triggers_of(trigger):
        if isinstance(part, (CompoundTrigger, SequenceTrigger)):
            yield from (((*path, "let", name), text) for name, text in part.let.items())
        for place, filter_ in filters_of(part, path):
            yield from (((*place, "let", name), text) for name, text in filter_.let.items())
            if filter_.when is not None:
                yield (*place, "when"), filter_.when
