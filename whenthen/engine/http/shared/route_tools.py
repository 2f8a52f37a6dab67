"""What routes have in common: a body that is bounded before it is read, and a list with a link to what follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel

from whenthen.engine.bus.stream_pages import StreamPage
from whenthen.engine.http.bodies import BodyBudget, body_of
from whenthen.engine.http.models.request_models import Listing
from whenthen.sources import decode_json

__all__ = ["BODY_LIMIT", "NOTE", "linked", "optional_body"]

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
NOTE: Final = "whenthen-note"  #: a header: what people should know of a list
BODY_LIMIT: Final = 1_000_000  #: of a request, in bytes


async def optional_body(request: Request, budget: BodyBudget, read: Callable[[Any], M], without: Callable[[], M]) -> M:
    """What `read` makes of the body; of none what `without` gives."""
    async with body_of(request.scope, request.receive, BODY_LIMIT, budget) as body:
        return read(decode_json(body)) if body else without()


def linked(request: Request, response: Response, items: list[T]) -> list[T]:
    """The items of a listing, with a link (RFC 8288) to what follows if there are fewer of them than there may be."""
    parameters: Mapping[str, Any] | None = None
    if isinstance(items, Listing):
        parameters = items.following
    elif isinstance(items, StreamPage) and items.next is not None:
        parameters = {"before": items.next}
    if parameters is not None:
        following = request.url.include_query_params(**parameters)
        response.headers["link"] = f'<{following.path}?{following.query}>; rel="next"'
    for note in items.notes if isinstance(items, Listing) else ():
        response.headers.append(NOTE, _header_text(note))
    return items


def _header_text(text: str) -> str:
    return "".join(char if " " <= char <= "~" else ascii(char)[1:-1] for char in text)
