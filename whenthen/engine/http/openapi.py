"""The OpenAPI document, completed: the hot routes, which FastAPI does not see, and the one form of errors.

Called by `app`. All schemas are those of `answer_models` and `request_models`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from whenthen.engine.http.access.route_scopes import ROUTES, Need
from whenthen.engine.http.models.access_models import TokenRequest
from whenthen.engine.http.models.answer_models import (
    Accepted,
    ErrorAnswer,
    LeaseRequest,
    PublishFailure,
    Readiness,
    ReloadReport,
    VariableRequest,
)
from whenthen.engine.http.models.request_models import (
    NewEvent,
    PauseRequest,
    RollbackRequest,
    RuleSetRequest,
    RunRequest,
)

__all__ = ["complete"]

_REF = "#/components/schemas/{model}"
_DESCRIPTIONS = {
    "400": "What was sent is wrong; nothing was changed.",
    "401": "The token or signature is missing or wrong.",
    "403": "Not allowed.",
    "404": "There is no such thing.",
    "405": "Another method is wanted; `Allow` names it.",
    "409": "Not in the state that this needs.",
    "413": "The body is too large.",
    "415": "The body is of another kind than is taken.",
    "429": "Too many tries from this address; `Retry-After` says when to try again.",
    "503": "NATS is away or full; try again after `Retry-After` seconds.",
}
_OBJECT: dict[str, Any] = {"type": "object"}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's `document` with what it can not know."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for generated in ("HTTPValidationError", "ValidationError"):
        schemas.pop(generated, None)
    for mode, models in (
        (
            "validation",
            (
                *(NewEvent, PauseRequest, RollbackRequest, RuleSetRequest, RunRequest, TokenRequest),
                *(VariableRequest, LeaseRequest),
            ),
        ),
        ("serialization", (Accepted, ErrorAnswer, PublishFailure, Readiness, ReloadReport)),
    ):
        _, found = models_json_schema([(model, mode) for model in models], ref_template=_REF)  # type: ignore[misc]
        schemas.update(found["$defs"])
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": "whenthen"},
    }
    paths = document["paths"]
    paths["/api/deployments/{name}/run"]["post"]["requestBody"] = {
        "required": False,
        "content": _json(_ref(RunRequest)),
    }
    for path, asked in (("/api/variables/{name}", VariableRequest), ("/api/leases", LeaseRequest)):
        paths[path]["post"]["requestBody"] = {"required": True, "content": _json(_ref(asked))}
    for path, model in (
        ("/api/automations/{name}/pause", PauseRequest),
        ("/api/rules/plan", RuleSetRequest),
        ("/api/rules/apply", RuleSetRequest),
        ("/api/rules/revisions/{number}/rollback", RollbackRequest),
    ):
        paths[path]["post"]["requestBody"] = {"required": False, "content": _json(_ref(model))}
    paths["/api/tokens"]["post"]["requestBody"] = {"required": True, "content": _json(_ref(TokenRequest))}
    paths["/login"]["post"]["requestBody"] = {
        "required": True,
        "content": {
            **_json({"type": "object", "properties": {"token": {"type": "string"}}, "required": ["token"]}),
            "application/x-www-form-urlencoded": {"schema": _OBJECT},
        },
    }
    page = {"text/html": {"schema": {"type": "string"}}}
    for method in ("get", "post"):
        responses = paths["/login"][method]["responses"]
        responses["303"] = {"description": "Logged in, or no login is needed; `Location` leads on."}
        _add_errors(paths["/login"][method], "400", "429", "503")
    paths["/login"]["get"]["responses"]["401"] = {"description": _DESCRIPTIONS["401"], "content": page}
    _add_errors(paths["/login"]["post"], "401", "409", "413", "415")
    paths["/login"]["post"]["responses"]["401"]["content"] |= page
    paths["/logout"]["post"]["responses"]["303"] = {"description": "Logged out, by a form."}
    _add_errors(paths["/logout"]["post"], "400", "401", "403", "503")
    for path, operations in paths.items():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)
            if path.startswith("/api/"):
                _state_need(operation, method, path)
                _add_errors(operation, "400", "401", "403", "404", "409", "429", "503")
                if "requestBody" in operation:
                    _add_errors(operation, "413", "415")
    paths["/readyz"]["get"]["responses"]["503"] = {
        "description": "Not ready; the body names what is missing.",
        "content": _json(_ref(Readiness)),
    }
    paths["/api/rules/reload"]["post"]["responses"]["400"] = {
        "description": "The rules have problems, which the body lists; the last good ones stay.",
        "content": _json(_ref(ReloadReport)),
    }
    paths["/asyncapi.json"]["get"]["responses"]["200"]["content"] = _json(_OBJECT)
    paths.setdefault("/api/events", {})["post"] = _publish()
    paths["/hooks/{name}"] = {"post": _call_webhook()}
    return document


def _state_need(operation: dict[str, Any], method: str, path: str) -> None:
    """Say which scope an operation needs."""
    needs = [
        need
        for (known, template), need in ROUTES.items()
        if (known, template.replace(":path}", "}")) == (method.upper(), path)
    ]
    operation["security"] = [{"token": []}, {"session": []}, {}]
    operation["x-scope"] = "any" if needs[0] is Need.TOKEN else str(needs[0])


def _publish() -> dict[str, Any]:
    event = _ref(NewEvent)
    operation: dict[str, Any] = {
        "summary": "Publish events",
        "operationId": "publish_events",
        "tags": ["events"],
        "description": "One event or a list of them. All are checked before the first is stored. With headers `ce-...` "
        "the body is the data of a CloudEvent in binary mode, of any content type.",
        "security": [{"token": []}, {"session": []}, {}],
        "x-scope": str(ROUTES["POST", "/api/events"]),
        "requestBody": {
            "required": True,
            "content": {
                **_json({"anyOf": [event, {"type": "array", "items": event, "minItems": 1}]}),
                "application/cloudevents+json": {"schema": _OBJECT},
                "application/cloudevents-batch+json": {"schema": {"type": "array", "items": _OBJECT}},
            },
        },
        "responses": {"202": _accepted("JetStream has acknowledged every event.")},
    }
    _add_errors(operation, "400", "401", "403", "413", "415", "429")
    _add_errors(operation, "503", model=PublishFailure)
    return operation


def _call_webhook() -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": "Call a webhook",
        "operationId": "call_webhook",
        "tags": ["events"],
        "description": "What the body means, and how it is verified, is in the rules. One request may give no event.",
        "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}],
        "requestBody": {"required": True, "content": {"*/*": {"schema": {}}}},
        "responses": {
            "202": _accepted("JetStream has acknowledged every event."),
            "200": _accepted("The request is genuine and gave no event."),
        },
    }
    _add_errors(operation, "400", "401", "403", "404", "405", "413", "415")
    _add_errors(operation, "503", model=PublishFailure)
    return operation


def _accepted(description: str) -> dict[str, Any]:
    return {"description": description, "content": _json(_ref(Accepted))}


def _add_errors(operation: dict[str, Any], *statuses: str, model: type[BaseModel] = ErrorAnswer) -> None:
    for status in statuses:
        answer: dict[str, Any] = {"description": _DESCRIPTIONS[status], "content": _json(_ref(model))}
        if status == "503":
            answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
        operation["responses"].setdefault(status, answer)


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REF.format(model=model.__name__)}
