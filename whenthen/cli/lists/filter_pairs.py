"""Filters of the history and of what is shown live, as `NAME=VALUE` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from whenthen.cli.output import fail
from whenthen.schemas.errors import did_you_mean

__all__ = ["COUNTED", "FILTERS", "FilterPairs", "read_filters"]

#: as the routes have them
FILTERS = (
    "id", "name", "label", "related", "automation", "reason", "event", "firing", "key", "state", "type", "deployment", "work_pool", "kind",
    "who", "text",
)  # fmt: skip

#: of counts
COUNTED = ("name", "automation", "reason", "state", "deployment", "kind", "cause")

FilterPairs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME=VALUE", help=f"Filters: {', '.join(FILTERS)}; of labels label=team=data.", show_default=False
    ),
]


def read_filters(pairs: Sequence[str] | None, known: Sequence[str] = FILTERS) -> dict[str, list[str]]:
    """The query parameters that pairs stand for, each one of `known`. Ends the command with an error of usage when one is none."""
    found: dict[str, list[str]] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals:
            fail(f"{pair[:80]!r} is not of the form name=value", 2)
        if name not in known:
            fail(f"no filter is named {name[:80]!r}{did_you_mean(name, known)}; there are {', '.join(known)}", 2)
        found.setdefault(name, []).append(value)
    return found
