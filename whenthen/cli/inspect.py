"""What happened and why: events, automations with their decisions, firings, the server itself, and the document of what it stores.

Lists are tables, the newest first; one thing is YAML; `--json` gives either as the API has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from whenthen.cli.command_groups import new_group
from whenthen.cli.lists.listings import (
    ID,
    MAX_ITEMS,
    OF_AUTOMATION,
    OF_FIRING,
    SINCE,
    TEXT,
    UNTIL,
    Column,
    Filter,
    Listing,
    add_listing,
    joined,
    list_command,
    local_time,
    print_items,
    same_day,
)
from whenthen.cli.lists.shown_things import show_event, show_firing
from whenthen.cli.lists.tables import Shape
from whenthen.cli.options import DEFAULT_URL, MAX_PAGE, CaOption, JsonOption, Output, OutputOption, UrlOption
from whenthen.cli.output import errors, escape, print_document, print_json, stdout
from whenthen.machine_user import user_name

__all__ = ["add_commands"]

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The automation's name.", show_default=False)]

EVENTS = Listing(
    about="Events that are stored, newest first.",
    route="/api/events",
    columns=(
        Column(title="OCCURRED", value=local_time("occurred")),
        Column(title="EVENT", value="event", shape=Shape.NAME),
        Column(title="RESOURCE", value=lambda item: item["resource"]["id"], shape=Shape.NAME),
        Column(title="ID", value="id", shape=Shape.ID),
    ),
    empty="no events",
    filters=(
        Filter(name="event", flags=("--event", "-e"), help="A name or glob: 'github.*'."),
        Filter(name="source", help="Where they came from: api, webhook:github, flow-runs."),
        Filter(name="resource", help="The resource's id, or a glob."),
        Filter(name="label", help="A label of the resource, name=value; several times for several.", many=True),
        Filter(name="related", help="The id of a related resource."),
        Filter(name="automation", flags=("--automation", "-a"), help="That actions of this automation emitted."),
        Filter(name="firing", help="That actions of this firing emitted."),
        ID,
        SINCE,
        UNTIL,
        TEXT,
    ),
    most=MAX_ITEMS,
    follow=True,
)
AUTOMATIONS = Listing(
    about="Automations, and why they fired or did not.",
    route="/api/automations",
    columns=(
        Column(title="NAME", value="name", shape=Shape.NAME),
        Column(title="STATE", value="state"),
        Column(title="TRIGGER", value="trigger"),
        Column(title="ACTIONS", value=joined("actions"), shape=Shape.NAME),
        Column(title="FIRED", value="fired", shape=Shape.NUMBER),
        Column(title="LAST", value=local_time("last_fired")),
        Column(title="PAUSED", value=lambda item: _pause_text(item.get("pause")), shape=Shape.TEXT, optional=True),
    ),
    empty="no automations",
)
DECISIONS = Listing(
    about="The last decisions of an automation: why it fired, and why it did not.",
    route="/api/automations/{name}/decisions",
    argument="The automation's name.",
    columns=(
        Column(title="DECIDED", value=local_time("at")),
        Column(title="REASON", value="reason"),
        Column(title="EVENT", value=lambda item: item["event"] or "(time)", shape=Shape.ID),
        Column(title="PART", value="path", shape=Shape.NAME, optional=True),
        Column(title="KEY", value="key", shape=Shape.NAME, optional=True),
        Column(title="DETAIL", value="detail", shape=Shape.TEXT),
    ),
    empty="no decisions yet",
    filters=(
        Filter(name="reason", help="Only these: fired, label_mismatch, cooldown, ..."),
        Filter(name="event", help="For the event with this id."),
        OF_FIRING,
        Filter(name="key", help="Of this key, as it is listed."),
        SINCE,
        UNTIL,
        TEXT,
    ),
    most=MAX_PAGE,
)
WINDOWS = Listing(
    about="What an automation remembers: a window for each key, what it holds and when it ends; the last changed first.",
    route="/api/automations/{name}/windows",
    argument="The automation's name.",
    columns=(
        Column(title="CHANGED", value=local_time("changed")),
        Column(
            title="KEY",
            value=lambda item: _key(item["key"]),
            brief=lambda item: _brief_key(item["key"]),
            shape=Shape.NAME,
        ),
        Column(title="PART", value="path", shape=Shape.NAME, optional=True),
        Column(title="KIND", value="kind"),
        Column(title="HOLDS", value=lambda item: _holds(item), shape=Shape.NUMBER),
        Column(title="ENDS", value=lambda item: local_time("ends")(item)),
        Column(title="QUIET UNTIL", value=local_time("quiet_until"), optional=True),
        Column(
            title="NEWEST EVENT",
            value=lambda item: item["events"][-1]["id"] if item["events"] else "",
            shape=Shape.ID,
            optional=True,
        ),
    ),
    empty="no windows",
    filters=(
        Filter(name="key", help="With this in its key, name=value; several times for several.", many=True),
        SINCE,
        UNTIL,
        TEXT,
    ),
    most=MAX_ITEMS,
)
AUDIT = Listing(
    about="Who did what, and what was refused, newest first.",
    route="/api/audit",
    columns=(
        Column(title="AT", value=local_time("at")),
        Column(title="KIND", value="kind"),
        Column(title="WHO", value="who", shape=Shape.NAME),
        Column(title="WHAT", value="what", shape=Shape.NAME),
        Column(title="TIMES", value=lambda item: item["count"] if item["count"] > 1 else "", optional=True),
        Column(title="DETAIL", value="detail", shape=Shape.TEXT),
    ),
    empty="nothing on record",
    filters=(
        Filter(name="kind", help="Only these: request-refused, rules-taken, automation-paused, ... or a glob."),
        Filter(name="who", help="An address, a name or a process, or a glob."),
        Filter(name="what", help="What it was about, or a glob."),
        SINCE,
        UNTIL,
        TEXT,
    ),
    most=MAX_ITEMS,
)
ORPHANS = Listing(
    about="Windows that are kept of automations that are not in the rules, those that are away the longest first.",
    route="/api/orphans",
    columns=(
        Column(title="TRIGGER", value="trigger", shape=Shape.ID),
        Column(title="AUTOMATION", value=lambda item: item["automation"] or "(not known)", shape=Shape.NAME),
        Column(title="SINCE", value=local_time("since")),
        Column(title="KEYS", value="keys", shape=Shape.NUMBER),
        Column(title="BYTES", value="bytes", shape=Shape.NUMBER),
    ),
    empty="no windows of automations that are not in the rules",
)
FIRINGS = Listing(
    about="Firings, newest first: which automation fired for which event.",
    route="/api/firings",
    columns=(
        Column(title="FIRED", value=local_time("fired")),
        Column(title="AT", value=local_time("at"), brief=same_day("at", "fired")),
        Column(title="AUTOMATION", value="automation", shape=Shape.NAME),
        Column(title="STATE", value="state"),
        Column(
            title="KEY",
            value=lambda item: _key(item["key"]),
            brief=lambda item: _brief_key(item["key"]),
            shape=Shape.NAME,
            optional=True,
        ),
        Column(title="EVENT", value=lambda item: item["event"] or "(time)", shape=Shape.ID),
        Column(title="ID", value="id", shape=Shape.ID),
    ),
    empty="no firings",
    filters=(
        OF_AUTOMATION,
        Filter(name="state", help="Triggered or Resolved."),
        Filter(name="event", help="That the event with this id triggered."),
        Filter(name="key", help="With this in its key, name=value; several times for several.", many=True),
        ID,
        SINCE,
        UNTIL,
        TEXT,
    ),
    most=MAX_ITEMS,
)


def _key(key: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in key.items())


def _brief_key(key: Mapping[str, Any]) -> str:
    return " ".join(map(str, key.values()))


def _holds(window: Mapping[str, Any]) -> str:
    if not window.get("whole", True):
        return f"{window['bytes']} bytes"
    return f"{window['count']} of {window['needed']}" if window["needed"] else str(window["count"])


def _pause_text(pause: Mapping[str, Any] | None) -> str:
    """Until when, by whom and why."""
    if not pause:
        return ""
    until = f"until {local_time('until')(pause)}" if pause["until"] else "until resumed"
    by = f"by {pause['by']}" if pause["by"] else ""
    return ": ".join(filter(None, [" ".join(filter(None, [until, by])), pause["reason"]]))


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    events = new_group(app, "events", EVENTS.about)
    add_listing(events, EVENTS)
    events.command("show")(show_event)
    automations = new_group(app, "automations", AUTOMATIONS.about)
    add_listing(automations, AUTOMATIONS)
    automations.command("show")(show_automation)
    automations.command("decisions")(list_command(DECISIONS))
    automations.command("windows")(list_command(WINDOWS))
    automations.command("pause")(pause_automation)
    automations.command("resume")(resume_automation)
    orphans = new_group(automations, "orphans", ORPHANS.about)
    add_listing(orphans, ORPHANS)
    orphans.command("forget")(forget_orphans)
    firings = new_group(app, "firings", FIRINGS.about)
    add_listing(firings, FIRINGS)
    firings.command("show")(show_firing)
    app.command("audit")(list_command(AUDIT))
    app.command("status")(status)
    app.command("asyncapi")(asyncapi)


@errors
def show_automation(
    name: NameArgument,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """One automation: its rule, its state, and its last decisions with their reasons."""
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        found: dict[str, Any] = client.get(f"/api/automations/{quoted(name)}")
    if as_json or output is Output.JSON:
        print_json(found)
        return
    decisions = found.pop("decisions", [])
    print_document(found, as_json=False)
    typer.echo()
    print_items(DECISIONS.columns, decisions, output=output, empty=DECISIONS.empty)


@errors
def pause_automation(
    name: NameArgument,
    lasts: Annotated[
        str | None, typer.Option("--for", help="How long, such as 2h; left out: until it is resumed.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for who looks at it.")] = "",
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop an automation from firing, for a time or until it is resumed."""
    body = {"reason": reason, "by": user_name("")} | ({} if lasts is None else {"for": lasts})
    _switch(name, "pause", url, ca, as_json, body)


