"""Fields of actions that hold templates: compiled once, rendered for each attempt, and named in every error.

Text comes out of a template as it is; a number or a boolean that JSONPath found is written as JSON writes it. A missing
value is an error, and so is an empty text where something has to be named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from whenthen.actions.attempts import EVENT_FIELDS, VARIABLES, Call
from whenthen.actions.page_addresses import URL_OF
from whenthen.schemas.errors import FieldPath, RenderError
from whenthen.templates import Value, compile_value, scalar_text

__all__ = [
    "Field",
    "compile_labels_path",
    "compile_object_field",
    "compile_optional_text",
    "compile_text_field",
    "compile_text_mapping",
    "compile_value_field",
    "fields_of",
]

T = TypeVar("T")

_STEPS = VARIABLES | EVENT_FIELDS


@dataclass(frozen=True, slots=True)
class Field(Generic[T]):
    """A compiled field. `path` leads to it in the action: `("parameters",)`, `("headers", "X-Order")`."""

    path: FieldPath
    value: Value
    read: Callable[[FieldPath, Any], T]

    def render(self, call: Call) -> T:
        """The field's value for this attempt.

        Raises:
            RenderError: a value is missing, of the wrong type, or too costly; names the field.
        """
        return self.read(self.path, self.value.render(call.context, call.root))


def compile_value_field(spec: Any, *path: str | int, links: bool = False) -> Field[Any]:
    """A JSON-like value that keeps its types; `links` says whether its templates may use `url_of`. Raises `InvalidTemplate` with the path of
    the part at fault."""
    return Field(path, _compile(spec, path, links=links), _any)


def compile_object_field(spec: Any, *path: str | int) -> Field[dict[str, Any]]:
    """As `compile_value_field`, for an object or a path that gives one."""
    return Field(path, _compile(spec, path), _object)


def compile_labels_path(text: str, *path: str | int) -> Field[dict[str, str]]:
    """A path that gives all labels of a resource. Raises `InvalidTemplate`."""
    return Field(path, _compile(text, path), _labels)


def compile_text_field(text: str, *path: str | int, empty: bool = False, links: bool = False) -> Field[str]:
    """A text; `empty` says whether it may render to nothing, `links` whether it may use `url_of`. Raises `InvalidTemplate`."""
    return Field(path, _compile(text, path, links=links), partial(_text, empty=empty))


def compile_optional_text(text: str | None, *path: str | int) -> Field[str] | None:
    """A text that may be left out."""
    return None if text is None else compile_text_field(text, *path)


def compile_text_mapping(texts: Mapping[str, str], *path: str | int) -> dict[str, Field[str]]:
    """Labels. Any but the id may be empty."""
    return {label: compile_text_field(text, *path, label, empty=label != "id") for label, text in texts.items()}


def fields_of(part: Any) -> Iterator[Field[Any]]:
    """Every field of a compiled action: in its attributes, and in the lists, mappings and dataclasses that they hold."""
    if isinstance(part, Field):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from fields_of(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from fields_of(value)
    elif dataclasses.is_dataclass(part):
        for attribute in dataclasses.fields(part):
            yield from fields_of(getattr(part, attribute.name))


def _compile(spec: Any, path: FieldPath, *, links: bool = False) -> Value:
    return compile_value(spec, known=VARIABLES | {URL_OF} if links else VARIABLES, known_steps=_STEPS, path=path)


def _any(path: FieldPath, value: Any) -> Any:
    return value


def _object(path: FieldPath, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RenderError(f"needs an object, found {_kind(value)}", path=path)
    return value


def _labels(path: FieldPath, value: Any) -> dict[str, str]:
    labels = _object(path, value)
    if "id" not in labels:
        raise RenderError("missing; every resource has an id", path=(*path, "id"))
    return {label: _text((*path, label), item, empty=label != "id") for label, item in labels.items()}


def _text(path: FieldPath, value: Any, *, empty: bool) -> str:
    if isinstance(value, (bool, int, float)):
        value = scalar_text(value)
    if not isinstance(value, str):
        raise RenderError(f"needs a text, found {_kind(value)}", path=path)
    if not value.strip() and not empty:
        raise RenderError("is empty for this event", path=path)
    return value


def _kind(value: Any) -> str:
    return {type(None): "null", dict: "an object", list: "a list"}.get(type(value), type(value).__name__)
