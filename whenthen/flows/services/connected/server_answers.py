"""What a program beside the runs asks a server for over HTTP, where a run asks its worker: the same kinds of requests, with the same answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from whenthen.flows.flow_errors import ObjectNotFound
from whenthen.flows.services.server_requests import ServerAddress, part

__all__ = ["answer_over_http", "is_answered_over_http"]


def is_answered_over_http(kind: str) -> bool:
    """Whether `WHENTHEN_URL` says where a server is, and it answers such requests. It gives no secrets to anybody."""
    return kind in _ANSWERS and bool(os.environ.get("WHENTHEN_URL"))


def answer_over_http(kind: str, body: dict[str, Any]) -> Any:
    """
    Raises:
        ServerError: no server answers, or it refuses.
    """
    return _ANSWERS[kind](ServerAddress.of_environment(), body)


def _get_variable(server: ServerAddress, body: dict[str, Any]) -> Any:
    try:
        return server.get(f"/api/variables/{part(body['name'])}")
    except ObjectNotFound:
        return None


def _set_variable(server: ServerAddress, body: dict[str, Any]) -> Any:
    sent = {name: body[name] for name in ("value", "tags", "overwrite")}
    return server.post(f"/api/variables/{part(body['name'])}", sent)


def _unset_variable(server: ServerAddress, body: dict[str, Any]) -> Any:
    return server.post(f"/api/variables/{part(body['name'])}/unset")["unset"]


def _get_json(server: ServerAddress, body: dict[str, Any]) -> Any:
    return server.get(f"/api/variables/{part(body['name'])}")["value"]


def _get_artifact(server: ServerAddress, body: dict[str, Any]) -> Any:
    found = list(server.get("/api/artifacts", key=body["key"], limit=1))
    return found[0] if found else None


_ANSWERS: Final[dict[str, Callable[[ServerAddress, dict[str, Any]], Any]]] = {
    "variable.get": _get_variable,
    "variable.set": _set_variable,
    "variable.unset": _unset_variable,
    "json.get": _get_json,
    "artifact.get": _get_artifact,
}
