"""Paths by which requests are routed: an encoded slash in an id does not end its step.

`app` gives FastAPI paths in which the slashes and percent signs inside of a step are still encoded, and `Named` decodes them in the
parameters of routes. So ids such as `orders/17`, `https://x/1#2`, `.` and `..` are one step, and none is taken for another route.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import Path
from pydantic import BeforeValidator

from whenthen.engine.http.answers import Scope

__all__ = ["Named", "decoded_step", "raw_path", "routed_path"]


def raw_path(scope: Scope) -> bytes:
    """The path as it was sent, without the query."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return str(scope["path"]).replace("%", "%25").encode("utf-8", "replace")
    return raw.partition(b"?")[0]  # uvicorn may leave the query in it


def routed_path(scope: Scope) -> str:
    """The path with every step decoded, but for slashes and percent signs inside of it."""
    raw = raw_path(scope)
    if b"%" not in raw:
        return str(scope["path"])
    return "/".join(_routed_step(step) for step in raw.split(b"/"))


def decoded_step(step: str) -> str:
    """The text that a step of a routed path stands for."""
    return step.replace("%2F", "/").replace("%25", "%")


#: a parameter of a route: a name or an id, as it is
Named = Annotated[str, BeforeValidator(decoded_step), Path(min_length=1, max_length=512)]


def _routed_step(raw: bytes) -> str:
    return unquote_to_bytes(raw).decode("utf-8", "replace").replace("%", "%25").replace("/", "%2F")
