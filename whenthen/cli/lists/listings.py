"""Listings: what a list command asks the API for and shows, as data, and the command that is made of it.

A `Listing` names its route, its columns, and the filters that become options. All listings have `--json` and `--output`;
those that grow have `--limit`, the newest first. A table fits the terminal, or 80 columns where there is none (`COLUMNS`
says otherwise).
"""

from __future__ import annotations

import inspect
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import typer

from whenthen.cli.lists.tables import Heading, Shape, clean, narrow_table, wide_table
from whenthen.cli.options import DEFAULT_URL, MAX_PAGE, CaOption, JsonOption, Output, OutputOption, UrlOption
from whenthen.cli.output import errors, fail, print_json, print_lines, stderr, visible

__all__ = [
    "ID",
    "OF_AUTOMATION",
    "OF_FIRING",
    "SINCE",
    "TEXT",
    "UNTIL",
    "Column",
    "Filter",
    "Listing",
    "add_listing",
    "joined",
    "list_command",
    "local_time",
    "print_items",
    "same_day",
]

FOLLOW_EVERY_S = 0.5
#: of a listing that is read page by page
MAX_ITEMS = 100_000
Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. `value` is a field of an item, or a function of it."""

    title: str
    value: str | Callable[[Item], Any]
    shape: Shape = Shape.FIXED
    brief: Callable[[Item], str] | None = None  #: what a table that has to fit shows instead
    optional: bool = False  #: left out when no item has anything in it

    def text(self, item: Item, *, wide: bool = True) -> str:
        """What stands in the column for `item`."""
        value = self.value if wide or self.brief is None else self.brief
        found = item[value] if isinstance(value, str) else value(item)
        return "" if found is None else clean(str(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A query parameter of the route, as an option."""

    name: str
    help: str
    flags: tuple[str, ...] = ()  #: `--name` unless given
    many: bool = False  #: whether it may be given several times


