"""What pages have in common in asking: what may be away, and which part of a list."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, TypeVar

from fastapi import Query

from whenthen.schemas.errors import BusUnavailable, NotFound

__all__ = ["Choice", "PageNumber", "following", "given", "if_kept", "if_there"]

T = TypeVar("T")

Choice = Annotated[str, Query(max_length=4096)]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000, description="Which part of the list, from 1.")]


async def if_there(asked: Awaitable[T]) -> T | None:
    """What is asked for; None while whoever answers it is away, such as the role `history`. The page says so."""
    try:
        return await asked
    except BusUnavailable:
        return None


async def if_kept(asked: Awaitable[T]) -> T | None:
    """The same; None also where it is not kept any more, such as an event whose decision is still on record."""
    try:
        return await if_there(asked)
    except NotFound:
        return None


def given(**filters: str) -> dict[str, str]:
    """Those filters that are not empty."""
    return {name: value.strip() for name, value in filters.items() if value.strip()}


def following(found: object) -> str | None:
    """`before` of the page after this one; None at the end."""
    place: str | None = (getattr(found, "following", None) or {}).get("before")
    return place
