"""What all schemas share: the base of models that people write in YAML, names and references, how deep JSON may be nested, and what is the
same JSON."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final

import orjson
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

from whenthen.schemas.late_descriptions import DocumentedModel, description_of

__all__ = [
    "CONTROL",
    "MAX_DEPTH",
    "MAX_MADE_DEPTH",
    "MAX_NAME_CHARS",
    "REFERENCE",
    "DeploymentName",
    "Document",
    "DocumentedModel",
    "GlobList",
    "Model",
    "Name",
    "ObjectPath",
    "OneOrMany",
    "SecretRef",
    "Texts",
    "as_list",
    "description_of",
    "is_deeper_than",
    "known_fields",
    "same_json",
]

#: control characters, and those that change the direction of text: what a name, an id or a label does not hold
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

MAX_NAME_CHARS: Final = 200

# JSON libraries refuse or crash at other depths: orjson writes 254 levels. A value that is accepted at a door gets a few levels more
# around it on its way, so the limit of the doors is far below.
MAX_DEPTH: Final = 100  #: levels of lists and objects of a value that comes from outside
MAX_MADE_DEPTH: Final = 200  #: of a value that a rule makes of such values: what it emits, and parameters of runs


class Model(DocumentedModel):
    """Frozen, strict about field names: unknown ones are refused, values are not coerced silently.

    Field docstrings become hover text in editors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


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


def _check_deployment_name(value: str) -> str:
    flow, slash, name = value.partition("/")
    if slash and not (flow and name):
        raise ValueError(f"{value!r} has a slash at an end; write name, or flow/name")
    _check_name(flow)
    return value if not slash else flow + "/" + _check_name(name)


REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+")


def _check_secret(value: str) -> str:
    if not REFERENCE.fullmatch(value):
        raise ValueError(
            "a secret is a reference, never the secret itself: write env:NAME (environment variable) or file:/path"
        )
    return value


def _check_object_path(text: str) -> str:
    if text != "$" and not text.startswith(("$.", "$[")):
        raise ValueError(
            f"{text[:80]!r} is no path to an object; write one such as $.payload.order, or the object itself"
        )
    return text


class OneOrMany:
    """Beside `BeforeValidator(as_list)`: tells the JSON Schema that one item alone is written without a list."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        return {"anyOf": [handler.resolve_ref_schema(schema).get("items", {}), schema]}


def as_list(value: Any) -> Any:
    """One thing or a list of them, as a list."""
    return value if isinstance(value, list) else [value]


#: the name of an automation, deployment, webhook, ...: text without slashes, at most 200 characters
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS), AfterValidator(_check_name)]
#: the name of a deployment: such a name, or two with a slash between them, the flow's and its own
DeploymentName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS), AfterValidator(_check_deployment_name)]
#: in the place of an object: one path that gives it
ObjectPath = Annotated[str, Field(max_length=4096), AfterValidator(_check_object_path)]
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


def is_deeper_than(value: Any, limit: int) -> bool:
    """Whether lists and objects in `value` are nested more than `limit` deep. Takes one look at each of them, a shared one
    for each level that it is on."""
    level: list[Any] = [value] if isinstance(value, list | tuple | dict) else []
    depth = 0
    while level:
        depth += 1
        if depth > limit:
            return True
        below: dict[int, Any] = {}
        for item in level:
            for part in item.values() if isinstance(item, dict) else item:
                if isinstance(part, list | tuple | dict):
                    below[id(part)] = part
        level = list(below.values())
    return False


def known_fields(record_type: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a stored record that `record_type`, a dataclass, has: a later version may have added some."""
    known: Collection[str] = record_type.__dataclass_fields__
    return {name: value for name, value in record.items() if name in known}


def same_json(one: Any, other: Any) -> bool:
    """Whether two models, or two values of JSON, are the same, in whatever order the keys of mappings are. To `==` alone 1, 1.0 and true are
    one value."""
    return bool(one == other) and _sorted_json(one) == _sorted_json(other)


def _sorted_json(value: Any) -> bytes:
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
