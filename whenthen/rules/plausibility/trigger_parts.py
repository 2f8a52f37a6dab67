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

__all__ = ["filters_of", "triggers_of"]


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
