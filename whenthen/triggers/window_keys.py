"""Window keys: the values of `for_each` or `correlate` in an event, and their text form.

An expression is a label of the resource (`region`), a label of the first related resource in a role
(`related:flow:id`), or JSONPath (`$.payload.order`). The text form of a key is stable: it names a window in the store and goes
into the ids of firings. A value whose text has more than 1,024 bytes is replaced by the beginning of that text and its digest
(`windows.long_texts`), so a key has 16 KiB at most. Null is an absent value, and 1.0 is 1, in lists and objects too. For an absent value stands the
default of its expression, if there is one. Meaning: docs/rules.md, "One window for each".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from whenthen.schemas.errors import InvalidInput, RenderError
from whenthen.schemas.events import Event
from whenthen.schemas.triggers import Key, key_name
from whenthen.templates import compile_path
from whenthen.triggers.windows.long_texts import MAX_KEY_BYTES, shorten

__all__ = ["KeyExtractor", "compile_keys"]

Extract = Callable[[Event], Any]
MISSING = object()
_LEAST, _BEYOND = -(2.0**63), 2.0**64  #: between them are the integers that JSON is written with


class KeyExtractor:
    """Compiled expressions of one trigger. Without expressions there is one window, whose key is the empty text."""

    __slots__ = ("_extract", "_single_label", "expressions")

    def __init__(self, keys: Sequence[Key]) -> None:
        self.expressions = tuple(map(key_name, keys))
        self._extract = tuple(map(_compile, keys))
        only = keys[0] if len(keys) == 1 else None
        self._single_label = only if isinstance(only, str) and not only.startswith(("related:", "$")) else None

    def values(self, event: Event) -> list[Any] | None:
        """The values, in the order of the expressions; None when one is absent. See `missing`."""
        values = []
        for extract in self._extract:
            value = extract(event)
            if value is MISSING:
                return None
            values.append(_key_value(value))
        return values

    def values_or_empty(self, event: Event) -> list[Any]:
        """As `values`, with empty text for what is absent (Prefect's rule, for its buckets)."""
        return ["" if (value := extract(event)) is MISSING else _key_value(value) for extract in self._extract]

    def text(self, event: Event) -> str | None:
        """The key's text, or None when a value is absent."""
        label = self._single_label
        if label is not None:
            value = event.data["resource"].get(label)
            if value is None:
                return None
            if len(value) > MAX_KEY_BYTES // 4:  # no character has more than four bytes
                value = shorten(value, MAX_KEY_BYTES)
            return key_text([value]) if value.startswith("[") else value
        if not self._extract:
            return ""
        values = self.values(event)
        return None if values is None else key_text(values)

    def text_or_empty(self, event: Event) -> str:
        """The key's text, with empty text for what is absent."""
        text = self.text(event)
        return key_text(self.values_or_empty(event)) if text is None else text

    def missing(self, event: Event) -> str:
        """The first expression that the event has no value for."""
        for expression, extract in zip(self.expressions, self._extract, strict=True):
            if extract(event) is MISSING:
                return expression
        return ""

    def mapping(self, text: str) -> dict[str, Any]:
        """The key as an object: expression to value, from its text form."""
        if not self.expressions:
            return {}
        if len(self.expressions) == 1:
            return {self.expressions[0]: parse_key_text(text)[0]}
        return dict(zip(self.expressions, parse_key_text(text), strict=True))


def key_text(values: Sequence[Any]) -> str:
    """One text for the values: itself for a single plain text, JSON otherwise."""
    if len(values) == 1 and type(values[0]) is str and not values[0].startswith("["):
        return values[0]
    return orjson.dumps(list(values), option=orjson.OPT_SORT_KEYS).decode()


def parse_key_text(text: str) -> list[Any]:
    """The values that `key_text` wrote."""
    if text.startswith("["):
        values: list[Any] = orjson.loads(text)
        return values
    return [text]


def _key_value(value: Any) -> Any:
    """A value as it is in a key: equal numbers are the same key, and what is long is shortened."""
    if type(value) is str:
        return shorten(value, MAX_KEY_BYTES)
    if type(value) is float:
        return _number(value)
    if type(value) in (list, dict):
        value = _with_equal_numbers(value)
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        short = shorten(text, MAX_KEY_BYTES)
        return value if short is text else short
    return value


def _number(value: float) -> int | float:
    """A whole number as an integer, exactly: conditions call the two equal."""
    return int(value) if value.is_integer() and _LEAST <= value < _BEYOND else value


def _with_equal_numbers(value: Any) -> Any:
    """A list or object in which equal numbers are written alike. The depth of a payload is bounded where it comes in."""
    if type(value) is list:
        return [_with_equal_numbers(item) for item in value]
    if type(value) is dict:
        return {name: _with_equal_numbers(item) for name, item in value.items()}
    return _number(value) if type(value) is float else value


def compile_keys(keys: Sequence[Key]) -> KeyExtractor:
    """Compile key expressions.

    Raises:
        InvalidTemplate: an expression starts with `$` and is not JSONPath.
        InvalidInput: `related:` lacks role or label.
    """
    return KeyExtractor(keys)


def _compile(key: Key) -> Extract:
    if isinstance(key, str):
        return _compile_expression(key)
    extract, default = _compile_expression(key.path), key.default

    def or_default(event: Event) -> Any:
        value = extract(event)
        return default if value is MISSING else value

    return or_default


def _compile_expression(expression: str) -> Extract:
    if expression.startswith("$"):
        path = compile_path(expression)

        def by_path(event: Event) -> Any:
            try:
                value = path.one(event.data)
            except RenderError:
                return MISSING
            return MISSING if value is None else value

        return by_path
    if expression.startswith("related:"):
        role, _, label = expression.removeprefix("related:").rpartition(":")
        if not role or not label:
            raise InvalidInput(f"{expression!r} lacks a role or a label; write related:<role>:<label>")

        def by_role(event: Event) -> Any:
            for resource in event.related:
                if resource.get("role") == role:
                    return resource.get(label, MISSING)
            return MISSING

        return by_role

    def by_label(event: Event) -> Any:
        return event.data["resource"].get(expression, MISSING)

    return by_label
