"""`show` of an event, a firing and an action: the thing, and the commands that show what it hangs together with."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whenthen.cli.lists.newest import Kind, id_of
from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, print_document, visible

if TYPE_CHECKING:
    from whenthen.cli.client import Client

__all__ = ["print_next", "run_commands", "show_action", "show_event", "show_firing"]

MOST = 20  #: commands of one kind that are named


@errors
def show_event(
    event_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="The event's id, as it is listed or in full, or `last`.", show_default=False),
    ],
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """One event, whole."""
    _show("events", event_id, _of_event, url, ca, as_json)


@errors
def show_firing(
    firing_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The firing's id, as it is listed or in full, or `last`.", show_default=False
        ),
    ],
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """One firing, and how its actions stand."""
    _show("firings", firing_id, _of_firing, url, ca, as_json)


@errors
def show_action(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="The action's key, as it is listed or in full, or `last`.", show_default=False
        ),
    ],
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """One action, how it stands and what came of it."""
    _show("actions", key, _of_action, url, ca, as_json)


def _show(
    kind: Kind,
    thing_id: str,
    what_goes_on: Callable[[Client, Mapping[str, Any]], Sequence[Sequence[str]]],
    url: str,
    ca: str | None,
    as_json: bool,
) -> None:
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        found = client.get(f"/api/{kind}/{quoted(id_of(client, kind, thing_id))}")
        print_document(found, as_json=as_json)
        if not as_json:
            print_next(what_goes_on(client, found))


def print_next(commands: Sequence[Sequence[str]]) -> None:
    """Commands that go on from here, as comments of the YAML above."""
    for words in commands:
        typer.echo(f"# whenthen {visible(shlex.join(words))}")


def run_commands(run: Mapping[str, Any]) -> list[list[str]]:
    """What goes on from a run."""
    found = [["runs", "logs", run["id"]]]
    if run.get("pause"):
        schema = run["pause"].get("schema") or {}
        asked = [word for name in list(schema.get("properties") or {})[:MOST] for word in ("--input", f"{name}=...")]
        found.insert(0, ["runs", "resume", run["id"], *asked])
    firing = (run.get("lineage") or {}).get("firing")
    if firing:
        found.append(["firings", "show", firing])
        if str(run.get("key", "")).startswith(f"{firing}."):
            found.append(["actions", "show", run["key"]])
    return found


def _of_event(client: Client, event: Mapping[str, Any]) -> list[list[str]]:
    from whenthen.cli.client import ApiError

    try:
        fired = client.get("/api/firings", event=event["id"], limit=MOST)
    except ApiError:  # the event itself is shown even so
        fired = []
    found = [["firings", "show", each["id"]] for each in fired]
    by = (event.get("lineage") or {}).get("firing")
    if by:
        found.append(["firings", "show", by])
    if event.get("follows"):
        found.append(["events", "show", event["follows"]])
    return [*found, ["trace", event["id"]]]  # which has its decisions, too, and firings that it is a part of


def _of_firing(_client: Client, firing: Mapping[str, Any]) -> list[list[str]]:
    events = firing["events"][-MOST:]
    if firing["event"] and firing["event"] not in events:
        events = [*events, firing["event"]]
    return [
        *(["events", "show", event] for event in events),
        *(["actions", "show", action["key"]] for action in firing["actions"][:MOST]),
        ["automations", "decisions", firing["automation"], "--firing", firing["id"]],
        ["trace", firing["id"]],
    ]


def _of_action(_client: Client, action: Mapping[str, Any]) -> list[list[str]]:
    found = [["firings", "show", action["firing"]]]
    result = action.get("result")
    if isinstance(result, dict) and isinstance(result.get("flow_run"), str):
        found.append(["runs", "show", result["flow_run"]])
    if action["type"] == "emit-event" and isinstance(result, dict) and isinstance(result.get("id"), str):
        found.append(["events", "show", result["id"]])
    if action["outcome"] == "dead":
        found.append(["actions", "redrive", action["key"]])
    return found