SINCE = Filter(name="since", help="Not before: a time, or how long ago, such as 2h.")
UNTIL = Filter(name="until", help="Before: a time, or how long ago.")
TEXT = Filter(name="text", help="With this text anywhere, whatever its case.")
ID = Filter(name="id", help="Whose id begins so.")
OF_AUTOMATION = Filter(name="automation", flags=("--automation", "-a"), help="Of this automation.")
OF_FIRING = Filter(name="firing", help="Of the firing with this id.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One list of the API."""

    about: str  #: the help of its command
    route: str  #: `{name}` in it is the command's argument
    columns: tuple[Column, ...]
    empty: str  #: what is said when there is nothing to list
    filters: tuple[Filter, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)  #: query parameters that it always has
    argument: str | None = None  #: the help of the argument
    most: int = (
        0  #: what `--limit` takes: `MAX_ITEMS` where the API has pages, `MAX_PAGE` where it has one, 0 for no limit
    )
    follow: bool = False  #: whether `--follow` goes on with what comes


def add_listing(app: typer.Typer, listing: Listing) -> None:
    """Make `listing` what the group `app` does when it is called alone: `whenthen runs` is `whenthen runs list`."""
    command = list_command(listing, alone=True)
    app.callback(help=listing.about)(command)
    app.command("list", help=listing.about)(command)


def list_command(listing: Listing, *, alone: bool = False) -> Callable[..., None]:
    """The command of a listing. With `alone` it stands for its group too, and does nothing when another one is called."""

    @errors
    def command(**given: Any) -> None:
        if alone and not _asked(given.pop("context")):
            return
        _run(listing, **given)

    parameters = _parameters(listing, alone=alone)
    # typer reads a command's options from the signature of its function
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = listing.about
    return command


def print_items(columns: Sequence[Column], items: Sequence[Item], *, output: Output, empty: str) -> None:
    """Items as a table or as JSON."""
    if output is Output.JSON:
        print_json(items)
        return
    if not items:
        typer.echo(empty)
        return
    shown = [column for column in columns if not column.optional or any(map(column.text, items))]
    headings = [Heading(column.title, column.shape) for column in shown]
    rows = [[column.text(item, wide=output is Output.WIDE) for column in shown] for item in items]
    if output is Output.WIDE:
        lines = wide_table(headings, rows)
    else:
        lines = narrow_table(headings, rows, shutil.get_terminal_size((80, 24)).columns)
    typer.secho(lines[0], bold=True)
    typer.echo("\n".join(lines[1:]))


def local_time(name: str) -> Callable[[Item], str]:
    """The time in a field as this machine's clock shows it, to the second; empty for none."""

    def shown(item: Item) -> str:
        text = item[name]
        return "" if text is None else datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")

    return shown


def same_day(name: str, beside: str) -> Callable[[Item], str]:
    """The time in a field as `local_time`, without the date that the time in the field `beside` has, too."""
    one, other = local_time(name), local_time(beside)

    def shown(item: Item) -> str:
        text = one(item)
        date = other(item)[:11]
        return text.removeprefix(date) if date else text

    return shown


def joined(name: str) -> Callable[[Item], str]:
    """The texts of a field, with commas."""
    return lambda item: ", ".join(map(str, item[name] or ()))


def _parameters(listing: Listing, *, alone: bool) -> list[inspect.Parameter]:
    found: list[tuple[str, Any, Any]] = []
    if alone:
        found.append(("context", typer.Context, inspect.Parameter.empty))
    if listing.argument is not None:
        argument = typer.Argument(metavar="NAME", help=listing.argument, show_default=False)
        found.append(("name", Annotated[str, argument], inspect.Parameter.empty))
    for item in listing.filters:
        flags = item.flags or (f"--{item.name.replace('_', '-')}",)
        option = typer.Option(*flags, help=item.help)
        found.append(
            (item.name, Annotated[list[str] | None, option] if item.many else Annotated[str | None, option], None)
        )
    if listing.follow:
        option = typer.Option("--follow", "-f", help="Go on with new ones until Ctrl-C.")
        found.append(("follow", Annotated[bool, option], False))
    if listing.most:
        option = typer.Option("--limit", "-n", min=1, max=listing.most, help="How many at most.")
        found.append(("limit", Annotated[int, option], 25))
    found += [
        ("url", UrlOption, DEFAULT_URL),
        ("ca", CaOption, None),
        ("as_json", JsonOption, False),
        ("output", OutputOption, Output.TABLE),
    ]
    kind = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(name, kind, annotation=type_, default=default) for name, type_, default in found]


def _asked(context: typer.Context) -> bool:
    """Whether the listing itself was asked for, and not a command after it."""
    if context.invoked_subcommand is None:
        return True
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            fail(f"options of `{context.invoked_subcommand}` come after it, not before", 2)
    return False


def _run(
    listing: Listing,
    *,
    url: str,
    ca: str | None,
    as_json: bool,
    output: Output,
    name: str | None = None,
    limit: int | None = None,
    follow: bool = False,
    **filters: str | list[str] | None,
) -> None:
    from whenthen.cli.client import Client, quoted

    output = Output.JSON if as_json else output
    route = listing.route if name is None else listing.route.format(name=quoted(name))
    query = {**filters, **listing.fixed}
    with Client.connect(url, ca) as client:
        items = client.whole(route, **query) if limit is None else client.pages(route, limit=limit, **query)
        found = list(items)
        for note in client.notes:
            stderr().print(f"note: {visible(note)}", markup=False)
        if not follow:
            print_items(listing.columns, found, output=output, empty=listing.empty)
            return
        try:
            seen = _follow(listing.columns, reversed(found), output, 0)
            while True:
                time.sleep(FOLLOW_EVERY_S)
                latest = reversed(client.get(route, limit=MAX_PAGE, **query))
                seen = _follow(listing.columns, [item for item in latest if item["seq"] > seen], output, seen)
        except KeyboardInterrupt:
            return


def _follow(columns: Sequence[Column], items: Iterable[Item], output: Output, seen: int) -> int:
    """Print items in full, a line each; gives the position of the last one."""
    for item in items:
        if output is Output.JSON:
            print_lines([item])
        else:
            typer.echo("  ".join(visible(column.text(item)) for column in columns))
            sys.stdout.flush()
        seen = max(seen, item["seq"])
    return seen
