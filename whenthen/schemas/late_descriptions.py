"""Models whose fields are described by the docstrings below them, which are read when somebody asks for them: a JSON schema, a page, a message.

pydantic's own way (`use_attribute_docstrings`) looks for the source of each class while it is defined: a tenth of the time in which a
process starts, for texts that only documents show.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from whenthen.python_syntax import parse_module, source_of

__all__ = ["DocumentedModel", "description_of"]


class DocumentedModel(BaseModel):
    """A base of models. A description that a field is given otherwise stands."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties: dict[str, Any] = handler.resolve_ref_schema(schema).get("properties", {})
        for name, field in cls.model_fields.items():
            if field.description is not None or (text := description_of(cls, name)) is None:
                continue
            for shown in (name, field.alias, field.validation_alias, field.serialization_alias):
                if isinstance(shown, str) and shown in properties:
                    # in the place of that of the type; before the title, as pydantic has it, which does not sort everywhere
                    title = {"title": found} if (found := properties[shown].pop("title", None)) is not None else {}
                    properties[shown] |= {"description": text, **title}
        return schema


def description_of(model: type[BaseModel], name: str) -> str | None:
    """What a field means: the description that it was given, else the docstring below it, in the class that declares it."""
    given = model.model_fields[name].description
    if given is not None:
        return given
    declaring = next((base for base in model.__mro__ if name in vars(base).get("__annotations__", ())), model)
    return _descriptions(declaring.__module__).get(declaring.__qualname__, {}).get(name)


@cache
def _descriptions(module: str) -> dict[str, dict[str, str]]:
    """The docstrings below the fields of the classes of a module; none where its source is not at hand."""
    if not module.startswith("whenthen."):
        return {}
    try:
        tree = parse_module(source_of(sys.modules[module]))
    except OSError:
        return {}
    return {node.name: _below_fields(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _below_fields(node: ast.ClassDef) -> dict[str, str]:
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(node.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
