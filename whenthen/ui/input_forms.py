"""A form that asks for the input that a run waits for, made of its JSON Schema; and the input from the fields that were sent. Pure.

The schema comes from the run's code. What the form can not ask for field by field it asks for as JSON. Whether the input fits is checked where runs are
resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

__all__ = ["Question", "input_of_form", "input_questions"]

PREFIX: Final = "input."  #: of the names of its fields
MOST: Final = 50  #: fields of a form; an input with more of them is asked for as JSON
NONE: Final = ""  #: what an empty field sends


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One field."""

    field: str  #: its name in the form
    label: str
    kind: str  #: text, number or json
    required: bool
    choices: Sequence[tuple[str, str]] = ()  #: what it sends, and how that reads; empty where anything may be written
    value: str = ""  #: that it begins with
    help: str = ""


def input_questions(schema: Mapping[str, Any] | None) -> list[Question]:
    """The fields of the form; none where a run takes no input."""
    if schema is None:
        return []
    parts = _parts(schema)
    if parts is None:
        return [_question(PREFIX, "Input", _resolved(schema, schema), required=True)]
    needed = _schema_of(schema).get("required")
    needed = needed if isinstance(needed, list) else []
    return [
        _question(PREFIX + name, str(part.get("title") or name), part, required=name in needed)
        for name, part in parts.items()
    ]


def input_of_form(schema: Mapping[str, Any] | None, form: Mapping[str, str]) -> Any:
    """The input; fields that are left empty are left out."""
    if schema is None:
        return None
    parts = _parts(schema)
    if parts is None:
        return _value(_resolved(schema, schema), form.get(PREFIX, NONE))
    found = {}
    for name, part in parts.items():
        text = form.get(PREFIX + name, NONE)
        if text != NONE:
            found[name] = _value(part, text)
    return found


def _schema_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself, where it is a reference to one of its definitions."""
    return _resolved(schema, schema)


def _parts(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]] | None:
    """The schema of each field of an object; None where it is none, or has too many."""
    properties = _schema_of(schema).get("properties")
    if not isinstance(properties, Mapping) or not 0 < len(properties) <= MOST:
        return None
    return {str(name): _resolved(schema, part) for name, part in properties.items()}


def _resolved(whole: Mapping[str, Any], part: Any) -> Mapping[str, Any]:
    """A part of a schema, behind a reference and without `null` as an alternative."""
    for _ in range(10):
        if not isinstance(part, Mapping):
            return {}
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/$defs/"):
            definitions = whole.get("$defs")
            found = definitions.get(reference.removeprefix("#/$defs/")) if isinstance(definitions, Mapping) else None
            rest = {key: value for key, value in part.items() if key != "$ref"}
            part = {**found, **rest} if isinstance(found, Mapping) else {}
            continue
        kinds = part.get("anyOf")
        if isinstance(kinds, list):
            others = [kind for kind in kinds if not (isinstance(kind, Mapping) and kind.get("type") == "null")]
            if len(others) == 1 and isinstance(others[0], Mapping):
                rest = {key: value for key, value in part.items() if key != "anyOf"}
                part = {**others[0], **rest}
                continue
        return part
    return {}


def _question(field: str, label: str, part: Mapping[str, Any], *, required: bool) -> Question:
    choices: list[tuple[str, str]] = []
    if part.get("type") == "boolean":
        choices = [("true", "yes"), ("false", "no")]
    elif isinstance(part.get("enum"), list):
        choices = [(_text(value), value if isinstance(value, str) else _text(value)) for value in part["enum"]]
    value = _text(part["default"]) if part.get("default") is not None else NONE
    if choices and (not required or value == NONE):
        choices.insert(0, (NONE, "choose" if required else "leave out"))
    kind = "number" if part.get("type") in ("integer", "number") else "text" if part.get("type") == "string" else "json"
    return Question(
        field=field,
        label=label,
        kind=kind,
        required=required,
        choices=tuple(choices),
        value=value,
        help=str(part.get("description") or ("" if kind != "json" or choices else "as JSON")),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _value(part: Mapping[str, Any], text: str) -> Any:
    """What a field sent, as its schema has it. What can not be read stays text, which the check then names."""
    enum = part.get("enum")
    if isinstance(enum, list):
        return next((value for value in enum if _text(value) == text), text)
    if part.get("type") == "string":
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
