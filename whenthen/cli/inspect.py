"""What happened and why: events, automations with their decisions, firings, and the server itself.

Lists are tables, the newest first; one thing is YAML; `--json` gives either as the API has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.markup import escape

from whenthen.cli.client import DEFAULT_URL, MAX_PAGE, Client, JsonOption, LimitOption, UrlOption, quoted
from whenthen.cli.output import cell, errors, fail, print_json, print_lines, print_table, stdout

__all__ = ["add_commands", "asked", "group", "local_time", "print_document"]

FOLLOW_EVERY_S = 0.5


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    events = group(app, "events", "Events that are stored, newest first.", list_events)
    events.command("show")(show_event)
    automations = group(app, "automations", "Automations, and why they fired or did not.", list_automations)
    automations.command("show")(show_automation)
    automations.command("decisions")(list_decisions)
    automations.command("pause")(pause_automation)
    automations.command("resume")(resume_automation)
    app.command("firings")(list_firings)
    app.command("status")(status)


def group(app: typer.Typer, name: str, about: str, listing: Callable[..., None]) -> typer.Typer:
    """A group of commands that lists when it is called alone: `whenthen runs` is `whenthen runs list`."""
    made = typer.Typer(help=about, invoke_without_command=True)
    made.callback(help=about)(listing)
    made.command("list", help=about)(listing)
    app.add_typer(made, name=name)
    return made


def asked(context: typer.Context) -> bool:
    """Whether the listing itself was asked for, and not a command after it."""
    if context.invoked_subcommand is None:
        return True
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            fail(f"options of `{context.invoked_subcommand}` come after it, not before", 2)
    return False


@errors
def list_events(
    context: typer.Context,
    event: Annotated[str | None, typer.Option("--event", "-e", help="A name or glob: 'github.*'.")] = None,
    source: Annotated[str | None, typer.Option(help="Where they came from: api, webhook:github, flow-runs.")] = None,
    resource: Annotated[str | None, typer.Option(help="The resource's id, or a glob.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones until Ctrl-C.")] = False,
    limit: LimitOption = 25,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Events that are stored, newest first."""
    if not asked(context):
        return
    filters = {"event": event, "source": source, "resource": resource}
    with Client.connect(url) as client:
        found = list(client.pages("/api/events", limit=limit, **filters))
        if follow:
            _follow(client, list(reversed(found)), filters, as_json=as_json)
        elif as_json:
            print_json(found)
        else:
            rows = [(local_time(item["occurred"]), item["event"], item["resource"]["id"], item["id"]) for item in found]
            print_table(["OCCURRED", "EVENT", "RESOURCE", "ID"], rows, empty="no events")


def _follow(client: Client, found: list[dict[str, Any]], filters: dict[str, Any], *, as_json: bool) -> None:
    """Print `found`, oldest first, and then what comes, until Ctrl-C."""
    seen = 0
    try:
        while True:
            if as_json:
                print_lines(found)
            else:
                for item in found:
                    told = (local_time(item["occurred"]), item["event"], item["resource"]["id"], item["id"])
                    stdout().print("  ".join(map(escape, told)))
            seen = max([seen, *(item["seq"] for item in found)])
            time.sleep(FOLLOW_EVERY_S)
            latest = client.get("/api/events", limit=MAX_PAGE, **filters)
            found = [item for item in reversed(latest) if item["seq"] > seen]
    except KeyboardInterrupt:
        return


@errors
def show_event(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="The event's id.", show_default=False)],
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """One event, whole."""
    with Client.connect(url) as client:
        print_document(client.get(f"/api/events/{quoted(event_id)}"), as_json=as_json)


@errors
def list_automations(context: typer.Context, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """Automations, and why they fired or did not."""
    if not asked(context):
        return
    with Client.connect(url) as client:
        found = client.get("/api/automations")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            item["name"],
            item["state"],
            item["trigger"],
            cell(item, "actions"),
            item["fired"],
            local_time(item["last_fired"]),
        )
        for item in found
    ]
    print_table(["NAME", "STATE", "TRIGGER", "ACTIONS", "FIRED", "LAST"], rows, empty="no automations")


@errors
def show_automation(
    name: Annotated[str, typer.Argument(help="The automation's name.", show_default=False)],
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """One automation: its rule, its state, and its last decisions with their reasons."""
    with Client.connect(url) as client:
        found = client.get(f"/api/automations/{quoted(name)}")
    if as_json:
        print_json(found)
        return
    decisions = found.pop("decisions", [])
    print_document(found, as_json=False)
    stdout().print()
    _print_decisions(decisions)


@errors
def list_decisions(
    name: Annotated[str, typer.Argument(help="The automation's name.", show_default=False)],
    reason: Annotated[str | None, typer.Option(help="Only these: fired, label_mismatch, cooldown, ...")] = None,
    limit: LimitOption = 25,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """The last decisions of an automation: why it fired, and why it did not."""
    with Client.connect(url) as client:
        found = client.get(f"/api/automations/{quoted(name)}/decisions", limit=min(limit, MAX_PAGE), reason=reason)
    if as_json:
        print_json(found)
    else:
        _print_decisions(found)


def _print_decisions(decisions: list[dict[str, Any]]) -> None:
    rows = [
        (local_time(item["at"]), item["reason"], item["event"] or "(time)", item["path"], item["detail"])
        for item in decisions
    ]
    if any(row[3] for row in rows):
        print_table(["DECIDED", "REASON", "EVENT", "PART", "DETAIL"], rows, empty="")
    else:
        short = [(*row[:3], row[4]) for row in rows]
        print_table(["DECIDED", "REASON", "EVENT", "DETAIL"], short, empty="no decisions yet")


@errors
def pause_automation(
    name: Annotated[str, typer.Argument(help="The automation's name.", show_default=False)],
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Stop an automation from firing until it is resumed."""
    _switch(name, "pause", url, as_json)


@errors
def resume_automation(
    name: Annotated[str, typer.Argument(help="The automation's name.", show_default=False)],
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Let a paused automation fire again."""
    _switch(name, "resume", url, as_json)


def _switch(name: str, verb: str, url: str, as_json: bool) -> None:
    with Client.connect(url) as client:
        found = client.post(f"/api/automations/{quoted(name)}/{verb}")
    if as_json:
        print_json(found)
    else:
        stdout().print(f"{escape(name)} is {found['state']}")


@errors
def list_firings(
    automation: Annotated[str | None, typer.Option("--automation", "-a", help="Of this one.")] = None,
    limit: LimitOption = 25,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Firings, newest first: which automation fired for which event."""
    with Client.connect(url) as client:
        found = list(client.pages("/api/firings", limit=limit, automation=automation))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            local_time(item["at"]),
            item["automation"],
            item["state"],
            ", ".join(f"{name}={value}" for name, value in item["key"].items()),
            item["event"] or "(time)",
            item["id"],
        )
        for item in found
    ]
    print_table(["AT", "AUTOMATION", "STATE", "KEY", "EVENT", "ID"], rows, empty="no firings")


@errors
def status(url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """What the server runs, on which rules, and the problems of a set that was refused."""
    with Client.connect(url) as client:
        print_document(client.get("/api/status"), as_json=as_json)


def print_document(value: Any, *, as_json: bool) -> None:
    """One thing: as YAML for people, or as JSON."""
    if as_json:
        print_json(value)
    else:
        import yaml

        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False)
        typer.echo(text.rstrip("\n"))


def local_time(text: str | None) -> str:
    """A time of the API as this machine's clock shows it, to the second."""
    if text is None:
        return ""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
