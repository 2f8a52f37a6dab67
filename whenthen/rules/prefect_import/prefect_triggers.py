"""Triggers of Prefect as ours, with `window: tumbling`. Pure; what has no counterpart is said through `Notes`.

Called by `importer`. Meaning: docs/prefect.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from whenthen.rules.prefect_import.import_notes import Notes
from whenthen.rules.prefect_import.prefect_events import key_expression, label
from whenthen.schemas.times import MAX_DURATION, format_duration

__all__ = ["NoCounterpart", "import_trigger", "kind_of"]

_DURATION: TypeAdapter[timedelta] = TypeAdapter(timedelta)
_LEAST_WATCH = timedelta(seconds=10)
_MAX_DEPTH = 20
_EVENT = frozenset(
    {"type", "posture", "expect", "after", "match", "match_related", "for_each", "threshold", "within", "id"}
)
_COMPOSITE = frozenset({"type", "triggers", "within", "require", "id"})


class NoCounterpart(Exception):
    """Something can not be said in our rules, so the automation is left out. The message says what and where."""


def kind_of(spec: dict[str, Any]) -> str:
    """The type of a trigger; where it is left out, Prefect tells it from the other fields."""
    kind = spec.get("type")
    if isinstance(kind, str):
        return kind
    if "triggers" in spec:
        return "compound" if "require" in spec else "sequence"
    if spec.get("posture") == "Metric" or "metric" in spec:
        return "metric"
    return "event"


def import_trigger(spec: Any, notes: Notes, path: str = "trigger", depth: int = 0) -> dict[str, Any]:
    """One trigger with everything below it.

    Raises:
        NoCounterpart: it can not be said, or Prefect itself would refuse it.
    """
    if not isinstance(spec, dict):
        raise NoCounterpart(f"{path}: a trigger is a mapping, found {_shown(spec)}")
    if depth > _MAX_DEPTH:
        raise NoCounterpart(f"{path}: nested more than {_MAX_DEPTH} deep; flatten it")
    kind = kind_of(spec)
    if kind == "event":
        return _event(spec, notes, path)
    if kind in ("compound", "sequence"):
        return _composite(kind, spec, notes, path, depth)
    if kind == "metric":
        raise NoCounterpart(
            f"{path}: a metric of Prefect Cloud looks at flow runs, ours at values of events; "
            "write it by hand as {type: metric, expect: flow-run.*, ...}"
        )
    raise NoCounterpart(f"{path}.type: {_shown(kind)} is not a trigger type of Prefect")


def _event(spec: dict[str, Any], notes: Notes, path: str) -> dict[str, Any]:
    _name_unknown(spec, _EVENT, notes, path)
    posture = spec.get("posture", "Reactive")
    if posture not in ("Reactive", "Proactive"):
        raise NoCounterpart(f"{path}.posture: {_shown(posture)}; Prefect knows Reactive and Proactive")
    proactive = posture == "Proactive"
    trigger: dict[str, Any] = {"type": "event", "window": "tumbling"}
    trigger["posture"] = posture.lower()
    expect = _names(spec.get("expect"), f"{path}.expect")
    after = _names(spec.get("after"), f"{path}.after")
    trigger["expect"] = expect or ["*"]
    if after:
        trigger["after"] = after
    match = _match(spec.get("match"), notes, f"{path}.match")
    if match:
        trigger["match"] = match
    related = spec.get("match_related")
    listed = related if isinstance(related, list) else [related]
    mappings = [_match(item, notes, f"{path}.match_related") for item in listed if item]
    if mappings:
        trigger["match_related"] = mappings
    keys = _keys(spec.get("for_each"), f"{path}.for_each")
    if keys:
        trigger["for_each"] = keys
    _count(spec, trigger, notes, path, proactive=proactive)
    if proactive and not after and keys and trigger["threshold"] == 1:
        notes.add(
            path,
            "in Prefect an absence with `for_each`, without `after`, and with threshold 1 never fires, so neither does it "
            "here; `window: sliding` watches each key from its first event on",
        )
    if proactive and after and not keys:
        notes.add(
            path,
            "in Prefect this absence opens windows by itself although `after` never came; here only `after` opens one",
        )
    return trigger


def _count(spec: dict[str, Any], trigger: dict[str, Any], notes: Notes, path: str, *, proactive: bool) -> None:
    threshold = _whole(spec.get("threshold", 1), f"{path}.threshold")
    if threshold < 1:
        if proactive:
            raise NoCounterpart(f"{path}.threshold: {threshold} in a proactive trigger never fires; give at least 1")
        notes.add(
            f"{path}.threshold",
            f"{threshold} became 1; Prefect would fire twice for an event past the end of a bucket",
        )
        threshold = 1
    if threshold > 100_000:
        raise NoCounterpart(f"{path}.threshold: {threshold}; the most is 100000")
    trigger["threshold"] = threshold
    within = spec.get("within", 0)
    if proactive:
        if isinstance(within, str):
            raise NoCounterpart(f"{path}.within: {_shown(within)}; Prefect takes seconds here, at least 10")
        span = _duration(within or 10, f"{path}.within")
        if span < _LEAST_WATCH:
            raise NoCounterpart(f"{path}.within: {_shown(within)}; Prefect refuses less than 10 seconds")
    else:
        span = _duration(within, f"{path}.within")
    if span:
        trigger["within"] = format_duration(span)


def _composite(kind: str, spec: dict[str, Any], notes: Notes, path: str, depth: int) -> dict[str, Any]:
    _name_unknown(spec, _COMPOSITE, notes, path)
    parts = spec.get("triggers")
    if not isinstance(parts, list):
        raise NoCounterpart(f"{path}.triggers: a list of triggers, found {_shown(parts)}")
    if not parts:
        raise NoCounterpart(f"{path}.triggers: empty, so it never fires")
    if len(parts) > 100:
        raise NoCounterpart(f"{path}.triggers: {len(parts)} parts; the most is 100")
    trigger: dict[str, Any] = {"type": kind}
    needed = len(parts)
    if kind == "compound":
        require = spec.get("require")
        if require not in ("any", "all"):
            needed = _whole(require, f"{path}.require")
            if not 1 <= needed <= len(parts):
                raise NoCounterpart(f"{path}.require: {needed} of {len(parts)} triggers; Prefect refuses it")
            require = needed
        trigger["require"] = require
        needed = 1 if require == "any" else needed
    elif len(parts) == 1:
        trigger |= {"type": "compound", "require": "any"}
        notes.add(path, "a sequence of one fires with its part; written as a compound")
    trigger["triggers"] = [
        import_trigger(part, notes, f"{path}.triggers[{number}]", depth + 1) for number, part in enumerate(parts)
    ]
    within = spec.get("within")
    if within is not None and needed == 1:
        notes.add(f"{path}.within", "one part suffices, so Prefect does not look at it; left out")
    elif within is not None:
        trigger["within"] = format_duration(_duration(within, f"{path}.within"))
    return trigger


def _names(value: Any, path: str) -> list[str]:
    """Event names as a sorted list; Prefect keeps them as a set."""
    if value is None:
        return []
    return sorted(set(_texts(value, path)))


def _match(value: Any, notes: Notes, path: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise NoCounterpart(f"{path}: labels and values, found {_shown(value)}")
    match: dict[str, Any] = {}
    for name, wanted in value.items():
        if not isinstance(name, str) or not 0 < len(name) < 256:
            raise NoCounterpart(f"{path}: a label's name is text of 1 to 255 characters, found {_shown(name)}")
        texts = [wanted] if isinstance(wanted, str) else _texts(wanted, f"{path}.{name}")
        if not texts:
            # no value can satisfy an empty list: the label must be there and must not match anything
            texts = ["!*"]
            notes.add(f"{path}.{name}", "an empty list, which nothing matches; written as `!*`")
        ours = label(name)
        if ours.startswith("_") and ours != name:
            notes.add(f"{path}.{name}", f"a label that Prefect's users named so themselves; it is `{ours}` here")
        match[ours] = texts[0] if len(texts) == 1 else texts
    return match


def _keys(value: Any, path: str) -> list[str]:
    """In Prefect's order, which is alphabetic."""
    keys = [key_expression(text) for text in sorted(set(_texts([] if value is None else value, path)))]
    for key in keys:
        if key.startswith("$") or not key or len(key) > 512 or (key.startswith("related:") and key.count(":") < 2):
            raise NoCounterpart(f"{path}: {_shown(key)} can not be a key here")
    if len(keys) > 16:
        raise NoCounterpart(f"{path}: {len(keys)} keys; the most is 16")
    return keys


