"""Query parameters that a route with filters does not have are refused: one that is misspelt would give another list than was asked for."""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute

from whenthen.engine.http.answers import HttpError
from whenthen.schemas.errors import did_you_mean

__all__ = ["check_parameters"]

_PAGING = frozenset({"limit", "before", "after"})


async def check_parameters(request: Request) -> None:
    """Async, as FastAPI runs others in threads. Raises HttpError (400): the route has no such parameter."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    known = [field.alias for field in route.dependant.query_params]
    if _PAGING.issuperset(known):
        return
    for name in request.query_params:
        if name not in known:
            raise HttpError(
                400,
                "invalid_input",
                f"this address has no parameter {name[:80]!r}{did_you_mean(name, known)}; it has {', '.join(known)}",
                path=(name[:80],),
            )
