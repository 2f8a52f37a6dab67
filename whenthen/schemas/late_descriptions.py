"""Models whose fields are described by the docstrings below them, which are read when a JSON schema is made of the model.

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

__all__ = ["DocumentedModel"]


class DocumentedModel(BaseModel):
    """A base of models. A description that a field is given otherwise stands."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties: dict[str, Any] = handler.resolve_ref_schema(schema).get("properties", {})
        for base in cls.__mro__:  # the class itself first
            for name, text in _descriptions(base.__module__).get(base.__qualname__, {}).items():
                field = cls.model_fields.get(name)
                if field is None:
                    continue
                for shown in (name, field.alias, field.validation_alias, field.serialization_alias):
                    if isinstance(shown, str) and shown in properties:
                        properties[shown].setdefault("description", text)
        return schema


@cache
def _descriptions(module: str) -> dict[str, dict[str, str]]:
    """The docstrings below the fields of the classes of a module; none where its source is not at hand."""
    if not module.startswith("whenthen."):
        return {}
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
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
