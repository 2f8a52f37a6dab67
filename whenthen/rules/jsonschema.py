"""The JSON Schema of rules files: completion and hover text in editors, with the short forms that people write.

Printed by `whenthen schema`. Editors find it by the comment `# yaml-language-server: $schema=...` in a file's first line.
"""

from __future__ import annotations

import copy
from typing import Any

from whenthen.schemas.actions import ACTIONS
from whenthen.schemas.automations import RuleFile
from whenthen.schemas.providers import Provider

__all__ = ["providers_schema", "rules_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def rules_schema() -> dict[str, Any]:
    """The schema of one file."""
    schema = RuleFile.model_json_schema(by_alias=True, mode="validation")
    definitions: dict[str, Any] = schema["$defs"]
    shorts = [_short_forms(kind, model.__name__, model.primary, definitions) for kind, model in ACTIONS.items()]
    long = [{"$ref": f"#/$defs/{model.__name__}"} for model in ACTIONS.values()]
    definitions["Action"] = {
        "title": "Action",
        "description": "One thing to do, in the long form {type: ...} or the short form, such as run-deployment: loader.",
        "anyOf": [*(form for forms in shorts for form in forms), *long],
    }
    refs = {f"#/$defs/{model.__name__}" for model in ACTIONS.values()}
    schema["$defs"] = {
        name: definition if name == "Action" else _use_action(definition, refs)
        for name, definition in definitions.items()
    }
    return {
        "$schema": DIALECT,
        "$id": "whenthen-rules",
        "title": "whenthen rules",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def providers_schema() -> dict[str, Any]:
    """The schema of a file of one provider, as those of the package are."""
    schema = Provider.model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": DIALECT,
        "$id": "whenthen-provider",
        "title": "whenthen provider",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _short_forms(kind: str, name: str, primary: str | None, definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """`{run-deployment: loader, ...}`; and the bare name where nothing has to be given."""
    model = definitions[name]
    properties = copy.deepcopy(model["properties"])
    properties.pop("type")
    required = [field for field in model.get("required", ()) if field not in ("type", primary)]
    value = properties.pop(primary) if primary else {}
    described = {"description": model.get("description", ""), **value} if value else {"type": ["null", "object"]}
    short = {
        "title": kind,
        "type": "object",
        "description": model.get("description", ""),
        "properties": {kind: described, **properties},
        "required": [kind, *required],
        "additionalProperties": False,
    }
    needs_primary = primary is not None and primary in model.get("required", ())
    if required or needs_primary:
        return [short]
    return [{"const": kind, "description": model.get("description", "")}, short]


def _use_action(node: Any, refs: set[str]) -> Any:
    """Point every union of all actions at the one definition that knows the short forms."""
    if isinstance(node, list):
        return [_use_action(item, refs) for item in node]
    if not isinstance(node, dict):
        return node
    options = node.get("oneOf") or node.get("anyOf")
    if isinstance(options, list) and {option.get("$ref") for option in options if isinstance(option, dict)} == refs:
        return {"$ref": "#/$defs/Action"}
    return {key: _use_action(value, refs) for key, value in node.items()}
