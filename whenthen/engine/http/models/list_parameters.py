"""Query parameters that lists, the history and the stream have in common."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

__all__ = ["After", "Filter", "Limit", "Pairs", "Since", "Until", "given"]

Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
After = Annotated[str | None, Query(max_length=512, description="The name of the last one of the answer before.")]
Filter = Annotated[str | None, Query(max_length=4096)]
Since = Annotated[str | None, Query(max_length=64, description="A time, or how long ago: `2h`. The beginning.")]
Until = Annotated[str | None, Query(max_length=64, description="A time, or how long ago: `2h`. The end, exclusive.")]
Pairs = Annotated[list[str] | None, Query(max_length=64, description="`name=value`; several times for several.")]


def given(**filters: str | None) -> dict[str, str]:
    """The filters that a request has, by name."""
    return {name: value for name, value in filters.items() if value is not None}
