"""`whenthen emit`: one event from flags, or events from a file.

An event gets its id here and not at the server, so that sending it again after a lost answer changes nothing. JSON is read as the
server reads it: an integer that 64 bits do not hold is sent as its digits.
"""

from __future__ import annotations

import re
import sys
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from whenthen.cli.event_files import without_own
from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, fail, print_json, stderr, stdout

__all__ = ["add_commands", "read_events", "read_labels"]

#: events of one request; the server takes 1,000 by default
BATCH = 500
#: a comma between labels: what follows it is a name and `=`
_BETWEEN = re.compile(r",(?=[^,={}\s]+=)")


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(emit)


@errors
def emit(
    name: Annotated[
        str | None, typer.Argument(help="The event's name, such as order.created.", show_default=False)
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option("--resource", "-r", help="Labels: id=order.17,country=fr. May be given several times."),
    ] = None,
    related: Annotated[
        list[str] | None,
        typer.Option("--related", help="A related resource: id=customer.5,role=customer. May be given several times."),
    ] = None,
    payload: Annotated[
        str | None, typer.Option("--payload", "-p", help="JSON, @FILE, or - for standard input.")
    ] = None,
    event_id: Annotated[str | None, typer.Option("--id", help="Two events of one id are the same event.")] = None,
    occurred: Annotated[str | None, typer.Option(help="When it happened (RFC 3339); default: now.")] = None,
    follows: Annotated[str | None, typer.Option(help="The id of the event that it follows.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Whole events instead: JSON, a list, or a line each; - is standard input."),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send an event; done means that it is stored."""
    if file is not None:
        given = [name, resource, related, payload, event_id, occurred, follows]
        if any(item is not None for item in given):
            fail("--file has whole events; leave the name and the other options out", 2)
        events, left_out = without_own(read_events(_read(str(file)), str(file)))
        if left_out:
            stderr().print(f"{left_out} events that a server makes itself, out of the others, are left out")
        if not events:
            fail(f"{file}: it has no event that may be sent")
    else:
        if name is None:
            fail("give the event's name, or --file", 2)
        event: dict[str, Any] = {"event": name, "resource": read_labels("--resource", *(resource or []))}
        if related:
            event["related"] = [read_labels("--related", item) for item in related]
        if payload is not None:
            event["payload"] = _payload(payload)
        optional = {"id": event_id, "occurred": occurred, "follows": follows}
        events = [event | {field: value for field, value in optional.items() if value is not None}]
    for item in events:
        if isinstance(item, dict):
            item.setdefault("id", str(uuid.uuid4()))
    ids, duplicates = _send(events, url, ca)
    if as_json:
        print_json({"ids": ids, "duplicates": duplicates})
        return
    for item, sent in zip(events, ids, strict=True):
        note = " (it was there already)" if sent in duplicates else ""
        called = item["event"] if "event" in item else item.get("type", "")  # a CloudEvent has a type
        stdout().print(f"accepted {escape(str(called))} {escape(sent)}{note}")


def _send(events: list[Any], url: str, ca: str | None) -> tuple[list[str], list[str]]:
    from whenthen.cli.client import ApiError, Client, Unreachable
    from whenthen.schemas.errors import InvalidInput

    ids: list[str] = []
    duplicates: list[str] = []
    with Client.connect(url, ca) as client:
        for start in range(0, len(events), BATCH):
            part = events[start : start + BATCH]
            try:
                answer = client.post("/api/events", part[0] if len(events) == 1 else part)
            except (ApiError, Unreachable) as error:
                if isinstance(error, ApiError) and error.status < 500 and not start:
                    raise
                known = part[0].get("id") if isinstance(part[0], dict) else None
                again = (
                    f"send it again with --id {known}" if len(events) == 1 else "send the file again once it has ids"
                )
                message = (
                    f"{error}\n{len(ids)} of {len(events)} accepted; {again}: what was stored already stays one event"
                )
                raise InvalidInput(message) from None
            ids += answer["ids"]
            duplicates += answer["duplicates"]
    return ids, duplicates


def read_labels(option: str, *texts: str) -> dict[str, str]:
    """Labels written as `id=order.17,country=fr`, or as a JSON object. A comma in a value is one of the value.

    Raises:
        InvalidInput: not labels; says what was found.
    """
    from whenthen.schemas.errors import InvalidInput
    from whenthen.sources import decode_json

    labels: dict[str, str] = {}
    for text in texts:
        if text.lstrip().startswith("{"):
            labels.update(decode_json(text.encode(), (option,)))
            continue
        for part in _BETWEEN.split(text):
            label, equals, value = part.partition("=")
            if not equals or not label.strip():
                raise InvalidInput(f"{option}: {part[:80]!r} is not a label; write name=value, such as id=order.17")
            labels[label.strip()] = value
    if not labels:
        raise InvalidInput(f"{option}: missing; name what it happened to, such as {option} id=order.17")
    return labels


def read_events(raw: bytes, where: str) -> list[Any]:
    """The events in a file: one JSON object, a list of them, or one a line.

    Raises:
        InvalidInput: not JSON, or nothing in it; names the line.
    """
    from whenthen.schemas.errors import InvalidInput
    from whenthen.sources import decode_json

    try:
        found = decode_json(raw, (where,))
    except InvalidInput as whole:
        lines = [(number, line) for number, line in enumerate(raw.splitlines(), 1) if line.strip()]
        if len(lines) < 2:
            raise whole if lines else InvalidInput(f"{where}: empty; it has no event") from None
        found = []
        for number, line in lines:
            try:
                found.append(decode_json(line))
            except InvalidInput as error:
                raise InvalidInput(f"{where}:{number}: {error.detail}") from None
    events = found if isinstance(found, list) else [found]
    if not events:
        raise InvalidInput(f"{where}: the list is empty; it has no event")
    return events


def _payload(text: str) -> Any:
    from whenthen.schemas.errors import InvalidInput
    from whenthen.sources import decode_json

    raw = _read(text[1:]) if text.startswith("@") else _read("-") if text == "-" else text.encode()
    try:
        return decode_json(raw)
    except InvalidInput as error:
        raise InvalidInput(f"--payload: {error.detail}; text is written in quotes: '\"text\"'") from None


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        from whenthen.schemas.errors import InvalidInput

        raise InvalidInput(f"{name}: {error.strerror}") from None
