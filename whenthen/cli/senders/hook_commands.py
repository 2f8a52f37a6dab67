"""`whenthen hooks try`: what a webhook would make of a request, by rules at hand or those of a server. Stores nothing."""

from __future__ import annotations

import base64
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from whenthen.cli.command_groups import new_group
from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
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
    server: Annotated[
        bool,
        typer.Option("--server", help="By the rules that are in force on the server at --url; its proof is looked at."),
    ] = False,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the events that would come of a request. Without --server its proof is not looked at. Exit 1 if it would be refused."""
    headers = dict(_pair(text, ":", "--header") for text in header or ())
    parts = dict(_pair(text, "=", "--query") for text in query or ())
    raw = _read(body)
    if server:
        made = _asked(url, ca, name, raw, headers=headers, query=parts, method=method)
    else:
        made = _read_here(rules, name, raw, headers=headers, query=parts, method=method)
    if as_json:
        print_json(made)
    else:
        _show(made)
    if made.get("proof"):
        raise typer.Exit(1)


def _asked(url: str, ca: str | None, name: str, body: bytes, **parts: Any) -> dict[str, Any]:
    from whenthen.cli.client import Client

    with Client.connect(url, ca) as client:
        asked = {"webhook": name, "body": base64.b64encode(body).decode(), **parts}
        found: dict[str, Any] = client.post("/api/sources/try", asked)
        return found


def _read_here(
    rules: Path, name: str, body: bytes, *, headers: dict[str, str], query: dict[str, str], method: str
) -> dict[str, Any]:
    from whenthen.rules import TriedWebhooks, load_rules

    request = TriedWebhooks.request(body, headers=headers, query=query, method=method.upper())
    made = TriedWebhooks(load_rules(rules)).read(name, request, datetime.now(UTC))
    answer = None if made.answer is None else made.answer.body.decode("utf-8", "replace")
    return {"events": [event.data for event in made.events], "dropped": made.dropped, "answer": answer}


def _show(made: dict[str, Any]) -> None:
    out = stdout()
    for event in made["events"]:
        out.print(f"[bold]{escape(event['event'])}[/] {escape(event['id'])}")
        for label, value in event["resource"].items():
            out.print(f"  {escape(label)}: {escape(value)}")
        for labels in event.get("related") or ():
            out.print(f"  related: {escape(', '.join(f'{label}={value}' for label, value in labels.items()))}")
        out.print(f"  occurred: {escape(str(event.get('occurred')))}")
    for reason in made["dropped"]:
        out.print(f"[yellow]no event:[/] {escape(reason)}")
    if made["answer"] is not None:
        out.print(f"a handshake, answered with: {escape(made['answer'])}")
    if made.get("proof"):
        out.print(f"[red]its proof does not hold:[/] {escape(made['proof'])}")


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
