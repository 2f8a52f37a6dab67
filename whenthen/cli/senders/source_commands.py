"""`whenthen sources`: what brings events in, when it was heard, what of it was refused, and sending that again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from whenthen.cli.command_groups import new_group
from whenthen.cli.lists.listings import Column, Filter, Listing, add_listing, list_command, local_time
from whenthen.cli.lists.tables import Shape
from whenthen.cli.options import DEFAULT_URL, MAX_PAGE, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, print_json, stdout
from whenthen.cli.senders.outbox_command import sql

REFUSED = Listing(
    about="Refused requests whose proof held, and messages that fit no event, newest first; they are kept for seven days.",
    route="/api/sources/refused",
    columns=(
        Column(title="AT", value=local_time("at")),
        Column(title="ID", value="id", shape=Shape.ID),
        Column(title="OF", value="source", shape=Shape.NAME),
        Column(title="REASON", value="reason"),
        Column(title="FIELD", value="field", optional=True),
        Column(title="DETAIL", value="detail", shape=Shape.TEXT),
        Column(title="IT HAS", value="shape", shape=Shape.TEXT, optional=True),
    ),
    empty="nothing is kept",
    filters=(Filter(name="source", help="Of this webhook or source alone: its name, or webhook:NAME or source:NAME."),),
    most=MAX_PAGE,
)


def _refusals(item: Any) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(item["refused"].items()))


def _state(item: Any) -> str:
    since = f" since {local_time('since')(item)}" if item.get("since") else ""
    return f"{item.get('state', '')}{since}"


def _readers(item: Any) -> str:
    return ", ".join(
        f"{each['host']}:{each['process']}" for each in item.get("readers", ()) if each["state"] == "reading"
    )


SOURCES = Listing(
    about="What brings events in: proof, when it was heard last, what was refused; and the SQL of an outbox table.",
    route="/api/sources",
    columns=(
        Column(title="NAME", value="name", shape=Shape.NAME),
        Column(title="KIND", value="kind"),
        Column(title="READS", value="reads"),
        Column(title="PROOF", value=lambda item: item["proof"] or ("none" if item["kind"] == "webhook" else "")),
        Column(
            title="LAST HEARD", value=lambda item: local_time("last_heard")(item) if item["last_heard"] else "never"
        ),
        Column(title="TAKEN", value="taken"),
        Column(title="TWICE", value=lambda item: item.get("duplicates") or "", optional=True),
        Column(title="REFUSED", value=_refusals, shape=Shape.TEXT, optional=True),
        Column(title="STATE", value=_state, optional=True),
        Column(title="READ BY", value=_readers, shape=Shape.TEXT, optional=True),
        Column(title="PROBLEMS", value=lambda item: "; ".join(item["problems"]), shape=Shape.TEXT, optional=True),
    ),
    empty="no webhooks and no sources in the rules",
)


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    group = new_group(app, "sources", SOURCES.about)
    add_listing(group, SOURCES)
    group.command("refused")(list_command(REFUSED))
    group.command("resend")(resend)
    group.command("sql")(sql)


@errors
def resend(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Of this webhook or source alone: its name, or webhook:NAME or source:NAME.", show_default=False
        ),
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="The one whose id begins with this.")] = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read what is kept again by the rules of now; what is taken is not kept any longer. Exit 1 if something is refused again."""
    from whenthen.cli.client import Client

    with Client.connect(url, ca) as client:
        asked = {name: value for name, value in (("source", source), ("id", id)) if value is not None}
        report = client.post("/api/sources/resend", **asked)
        while report["next"] is not None:  # those that are older
            more = client.post("/api/sources/resend", **asked, before=report["next"])
            for name in ("sent", "events", "refused"):
                more[name] = report[name] + more[name]
            report = more
    if as_json:
        print_json(report)
    else:
        out = stdout()
        out.print(f"{report['sent']} sent, {len(report['events'])} events; {len(report['refused'])} refused again")
        for each in report["refused"]:
            out.print(f"  {escape(each['source'])} {escape(each['id'])}: {escape(each['detail'])}")
    if report["refused"]:
        raise typer.Exit(1)
