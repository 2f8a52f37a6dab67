"""What rules read that no event has, and what they leave out: known from the text alone, before any event comes.

Called by `rules.folder` once all files are read. An error is what can never work: a condition over a field that events do not have,
a key that is no label and no path, `key.name` where `for_each` has no such name. A warning is what works and is probably not
meant: an automation without actions, a set of letters in a glob that reads like a word, a label called `resource.id`, a count of
attempts where further ones are counted. Only what is written plainly is judged; where a template asks whether a value is there (`default`, `is defined`), its
author knows better.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from whenthen.actions import EVENT_FIELDS
from whenthen.conditions import ConditionError, compile_condition
from whenthen.rules.plausibility.trigger_parts import expressions_of, filters_of, triggers_of
from whenthen.rules.plausibility.word_sets import word_sets
from whenthen.rules.references import Finding, Part, is_constant, written_actions
from whenthen.rules.validation_messages import nearest
from whenthen.schemas.actions import ActionBase
from whenthen.schemas.automations import Automation, Notifier
from whenthen.schemas.errors import FieldPath, InvalidInput
from whenthen.schemas.triggers import (
    CompoundTrigger,
    EventTrigger,
    MetricTrigger,
    ScheduleTrigger,
    SequenceTrigger,
    Trigger,
    key_name,
)
from whenthen.templates import compile_path, lookups_of
from whenthen.triggers import WHEN_VARIABLES

__all__ = ["implausible"]

#: fields of an event that are one value; what has fields below it is `resource`, `payload`, `lineage`, `related`
_PLAIN = {
    "id": "the event's id",
    "event": "the event's name",
    "occurred": "a time",
    "received": "a time",
    "source": "a text",
    "follows": "the id of an event",
}
_LIKE_PATHS = {"resource": "a label of the resource", "payload": "what an event carries"}
_EVENT_STEPS = re.compile(r"\bevent\s*\.[\s?]*([^\W\d]\w*)(\s*\.[\s?]*[^\W\d]\w*)?(\s*\.[\s?]*[^\W\d]\w*)?")
_KEY_STEP = re.compile(r"""\bkey\s*(?:\.\s*([^\W\d]\w*)|\[\s*['"]([^'"]*)['"])""")
_GUARDED = re.compile(r"\bdefault\b|\|\s*d\b|\bdefined\b|\bnone\b|\bif\b")
_METHODS = frozenset({"get", "items", "keys", "values"})


def implausible(parts: Iterable[Part]) -> Iterator[Finding]:
    """Each thing that a set of rules says and that can not be, or probably is not meant."""
    for part in parts:
        if isinstance(part.model, Automation):
            for path, detail in _automation(part.model):
                yield Finding(part=part, path=path, detail=detail)
            for path, detail in word_sets(part.model):
                yield Finding(part=part, path=path, detail=detail, warning=True)
            for path, detail in _labels_like_paths(part.model):
                yield Finding(part=part, path=path, detail=detail, warning=True)
            for path, detail in _old_counts(part.model):
                yield Finding(part=part, path=path, detail=detail, warning=True)
            if not any(written_actions(part.model)):
                detail = (
                    "it has no actions: it fires and nothing is done; add `actions`, or `do-nothing` if that is meant"
                )
                yield Finding(part=part, path=("name",), detail=detail, warning=True)
        elif isinstance(part.model, Notifier):
            for index, url in enumerate(part.model.urls):
                if "://" not in url and not url.startswith(("env:", "file:")):
                    detail = (
                        "no URL: it has no scheme; write one of Apprise's, such as slack://..., or a reference, "
                        "env:NAME or file:/path"
                    )
                    yield Finding(part=part, path=("urls", index), detail=detail)


def _labels_like_paths(model: Automation) -> Iterator[tuple[FieldPath, str]]:
    """Labels that are called like the place of a label or of a value in an event: there may be such, and mostly `id` is meant by
    `resource.id`."""
    for path, trigger in triggers_of(model.trigger):
        for field in ("for_each", "correlate"):
            for index, key in enumerate(getattr(trigger, field, ())):
                place = (*path, field, index, *(() if isinstance(key, str) else ("path",)))
                yield from _label_like_a_path(place, key_name(key), "$.{}")
        for above, filter_ in filters_of(trigger, path):
            for label in filter_.match:
                yield from _label_like_a_path((*above, "match", label), label, "event.{} in `when`")


def _label_like_a_path(place: FieldPath, name: str, payload: str) -> Iterator[tuple[FieldPath, str]]:
    first, _, rest = name.partition(".")
    if rest and first in _LIKE_PATHS:
        meant = rest if first == "resource" else payload.format(name)
        yield place, f"a label of the resource that is called `{name}` itself; for {_LIKE_PATHS[first]} write {meant}"


def _old_counts(model: Automation) -> Iterator[tuple[FieldPath, str]]:
    for path, action in written_actions(model):
        if (attempts := action.retry.attempts) is not None:
            detail = (
                f"`attempts: {attempts}` counts the first one, too; write `retries: {attempts - 1}`, as deployments do"
            )
            yield (*path, "retry", "attempts"), detail


def _automation(model: Automation) -> Iterator[tuple[FieldPath, str]]:
    for place, text in expressions_of(model.trigger):
        for detail in _condition(text):
            yield place, detail
    for path, trigger in triggers_of(model.trigger):
        for place, names in _names(trigger, path):
            for index, name in enumerate(names):
                if "{{" in name or "{%" in name:
                    yield (*place, index), "a template; names of events are texts or globs, and no event is called so"
        for field in ("for_each", "correlate"):
            for index, key in enumerate(getattr(trigger, field, ())):
                if (found := _key(key_name(key), field)) is not None:
                    yield (*path, field, index, *(() if isinstance(key, str) else ("path",))), found
        value = trigger.value if isinstance(trigger, MetricTrigger) else None
        if value is not None and (found := _path(value)) is not None:
            yield (*path, "value"), found
    keys = _keys(model.trigger)
    without_event = _fires_without_event(model.trigger)
    for path, action in written_actions(model):
        late = without_event if path[0] != "actions_on_resolve" else ""
        for place, text in _texts(action):
            for detail in _template(text, keys, late):
                yield (*path, *place), detail


# -- conditions


def _condition(text: str) -> Iterator[str]:
    """What is wrong with the fields that a condition reads; nothing for one that does not compile, which has an error of its own."""
    if all(_step_problem(steps) is None for steps in _written_steps(text)):
        return
    try:
        selections = list(compile_condition(text, variables=WHEN_VARIABLES).selections("event"))
    except ConditionError:
        return
    found: dict[int, str] = {}
    for steps, at in selections:
        if (problem := _step_problem(steps)) is not None:
            found.setdefault(at, problem)
    yield from found.values()


def _written_steps(text: str) -> Iterator[tuple[str, ...]]:
    for match in _EVENT_STEPS.finditer(text):
        yield tuple(step.strip(" \t\r\n.?") for step in match.groups() if step is not None)


def _step_problem(steps: Sequence[str | int], said: str = "event") -> str | None:
    """Why an event never has a value there; None when it can have one."""
    first = str(steps[0])
    if first not in EVENT_FIELDS:
        return f"an event has no field {first!r}" + nearest(first, EVENT_FIELDS, what="its fields")
    if len(steps) > 1 and first in _PLAIN:
        whole = f"{said}.{first}"
        return f"`{whole}` is {_PLAIN[first]}, which has no field {steps[1]!r}; {_meant(said, steps)}"
    if len(steps) > 2 and first == "resource":
        return f"labels of a resource are texts: `{said}.resource.{steps[1]}` has no field {steps[2]!r}"
    return None


def _meant(said: str, steps: Sequence[str | int]) -> str:
    if steps[0] == "event" and steps[1] in EVENT_FIELDS:
        return f"write `{'.'.join([said, *map(str, steps[1:])])}`"
    return "what events carry is in `payload`, and labels are in `resource`"


def _names(trigger: Trigger, path: FieldPath) -> Iterator[tuple[FieldPath, list[str]]]:
    """The names of events that a trigger waits for, without those of its parts."""
    for place, filter_ in filters_of(trigger, path):
        yield (*place, "expect"), filter_.expect
    if isinstance(trigger, EventTrigger):
        yield (*path, "after"), trigger.after


# -- keys


def _key(expression: str, field: str) -> str | None:
    """Why no event has a value for an expression of `for_each` or `correlate`."""
    takes = f"`{field}` takes a label of the resource, related:<role>:<label>, or a path such as $.payload.order"
    if "{{" in expression or "{%" in expression:
        return f"a template; {takes}"
    if expression.startswith("$"):
        return _path(expression)
    if expression.startswith("event.resource."):
        return f"no label begins with `event.`; {takes}: write {expression.removeprefix('event.resource.')}"
    if expression.startswith("event."):
        return f"no label begins with `event.`; {takes}: write $.{expression.removeprefix('event.')}"
    return None


def _path(text: str) -> str | None:
    """Why a path finds nothing in any event, where `$` is the event."""
    try:
        steps = compile_path(text).steps
    except InvalidInput:
        return None
    return _step_problem(steps, "$") if steps and isinstance(steps[0], str) else None


def _keys(trigger: Trigger) -> tuple[str, ...]:
    """The names that `key` has in the actions."""
    if isinstance(trigger, (CompoundTrigger, SequenceTrigger)):
        return tuple(map(key_name, trigger.correlate))
    return tuple(map(key_name, getattr(trigger, "for_each", ())))


# -- actions


def _fires_without_event(trigger: Trigger) -> str:
    """Why firings of the automation have no event; empty when they have one, or may have."""
    if isinstance(trigger, ScheduleTrigger):
        return "the trigger fires by time, without an event"
    if isinstance(trigger, EventTrigger) and trigger.posture == "proactive" and trigger.window == "sliding":
        return (
            "the trigger fires when events stay away, so there is no event; `events` has those that opened the window"
        )
    return ""


def _texts(action: ActionBase) -> Iterator[tuple[FieldPath, str]]:
    """The texts of an action that are templates or paths, each with its path."""
    for name in type(action).model_fields:
        if name != "type":
            yield from _templated(getattr(action, name), (name,))


def _templated(value: Any, path: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    if isinstance(value, str):
        if not is_constant(value):
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _templated(item, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _templated(item, (*path, index))


def _template(text: str, keys: tuple[str, ...], without_event: str) -> Iterator[str]:
    """What is wrong with what a template or path of an action reads."""
    if "{{" not in text and "{%" not in text:
        yield from _action_path(text, keys, without_event)
        return
    suspicious = (
        (without_event and "event" in text)
        or any(_key_problem(step[1] or step[2], keys) for step in _KEY_STEP.finditer(text))
        or any(_step_problem(steps) is not None for steps in _written_steps(text))
    )
    if not suspicious or _GUARDED.search(text):
        return
    seen = set()
    for steps in lookups_of(text):
        problem = _lookup_problem(steps, keys, without_event)
        if problem is not None and problem not in seen:
            seen.add(problem)
            yield problem


def _lookup_problem(steps: Sequence[str], keys: tuple[str, ...], without_event: str) -> str | None:
    if steps[0] == "event" and len(steps) > 1:
        if without_event:
            return f"`{'.'.join(steps)}`: {without_event}"
        return _step_problem(steps[1:]) if steps[1] not in _METHODS else None
    if steps[0] == "key" and len(steps) > 1:
        return _key_problem(steps[1], keys)
    return None


def _action_path(text: str, keys: tuple[str, ...], without_event: str) -> Iterator[str]:
    try:
        steps = compile_path(text).steps
    except InvalidInput:
        return
    if not steps or not isinstance(steps[0], str):
        return
    if steps[0] == "key" and len(steps) > 1:
        if (problem := _key_problem(str(steps[1]), keys)) is not None:
            yield problem
    elif steps[0] in EVENT_FIELDS:
        if without_event:
            yield f"`{text}`: {without_event}"
        elif (problem := _step_problem(steps, "$")) is not None:
            yield problem


def _key_problem(name: str, keys: tuple[str, ...]) -> str | None:
    if name in keys or name in _METHODS:
        return None
    if not keys:
        return f"`key.{name}`: the trigger has no `for_each`, so `key` is empty"
    return f"`key` has no {name!r}" + nearest(name, keys, what="its names")
