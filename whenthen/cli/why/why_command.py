"""`whenthen why`: why an automation fired for an event or at a moment, or did not, from a running server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, fail, print_json, stdout

__all__ = ["add_commands"]

#: what stands before a clause
_MARKS = {"holds": "[green]✓[/]", "fails": "[red]✗[/]", "error": "[red]![/]", "needs": "[yellow]…[/]"}
_SHOWN = 5  #: events of a window


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("why")(why)


@errors
def why(
    automation: Annotated[str, typer.Argument(help="The automation's name.", show_default=False)],
    event: Annotated[
        str | None, typer.Argument(help="The event's id, as it is listed or in full.", show_default=False)
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="name=value: the key that the question is about; several times for several."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", help="The moment, in place of an event: 2026-01-31T08:00:00Z, or as lists show it, in local time."
        ),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why an automation fired for an event, or at a moment, or did not: clauses with values, windows, and what was missing."""
    from whenthen.cli.client import Client

    if (event is None) == (at is None):
        fail("give an event's id, or --at TIME (and --key name=value)", 2)
    if at is not None:
        at = _zoned(at)
    with Client.connect(url, ca) as client:
        report = client.get("/api/why", automation=automation, event=event, key=key or None, at=at)
    if as_json:
        print_json(report)
        return
    out = stdout()
    for line in _lines(report):
        out.print(line)


def _zoned(at: str) -> str:
    """A time as lists show it, which is local, with its offset; any other text as it is, for the server to judge."""
    try:
        return datetime.strptime(at, "%Y-%m-%d %H:%M:%S").astimezone().isoformat()
    except ValueError:
        return at


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    fired = report["fired"]
    yield f"[bold]{'[green]' if fired else '[yellow]'}{escape(report['answer'])}[/][/]"
    if report["at"]:
        yield f"  decided {_local(report['at'])}, revision {report['rules'] or '(not known)'} of the rules"
    if report["key"]:
        yield f"  key {escape(_pairs(report['key']))}"
    for sentence in report["missing"]:
        yield f"  [bold]missing[/] {escape(sentence)}"
    if report["clauses"]:
        yield ""
        yield from _clauses(report["clauses"], 0)
    for title, name in (("window before", "before"), ("window after", "after")):
        for window in report[name]:
            yield ""
            yield from _window(title, window)
    others = [each for each in report["decisions"] if each["path"] or report["event"] is None]
    if others:
        yield ""
        yield "decisions"
        for each in others:
            part = f"{each['path']}: " if each["path"] else ""
            detail = f", {each['detail']}" if each["detail"] else ""
            yield escape(f"  {_local(each['at'])} {part}{each['reason']}{detail}")
    for note in report["notes"]:
        yield f"[dim]note: {escape(note)}[/]"


def _clauses(clause: Mapping[str, Any], depth: int) -> Iterator[str]:
    found = f"  [dim]{escape(clause['found'])}[/]" if clause.get("found") else ""
    yield f"{'  ' * depth}{_MARKS[clause['verdict']]} {escape(clause['clause'])}{found}"
    for child in clause.get("clauses", ()):
        yield from _clauses(child, depth + 1)


def _window(title: str, window: Mapping[str, Any]) -> Iterator[str]:
    path = f" {window['path']}" if window["path"] else ""
    key = f" of {_pairs(window['key'])}" if window["key"] else ""
    of = f" of {window['needed']}" if window["needed"] else ""
    parts = f": {', '.join(window['parts'])}" if window["parts"] else ""
    unit = "parts" if window["kind"] in ("compound", "sequence") else "events"
    yield escape(f"{title}{path} ({window['kind']}){key}: {window['count']}{of} {unit}{parts}")
    events: Sequence[Mapping[str, Any]] = window["events"]
    if len(events) > _SHOWN:
        yield f"  ... {len(events) - _SHOWN} earlier ones"
    for event in events[-_SHOWN:]:
        yield escape(f"  {_local(event['at'])} {event['id']}")
    for opened in window["opened"]:
        yield f"  opened {_local(opened)}"
    if window["ends"]:
        yield f"  until {_local(window['ends'])}"
    if window["quiet_until"]:
        yield f"  quiet until {_local(window['quiet_until'])}"


def _pairs(key: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in key.items())


def _local(text: str) -> str:
    moment = datetime.fromisoformat(text).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S") + (f".{moment.microsecond // 1000:03d}" if moment.microsecond else "")
