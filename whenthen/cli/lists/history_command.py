"""`whenthen history`: what happened in the last weeks, and how much of it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

import typer

from whenthen.cli.command_groups import new_group
from whenthen.cli.lists.filter_pairs import COUNTED, FilterPairs, read_filters
from whenthen.cli.lists.listings import Column, local_time, print_items
from whenthen.cli.lists.tables import Shape
from whenthen.cli.options import DEFAULT_URL, MAX_PAGE, CaOption, Output, OutputOption, UrlOption
from whenthen.cli.output import errors, print_json, print_lines, stderr, stdout
from whenthen.schemas.times import format_duration

__all__ = ["add_commands"]

TABLES = (
    Column(title="TABLE", value="name"),
    Column(title="ROWS", value=lambda table: f"{'over ' if table['more'] else ''}{table['rows']}", shape=Shape.NUMBER),
    Column(title="OLDEST", value=local_time("oldest")),
    Column(title="NEWEST", value=local_time("newest")),
)
STREAMS = (
    Column(title="STREAM", value="stream"),
    Column(title="SHARD", value="shard", shape=Shape.NUMBER),
    Column(title="TAKEN", value="taken", shape=Shape.NUMBER),
    Column(title="UP TO", value=local_time("at")),
    Column(title="BEHIND", value=lambda item: _behind(item["behind"]), shape=Shape.NUMBER),
    Column(title="BY", value=lambda item: _by(item["behind"]), optional=True),
)
COUNTS = (
    Column(title="FROM", value=local_time("at")),
    Column(title="VALUE", value="value", shape=Shape.NAME, optional=True),
    Column(title="COUNT", value="count", shape=Shape.NUMBER),
)


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    history = new_group(app, "history", "What happened in the last weeks, and how much of it is kept.")
    history.command("stats")(stats)
    history.command("list")(list_kind)
    history.command("counts")(count_kind)


def _behind(lag: Mapping[str, Any] | None) -> str | int:
    """Messages."""
    return "" if lag is None else int(lag["messages"])


def _by(lag: Mapping[str, Any] | None) -> str:
    """How old the oldest of them is."""
    return format_duration(timedelta(seconds=round(lag["seconds"]))) if lag and lag["messages"] else ""


@errors
def stats(url: UrlOption = DEFAULT_URL, ca: CaOption = None, output: OutputOption = Output.TABLE) -> None:
    """How much the history holds, and how far it is."""
    from whenthen.cli.client import Client

    with Client.connect(url, ca) as client:
        found: dict[str, Any] = client.get("/api/history")
    if output is Output.JSON:
        print_json(found)
        return
    stdout().print(f"{found['where']}: {found['bytes'] / 1e6:.1f} MB", markup=False)
    print_items(TABLES, found["tables"], output=output, empty="no tables")
    typer.echo()
    print_items(STREAMS, found["streams"], output=output, empty="no streams yet")


@errors
def list_kind(
    kind: Annotated[
        str,
        typer.Argument(help="events, decisions, firings, actions, runs or audit.", show_default=False),
    ],
    filters: FilterPairs = None,
    since: Annotated[str | None, typer.Option(help="A time, or how long ago: 2h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="A time, or how long ago; exclusive.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_PAGE, help="How many at most.")] = 50,
    before: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
) -> None:
    """What happened, newest first, as JSON lines. The next page is named on standard error."""
    from whenthen.cli.client import Client, quoted

    parameters = read_filters(filters)
    with Client.connect(url, ca) as client:
        found = client.get(
            f"/api/history/{quoted(kind)}",
            **{**parameters, "limit": limit, "before": before, "since": since, "until": until},
        )
    print_lines(found["items"])
    if found["next"] is not None:
        why = "more" if found["whole"] else f"stopped after {found['scanned']} rows; there may be more"
        stderr().print(f"{why}: --before {found['next']}", markup=False)


@errors
def count_kind(
    kind: Annotated[
        str,
        typer.Argument(help="events, decisions, firings, actions, runs or audit.", show_default=False),
    ],
    filters: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=VALUE", help=f"Filters: {', '.join(COUNTED)}.", show_default=False),
    ] = None,
    by: Annotated[str | None, typer.Option(help="A field, such as automation, reason or state.")] = None,
    step: Annotated[str, typer.Option(help="hour or day.")] = "hour",
    since: Annotated[str | None, typer.Option(help="A time, or how long ago; default: the day before --until.")] = None,
    until: Annotated[str | None, typer.Option(help="A time, or how long ago; exclusive.")] = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """How many there were in each hour or day (UTC); those without any are left out."""
    from whenthen.cli.client import Client, quoted

    parameters = read_filters(filters, COUNTED)
    with Client.connect(url, ca) as client:
        found = client.get(
            f"/api/history/{quoted(kind)}/counts",
            **{**parameters, "by": by, "step": step, "since": since, "until": until},
        )
    print_items(COUNTS, found, output=output, empty="none in this time")
