"""The checks that compile what a rule holds as text: conditions, paths and templates, webhooks.

Handed to `folder`, which knows where each field was written. Each check yields the path of the field inside the
automation or webhook and what is wrong with it, in the compiler's own words. What it compiled of an automation's trigger
is kept for the rule_registry, and an automation that an earlier sound set had is neither checked nor compiled again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from whenthen.actions import compile_action
from whenthen.conditions import ConditionError, compile_condition
from whenthen.rules.documents import Path
from whenthen.rules.references import written_actions
from whenthen.schemas import (
    Automation,
    CompoundTrigger,
    EventFilter,
    EventTrigger,
    InvalidInput,
    SequenceTrigger,
    Trigger,
    Webhook,
)
from whenthen.sources import WebhookTranslator
from whenthen.triggers import CompiledAutomation, compile_automation

__all__ = ["Compilation"]

_VARIABLES = frozenset({"event"})
#: `automation 'a': trigger.when: what is wrong`, as the compilers say it
_FIELD_FIRST = re.compile(r"(?:automation .*?: (?=trigger))?([A-Za-z_][^:\s]*): (.+)", re.DOTALL)


class Compilation:
    """The checks of one set of rules, and what they compiled.

    `kept` has the automations of a set in which everything was sound.
    """

    def __init__(self, kept: Mapping[str, CompiledAutomation] | None = None) -> None:
        self.automations: dict[str, CompiledAutomation] = {}  #: those checked whose triggers are sound, by name
        self._kept = kept or {}

    def check(self, model: BaseModel) -> Iterator[tuple[Path, str]]:
        """Every problem of an automation or a webhook."""
        if isinstance(model, Automation):
            known = self._kept.get(model.name)
            if known is not None and _same(known.model, model):
                self.automations[model.name] = known
                return
            yield from self._check_triggers(model)
            yield from _check_actions(model)
        elif isinstance(model, Webhook):
            yield from _check_webhook(model)

    def _check_triggers(self, model: Automation) -> Iterator[tuple[Path, str]]:
        """Every `when` of an automation's triggers, then whatever else of them does not compile."""
        try:
            self.automations[model.name] = compile_automation(model)
        except InvalidInput as error:
            yield from _trigger_problems(error, model)


def _same(one: Automation, other: Automation) -> bool:
    """Whether two automations do the same; to `==` alone 1, 1.0 and true are one value, also where they are sent as JSON."""
    return one == other and one.model_dump_json() == other.model_dump_json()


def _trigger_problems(error: InvalidInput, model: Automation) -> Iterator[tuple[Path, str]]:
    path, message = _placed(error, model)
    told = set()
    for at, part in _triggers(model.trigger, ("trigger",)):
        for place, filter_ in _filters(part, at):
            if filter_.when is not None:
                try:
                    compile_condition(filter_.when, variables=_VARIABLES)
                except ConditionError as refused:
                    told.add((*place, "when"))
                    yield (*place, "when"), _said(refused)
    if path not in told:
        yield path or ("trigger",), message


def _check_actions(model: Automation) -> Iterator[tuple[Path, str]]:
    """The templates of each action."""
    for path, action in written_actions(model):
        try:
            compile_action(action)
        except InvalidInput as error:
            field, message = _placed(error, action)
            yield (*path, *field), message


def _check_webhook(model: Webhook) -> Iterator[tuple[Path, str]]:
    """The mapping and the condition of a webhook."""
    try:
        WebhookTranslator(model, compile_condition=compile_condition, resolve_secret=_never)
    except InvalidInput as error:
        yield _placed(error, model)


def _never(reference: str) -> str:
    raise InvalidInput(f"{reference}: secrets are resolved when a request comes, not at load")


def _placed(error: InvalidInput, model: BaseModel) -> tuple[Path, str]:
    """The field that a compiler's message starts with, as a path in `model`, and the rest of the message."""
    # below the first line some compilers draw the text with a caret, which has no place in a list of problems
    text = str(error).partition("\n")[0]
    found = _FIELD_FIRST.match(text)
    if found is None:
        return (), text
    path = _steps(found[1], model)
    return (path, found[2]) if path else ((), text)


def _steps(text: str, value: Any) -> Path:
    """`parameters.path[0]` as steps into `value`; as far as they lead, for keys may hold dots themselves."""
    steps: list[str | int] = []
    while text:
        if index := re.match(r"\[(\d+)\]\.?", text):
            if not isinstance(value, (list, tuple)) or int(index[1]) >= len(value):
                break
            steps.append(int(index[1]))
            value = value[int(index[1])]
            text = text[index.end() :]
            continue
        known = dict(value) if isinstance(value, (dict, BaseModel)) else {}
        fits = [key for key in known if text == key or text.startswith((f"{key}.", f"{key}["))]
        if not fits:
            break
        key = max(fits, key=len)
        steps.append(key)
        value = known[key]
        text = text[len(key) :].removeprefix(".")
    return tuple(steps)


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
