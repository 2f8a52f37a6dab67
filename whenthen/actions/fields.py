"""Fields of actions that hold templates: compiled once, rendered for each try, and named in every error.

Text comes out of a template as it is; a number or a boolean that JSONPath found is written as JSON writes it. A missing
value is an error, and so is an empty text where something has to be named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import orjson

from whenthen.actions.attempts import EVENT_FIELDS, VARIABLES, Call
from whenthen.schemas import RenderError
from whenthen.templates import Value, compile_value

__all__ = ["Field", "compile_optional_text", "compile_text_field", "compile_text_mapping", "compile_value_field"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Field(Generic[T]):
    """A compiled field. `name` is its path in the rule: `parameters`, `headers.X-Order`."""

    name: str
    value: Value
    read: Callable[[str, Any], T]

    def render(self, call: Call) -> T:
        """The field's value for this try.

        Raises:
            RenderError: a value is missing, of the wrong type, or too costly; names the field.
        """
        return self.read(self.name, self.value.render(call.context, call.root))


def compile_value_field(name: str, spec: Any) -> Field[Any]:
    """A JSON-like value that keeps its types. Raises `InvalidTemplate` with the path of the part at fault."""
    return Field(name, _compile(name, spec), _any)


def compile_text_field(name: str, text: str, *, empty: bool = False) -> Field[str]:
    """A text; `empty` says whether it may render to nothing. Raises `InvalidTemplate`."""
    return Field(name, _compile(name, text), partial(_text, empty=empty))


def compile_optional_text(name: str, text: str | None) -> Field[str] | None:
    """A text that may be left out."""
    return None if text is None else compile_text_field(name, text)


def compile_text_mapping(name: str, texts: Mapping[str, str]) -> dict[str, Field[str]]:
    """Labels. Any but the id may be empty."""
    return {label: compile_text_field(f"{name}.{label}", text, empty=label != "id") for label, text in texts.items()}


def _compile(name: str, spec: Any) -> Value:
    return compile_value(spec, known=VARIABLES, known_steps=VARIABLES | EVENT_FIELDS, field=name)


def _any(name: str, value: Any) -> Any:
    return value


def _text(name: str, value: Any, *, empty: bool) -> str:
    if isinstance(value, (bool, int, float)):
        value = orjson.dumps(value).decode()
    if not isinstance(value, str):
        raise RenderError(f"{name}: needs a text, found {_kind(value)}")
    if not value.strip() and not empty:
        raise RenderError(f"{name}: is empty for this event")
    return value


def _kind(value: Any) -> str:
    return {type(None): "null", dict: "an object", list: "a list"}.get(type(value), type(value).__name__)
