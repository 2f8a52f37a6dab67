"""`whenthen hooks try`: what a webhook would make of a request. Asks nobody, and stores nothing."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from whenthen.cli.command_groups import new_group
from whenthen.cli.output import errors, escape, fail, print_json, stdout

ABOUT = "Webhooks of the rules: what they would make of a request."
MOST_BYTES = 64_000_000  #: of a body, the most that a server can be set to take


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    group = new_group(app, "hooks", ABOUT)
    group.callback(no_args_is_help=True)(hooks)
    group.command("try")(try_request)


def hooks() -> None:
    """Only has commands."""


@errors
def try_request(
    name: Annotated[str, typer.Argument(help="The webhook, as in the rules.", show_default=False)],
    rules: Annotated[Path, typer.Option("--rules", help="The rules, a folder or a file.")] = Path("rules"),
    body: Annotated[
        Path | None, typer.Option("--body", "-b", help="A file with the body as it came; - is standard input.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="'Name: value'; may be given several times.")
    ] = None,
    query: Annotated[
        list[str] | None, typer.Option("--query", "-q", help="name=value; may be given several times.")
    ] = None,
    method: Annotated[str, typer.Option("--method", "-X", help="As the sender calls it.")] = "POST",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the events that would come of a request. Its proof is not looked at; exit 1 if it would be refused."""
    from whenthen.rules import TriedWebhooks, load_rules

    headers = dict(_pair(text, ":", "--header") for text in header or ())
    request = TriedWebhooks.request(
        _read(body),
        headers=headers,
        query=dict(_pair(text, "=", "--query") for text in query or ()),
        method=method.upper(),
    )
    made = TriedWebhooks(load_rules(rules)).read(name, request, datetime.now(UTC))
    answer = None if made.answer is None else made.answer.body.decode("utf-8", "replace")
    if as_json:
        print_json({"events": [event.data for event in made.events], "dropped": made.dropped, "answer": answer})
        return
    out = stdout()
    for event in made.events:
        out.print(f"[bold]{escape(event.name)}[/] {escape(event.id)}")
        for label, value in event.resource.items():
            out.print(f"  {escape(label)}: {escape(value)}")
        for labels in event.related:
            out.print(f"  related: {escape(', '.join(f'{label}={value}' for label, value in labels.items()))}")
        out.print(f"  occurred: {escape(str(event.data.get('occurred')))}")
    for reason in made.dropped:
        out.print(f"[yellow]no event:[/] {escape(reason)}")
    if answer is not None:
        out.print(f"a handshake, answered with: {escape(answer)}")


def _pair(text: str, mark: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition(mark)
    if not found or not name.strip():
        fail(f"{option} {text[:80]!r}: `name{mark}value` is expected", 2)
    return name.strip(), value.strip()


def _read(path: Path | None) -> Any:
    if path is None:
        return b""
    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    if len(raw) > MOST_BYTES:
        fail(f"{path}: more than {MOST_BYTES:,} bytes")
    return raw
