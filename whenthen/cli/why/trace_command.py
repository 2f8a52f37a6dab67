"""`whenthen trace`: what led to what, back and forward from any id, from a running server."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime
from typing import Annotated, Any

import typer

from whenthen.cli.lists.run_changes import id_of_run
from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, print_json, stdout

__all__ = ["add_commands"]

_DEEPEST = 40  #: of the tree that is printed
_WIDEST = 25  #: things below one thing
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
        report = client.get(f"/api/trace/{quoted(id_of_run(client, wanted))}")
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
    """Every item below what it came of, each once. Of what came of one thing at most `_WIDEST` are shown, and what leads to the item that
    was asked for; the others are counted."""
    items = {f"{item['kind']}:{item['id']}": item for item in report["items"]}
    below: dict[str, list[str]] = defaultdict(list)
    above: dict[str, list[str]] = defaultdict(list)
    for link in report["links"]:
        if link["source"] in items and link["target"] in items:
            below[link["source"]].append(link["target"])
            above[link["target"]].append(link["source"])
    wanted = _reached([report["id"]], above)
    reached: set[str] = set()
    shown: set[str] = set()
    roots = [name for name in items if not above[name]]
    for root in [*roots, *items]:
        if root not in reached:
            reached |= _reached([root], below)
            yield from _branch(root, items, below, shown, wanted, report["id"])


def _reached(names: Sequence[str], links: Mapping[str, Sequence[str]]) -> set[str]:
    """The names, and what can be reached from them."""
    found, new = set(names), list(names)
    while new:
        further = [name for name in links.get(new.pop(), ()) if name not in found]
        found.update(further)
        new += further
    return found


def _branch(
    root: str,
    items: Mapping[str, Any],
    below: Mapping[str, Sequence[str]],
    shown: set[str],
    wanted: Set[str],
    asked: str,
) -> Iterator[str]:
    stack: list[tuple[str, int, str]] = [(root, 0, "")]  #: an item or a text, and how deep it is
    while stack:
        name, depth, text = stack.pop()
        indent = "  " * min(depth, _DEEPEST)
        if text:
            yield f"{indent}[dim]{text}[/]"
        elif name not in shown:
            shown.add(name)
            yield f"{indent}{_line(items[name], asked=name == asked)}"
            children = [child for child in below.get(name, ()) if child not in shown]
            narrow = len(children) <= _WIDEST
            kept = [child for number, child in enumerate(children) if narrow or number < _WIDEST or child in wanted]
            others = Counter(items[child]["kind"] for child in children) - Counter(
                items[child]["kind"] for child in kept
            )
            if others:
                counts = " and ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in others.items())
                stack.append(("", depth + 1, f"... and {counts} more; --json has them"))
            stack += [(child, depth + 1, "") for child in reversed(kept)]


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
