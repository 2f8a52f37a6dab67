"""`whenthen trace`: what led to what, back and forward from any id, from a running server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

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
            help="Of an event, a firing, an action, a run or a trace, as it is listed or in full.",
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
        report = client.get(f"/api/trace/{quoted(wanted)}")
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
    """Every item below what it came of, each once."""
    items = {f"{item['kind']}:{item['id']}": item for item in report["items"]}
    below: dict[str, list[str]] = defaultdict(list)
    causes: dict[str, int] = defaultdict(int)
    for link in report["links"]:
        if link["source"] in items and link["target"] in items:
            below[link["source"]].append(link["target"])
            causes[link["target"]] += 1
    shown: set[str] = set()
    roots = [name for name in items if not causes[name]]
    for root in [*roots, *items]:
        if root not in shown:
            yield from _branch(root, items, below, shown, report["id"], 0)


def _branch(
    name: str, items: Mapping[str, Any], below: Mapping[str, Sequence[str]], shown: set[str], asked: str, depth: int
) -> Iterator[str]:
    stack = [(name, depth)]
    while stack:
        current, depth = stack.pop()
        if current in shown:
            continue
        shown.add(current)
        yield f"{'  ' * min(depth, _DEEPEST)}{_line(items[current], asked=current == asked)}"
        stack += [(child, depth + 1) for child in reversed(below.get(current, ()))]


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