def _texts(value: Any, path: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise NoCounterpart(f"{path}: a list of texts, found {_shown(value)}")
    if len(value) > 1000 or any(len(text) > 4096 for text in value):
        raise NoCounterpart(f"{path}: at most 1000 texts of 4096 characters each")
    return value


def _whole(value: Any, path: str) -> int:
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise NoCounterpart(f"{path}: a whole number, found {_shown(value)}")
    return value


def _duration(value: Any, path: str) -> timedelta:
    """Seconds or ISO 8601, as Prefect reads them: to the microsecond."""
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise NoCounterpart(f"{path}: a duration in seconds, found {_shown(value)}")
    try:
        span = timedelta(seconds=value) if isinstance(value, (int, float)) else _DURATION.validate_python(value)
    except (ValidationError, OverflowError):
        raise NoCounterpart(f"{path}: a duration in seconds, found {_shown(value)}") from None
    if span < timedelta(0):
        raise NoCounterpart(f"{path}: {_shown(value)} is negative")
    if span > MAX_DURATION:
        raise NoCounterpart(f"{path}: {_shown(value)} is longer than 10 years")
    return span


def _name_unknown(spec: dict[str, Any], known: Iterable[str], notes: Notes, path: str) -> None:
    for name in spec:
        if name not in known:
            notes.add(f"{path}.{_shown(name)}", "not a field that Prefect's evaluator knows; left out")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
