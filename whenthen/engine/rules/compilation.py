"""The checks that compile what a rule holds as text: conditions, paths and templates, webhooks.

Handed to `folder`, which knows where each field was written. Each check yields the path of the field inside the
automation or webhook and what is wrong with it, in the compiler's own words.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from whenthen.engine.rules.documents import Path
from whenthen.engine.rules.folder import Checker
from whenthen.schemas.automations import Automation
from whenthen.schemas.triggers import CompoundTrigger, EventFilter, EventTrigger, SequenceTrigger, Trigger
from whenthen.triggers.conditions import ConditionError, compile_condition

__all__ = ["check_conditions", "default_checkers"]

_VARIABLES = frozenset({"event"})


def default_checkers() -> tuple[Checker, ...]:
    """All checks there are."""
    return (check_conditions,)


def check_conditions(model: BaseModel) -> Iterator[tuple[Path, str]]:
    """Compile every `when` of an automation's triggers."""
    if isinstance(model, Automation):
        for path, part in _triggers(model.trigger, ("trigger",)):
            for at, filter_ in _filters(part, path):
                if filter_.when is not None:
                    try:
                        compile_condition(filter_.when, variables=_VARIABLES)
                    except ConditionError as error:
                        yield (*at, "when"), _said(error)


def _said(error: ConditionError) -> str:
    place = f"character {error.column}" if "\n" not in error.text else f"line {error.line}, character {error.column}"
    return f"not a condition, at its {place}: {error.detail}" + (f"; {error.hint}" if error.hint else "")


def _triggers(trigger: Trigger, path: Path) -> Iterator[tuple[Path, Trigger]]:
    yield path, trigger
    if isinstance(trigger, (CompoundTrigger, SequenceTrigger)):
        for index, part in enumerate(trigger.triggers):
            yield from _triggers(part, (*path, "triggers", index))


def _filters(trigger: Trigger, path: Path) -> Iterator[tuple[Path, EventFilter]]:
    if isinstance(trigger, EventFilter):
        yield path, trigger
    if isinstance(trigger, EventTrigger) and trigger.resolve_on is not None:
        yield (*path, "resolve_on"), trigger.resolve_on
