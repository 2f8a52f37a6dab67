"""`whenthen trace`: what led to what, back and forward from any id, from a running server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from whenthen.cli.lists.newest import id_of
from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, print_json, stdout

__all__ = ["add_commands"]

_DEEPEST = 40  #: of the tree that is printed
_BAD = frozenset({"dead", "Failed", "Crashed", "TimedOut", "Cancelled"})


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("trace")(trace)


@errors
def trace(
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Of an event, a firing, an action, a run or a trace, as it is listed or in full; `last` is the newest run.",
            show_default=False,
        ),
    ],
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """What led to what: from any id back to the first event, and forward to the last run."""
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        report = client.get(f"/api/trace/{quoted(id_of(client, 'runs', wanted))}")
    if as_json:
        print_json(report)
        return
    out = stdout()
    for line in _tree(report):
        out.print(line)
    if report["trace"]:
        out.print(f"[dim]trace {escape(report['trace'])}[/]")
    for note in report["notes"]:
        out.print(f"[dim]note: {escape(note)}[/]")
    if report["cut"]:
        out.print("[yellow]there is more than is shown[/]")


def _tree(report: Mapping[str, Any]) -> Iterator[str]:
    """Every item below what it came of, as on the page, but all of them."""
    from whenthen.ui import trace_rows

    items = [SimpleNamespace(**item) for item in report["items"]]
    links = ((link["source"], link["target"]) for link in report["links"])
    for row in trace_rows(items, links, asked=report["id"], most=2 * len(items)):
        indent = "  " * min(row.depth, _DEEPEST)
        if row.item is None:
            yield f"{indent}[dim]... and {row.more}; --json has them[/]"
        else:
            yield f"{indent}{_line(vars(row.item), asked=row.asked)}"


def _line(item: Mapping[str, Any], *, asked: bool) -> str:
    at = datetime.fromisoformat(item["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S ") if item["at"] else ""
    state = item["state"]
    color = "red" if state in _BAD else "green"
    shown = f" [{color}]{escape(state)}[/]" if state else ""
    name = f"[bold]{escape(item['name'])}[/]"
    mark = " [yellow]<- asked for[/]" if asked else ""
    ids = "" if item["kind"] == "decision" else f" [dim]{escape(item['id'])}[/]"
    detail = f" [dim]{escape(' '.join(item['detail'].split()))}[/]" if item["detail"] else ""
    return f"{at}{item['kind']} {name}{shown}{detail}{ids}{mark}"
