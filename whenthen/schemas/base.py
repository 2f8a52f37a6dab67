"""The base of all models that people write in YAML: unknown fields are refused, values are not coerced silently."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema

__all__ = [
    "CONTROL",
    "REFERENCE",
    "Document",
    "GlobList",
    "Model",
    "Name",
    "OneOrMany",
    "SecretRef",
    "Texts",
    "as_list",
]

#: control characters, and those that change the direction of text: what a name, an id or a label does not hold
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Model(BaseModel):
    """Frozen, strict about field names. Field docstrings become hover text in editors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Document(Model):
    """A whole YAML file. Keys that begin with `x-` are its author's own, such as places for anchors; nothing reads them."""

    model_config = ConfigDict(json_schema_extra={"patternProperties": {"^x-": {"description": "Not read."}}})

    @model_validator(mode="before")
    @classmethod
    def _without_own_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if not (isinstance(key, str) and key.startswith("x-"))}
        return value


def _check_name(value: str) -> str:
    if value != value.strip() or "/" in value or CONTROL.search(value):
        raise ValueError(f"{value!r} has a slash, control characters or outer spaces")
    return value


REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+")


def _check_secret(value: str) -> str:
    if not REFERENCE.fullmatch(value):
        raise ValueError(
            "a secret is a reference, never the secret itself: write env:NAME (environment variable) or file:/path"
        )
    return value


class OneOrMany:
    """Beside `BeforeValidator(as_list)`: tells the JSON Schema that one item alone is written without a list."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        return {"anyOf": [handler.resolve_ref_schema(schema).get("items", {}), schema]}


def as_list(value: Any) -> Any:
    """One thing or a list of them, as a list."""
    return value if isinstance(value, list) else [value]


#: the name of an automation, deployment, webhook, ...: text without slashes, at most 200 characters
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_name)]
#: `env:NAME` or `file:/path`; resolved when it is used, never stored
SecretRef = Annotated[str, AfterValidator(_check_secret), Field(max_length=4096)]
#: a text or a list of texts; kept as a list
Texts = Annotated[
    list[Annotated[str, Field(max_length=4096)]],
    BeforeValidator(as_list),
    OneOrMany(),
    Field(min_length=1, max_length=1000),
]
#: globs for one label; `*` stands for any characters, a leading `!` for "is not"
GlobList = Texts
