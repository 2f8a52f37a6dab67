"""Query parameters that a route does not take so: one that is misspelt, or given twice where it holds one value, would give another
answer than was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import get_args, get_origin

from fastapi import Request
from fastapi.routing import APIRoute

from whenthen.engine.http.answers import HttpError
from whenthen.schemas.errors import did_you_mean

__all__ = ["check_parameters", "check_repeated", "single_parameters"]

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


def single_parameters(route: APIRoute) -> frozenset[str]:
    """The query parameters of a route that hold one value."""
    fields = route.dependant.query_params
    return frozenset(field.alias for field in fields if not _holds_several(field.field_info.annotation))


def _holds_several(annotation: object) -> bool:
    return get_origin(annotation) is list or any(get_origin(each) is list for each in get_args(annotation))


def check_repeated(request: Request, single: Collection[str]) -> None:
    """Raises HttpError (400): one of the parameters in `single` is given several times, of which one alone would count."""
    if not request.scope["query_string"]:
        return
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if count > 1 and name in single:
            raise HttpError(
                400, "invalid_input", f"{name} is given {count} times and holds one value; give it once", path=(name,)
            )
