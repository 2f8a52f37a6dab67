"""The OpenAPI document, completed: the hot routes, which FastAPI does not see, and the one form of errors.

Called by `app`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["complete"]

_LABELS = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"type": "string", "minLength": 1}},
    "additionalProperties": {"type": "string"},
}
_SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["reason", "field", "message"],
                "properties": {
                    "reason": {"type": "string", "description": "A stable word."},
                    "field": {"type": ["string", "null"], "description": "The path of the field at fault."},
                    "message": {"type": "string", "description": "What was found and the remedy."},
                },
            }
        },
    },
    "Event": {
        "type": "object",
        "required": ["event", "resource"],
        "properties": {
            "id": {"type": ["string", "null"], "minLength": 1, "maxLength": 256, "description": "One id is one event."},
            "event": {"type": "string", "minLength": 1, "maxLength": 256, "examples": ["order.created"]},
            "occurred": {"type": ["string", "null"], "format": "date-time"},
            "resource": _LABELS,
            "related": {"type": ["array", "null"], "items": _LABELS},
            "payload": {},
            "follows": {"type": ["string", "null"], "description": "The id of the event that came before this one."},
        },
        "additionalProperties": False,
    },
    "Accepted": {
        "type": "object",
        "required": ["ids", "duplicates"],
        "properties": {
            "ids": {"type": "array", "items": {"type": "string"}, "description": "Stored by JetStream."},
            "duplicates": {"type": "array", "items": {"type": "string"}, "description": "Of these, had been before."},
            "dropped": {"type": "array", "items": {"type": "string"}, "description": "What gave no event, and why."},
        },
    },
}
_TEXTS = {
    "400": "What was sent is wrong; nothing was changed.",
    "401": "The token or signature is missing or wrong.",
    "403": "Not allowed.",
    "404": "There is no such thing.",
    "405": "Another method is wanted; `Allow` names it.",
    "409": "Not in the state that this needs.",
    "413": "The body is too large.",
    "415": "The body is of another kind than is taken.",
    "503": "NATS is away or full; try again after `Retry-After` seconds.",
}
_OBJECT: dict[str, Any] = {"type": "object"}
_OBJECTS: dict[str, Any] = {"type": "array", "items": _OBJECT}
_ACCEPTED = {
    "description": "JetStream has acknowledged every event.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Accepted"}}},
}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's `document` with what it can not know."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for generated in ("HTTPValidationError", "ValidationError"):
        schemas.pop(generated, None)
    schemas.update(_SCHEMAS)
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            _describe_value(operation)
            if path.startswith("/api/"):
                operation["security"] = [{"token": []}, {}]
                _add_errors(operation, "400", "401", "404", "409", "503")
                if "requestBody" in operation:
                    _add_errors(operation, "413", "415")
            elif path == "/readyz":
                operation["responses"]["503"] = {
                    "description": "Not ready; the body names what is missing.",
                    "content": {"application/json": {"schema": _OBJECT}},
                }
            if path == "/api/rules/reload":
                operation["responses"]["400"] = {
                    "description": "The rules have problems, which the body lists; the last good ones stay.",
                    "content": {"application/json": {"schema": _OBJECT}},
                }
    event = {"$ref": "#/components/schemas/Event"}
    publish: dict[str, Any] = {
        "summary": "Publish events",
        "operationId": "publish_events",
        "tags": ["events"],
        "description": "One event or a list of them. All are checked before the first is stored.",
        "security": [{"token": []}, {}],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"anyOf": [event, {"type": "array", "items": event, "minItems": 1}]}},
                "application/cloudevents+json": {"schema": {"type": "object"}},
                "application/cloudevents-batch+json": {"schema": {"type": "array", "items": {"type": "object"}}},
            },
        },
        "responses": {"202": _ACCEPTED},
    }
    _add_errors(publish, "400", "401", "413", "415", "503")
    document["paths"].setdefault("/api/events", {})["post"] = publish
    hook: dict[str, Any] = {
        "summary": "Call a webhook",
        "operationId": "call_webhook",
        "tags": ["events"],
        "description": "What the body means, and how it is verified, is in the rules. One request may give no event.",
        "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}],
        "requestBody": {"required": True, "content": {"*/*": {"schema": {}}}},
        "responses": {"202": _ACCEPTED, "200": {"description": "The answer that a provider's handshake asks for."}},
    }
    _add_errors(hook, "400", "401", "403", "404", "405", "413", "415", "503")
    document["paths"]["/hooks/{name}"] = {"post": hook}
    return document


def _describe_value(operation: dict[str, Any]) -> None:
    """Say that what is asked for is a list or an object: FastAPI takes an answer that is JSON already for text."""
    value = _OBJECTS if operation["operationId"].startswith("list_") else _OBJECT
    for status in ("200", "201"):
        content = operation["responses"].get(status, {}).get("content", {})
        if "application/json" in content:
            content["application/json"]["schema"] = value


def _add_errors(operation: dict[str, Any], *statuses: str) -> None:
    for status in statuses:
        answer: dict[str, Any] = {
            "description": _TEXTS[status],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        if status == "503":
            answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
        operation["responses"].setdefault(status, answer)
