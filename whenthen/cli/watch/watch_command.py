"""`whenthen watch`: what happens, as it happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whenthen.cli.lists.filter_pairs import FilterPairs, read_filters
from whenthen.cli.lists.tables import clean
from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, print_lines, stderr
from whenthen.cli.watch.interrupts import heard_interrupts
from whenthen.schemas.errors import WhenthenError

if TYPE_CHECKING:
    from whenthen.cli.client import Client

__all__ = ["add_commands", "line_of"]

KINDS = ("events", "decisions", "firings", "actions", "runs", "audit")
#: what a line shows of an item, in this order
SHOWN: Mapping[str, tuple[str, ...]] = {
    "events": ("name", "id"),
    "decisions": ("automation", "reason", "event", "key", "detail"),
    "firings": ("automation", "state", "key", "id"),
    "actions": ("automation", "type", "state", "id", "error"),
    "runs": ("deployment", "state", "id", "message"),
    "audit": ("kind", "who", "what", "detail"),
    "gap": ("reason", "detail"),
}
SILENT_S = 60.0  #: without a heartbeat: the connection is gone; the server sends one each 15 s
AGAIN_S = (0.5, 10.0)  #: the first pause before the server is asked again, and the longest that it grows to


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("watch")(watch)


@errors
def watch(
    filters: FilterPairs = None,
    automation: Annotated[str | None, typer.Option("--automation", "-a", help="Of this automation.")] = None,
    event: Annotated[str | None, typer.Option("--event", "-e", help="Events of a name or glob: 'github.*'.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", "-k", help=f"{', '.join(KINDS)}; several times for several.")
    ] = None,
    last_id: Annotated[
        str | None, typer.Option("--from", metavar="ID", help="Go on behind this id, which --json shows.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow everything that happens, filtered: events, decisions, firings, actions, runs, audit. Ctrl-C ends it."""
    from whenthen.cli.client import Client

    query: dict[str, Any] = {"of": kind or None, **read_filters(filters)}
    for name, value in (("automation", automation), ("name", event)):
        if value is not None:
            query.setdefault(name, []).append(value)
    with Client.connect(url, ca) as client, suppress(KeyboardInterrupt), heard_interrupts():
        _follow(client, query, last_id, as_json=as_json)


def _follow(client: Client, query: Mapping[str, Any], last_id: str | None, *, as_json: bool) -> None:
    """Print what comes, for ever; again behind the last id whenever the server or the connection is gone."""
    from whenthen.cli.client import ApiError, Unreachable
    from whenthen.cli.watch.event_parts import event_parts

    begun, pause = False, AGAIN_S[0]
    while True:
        try:
            headers = {} if last_id is None else {"Last-Event-ID": last_id}
            for part in event_parts(client.stream("/api/stream", headers=headers, silent_s=SILENT_S, **query)):
                begun, pause = True, AGAIN_S[0]
                last_id = part.id or last_id
                if part.name == "end":
                    break
                if part.name:
                    _print(part.name, part.data, last_id, as_json=as_json)
            why = "the server ended the stream"
        except (ApiError, Unreachable) as error:
            if not begun or (isinstance(error, ApiError) and error.status != 503):
                raise
            why = str(error)
        stderr().print(f"[dim]{escape(why)}; asking again[/]")
        time.sleep(pause)
        pause = min(pause * 2, AGAIN_S[1])


def _print(name: str, data: bytes, last_id: str | None, *, as_json: bool) -> None:
    import orjson

    try:
        item = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise WhenthenError(f"the server sent what is no JSON: {data[:80]!r}") from None
    if as_json:
        print_lines([{"of": name, "last_id": last_id, **item}])
        return
    typer.echo(line_of(name, item))
    sys.stdout.flush()


def line_of(name: str, item: Mapping[str, Any]) -> str:
    """An item on one line, with nothing in it that a terminal would obey."""
    stored = item.get("stored")
    at = datetime.fromisoformat(stored).astimezone() if isinstance(stored, str) else datetime.now().astimezone()
    values = [str(item[field]) for field in SHOWN.get(name, ()) if item.get(field) not in (None, "")]
    if name == "events":
        resource = item.get("resource")
        values.insert(1, str(resource.get("id", "")) if isinstance(resource, dict) else "")
    if name == "gap" and "missed" in item:
        values.append(", ".join(f"{count} {kind}" for kind, count in item["missed"].items()))
    return clean(f"{at:%H:%M:%S}  {name:<9}  {'  '.join(values)}")
