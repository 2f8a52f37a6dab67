"""What pages have in common in asking: what may be away, and which part of a list."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Annotated, TypeVar

from fastapi import Query

from whenthen.engine.http.answers import HttpError
from whenthen.schemas.errors import BusUnavailable, NotFound

__all__ = ["Choice", "PageNumber", "following", "given", "if_kept", "if_there", "whole_number"]

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


def whole_number(form: Mapping[str, str], name: str) -> int:
    """A field of a form that a page of ours has filled.

    Raises:
        HttpError: 400, it is no whole number.
    """
    text = form.get(name, "")
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) < 20:
        raise HttpError(400, "invalid_request", "a whole number is expected, as the page has it", path=(name,))
    return int(text)