@errors
def resume_automation(
    name: NameArgument, url: UrlOption = DEFAULT_URL, ca: CaOption = None, as_json: JsonOption = False
) -> None:
    """Let a paused automation fire again."""
    _switch(name, "resume", url, ca, as_json)


@errors
def forget_orphans(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The automation's name, or the trigger's id.", show_default=False),
    ],
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget the windows of an automation that is not in the rules."""
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        found = client.post(f"/api/orphans/{quoted(name)}/forget")
    if as_json:
        print_json(found)
        return
    for orphan in found:
        stdout().print(f"the windows of {orphan['keys']} keys of trigger {orphan['trigger']} are being forgotten")


def _switch(name: str, verb: str, url: str, ca: str | None, as_json: bool, body: Any = None) -> None:
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        found = client.post(f"/api/automations/{quoted(name)}/{verb}", body)
    if as_json:
        print_json(found)
    else:
        said = f" ({_pause_text(found['pause'])})" if found.get("pause") and found["pause"]["until"] else ""
        stdout().print(f"{escape(name)} is {found['state']}{escape(said)}")


@errors
def status(url: UrlOption = DEFAULT_URL, ca: CaOption = None, as_json: JsonOption = False) -> None:
    """What the server runs, on which rules, and the problems of a set that was refused."""
    from whenthen.cli.client import Client

    with Client.connect(url, ca) as client:
        print_document(client.get("/api/status"), as_json=as_json)


def asyncapi() -> None:
    """Print an AsyncAPI document of all NATS subjects and messages, as JSON."""
    from whenthen import __version__
    from whenthen.engine.process import asyncapi_document

    typer.echo(asyncapi_document(__version__))
