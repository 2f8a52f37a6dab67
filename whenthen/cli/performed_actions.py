"""What firings did: actions, and the dead letters among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
    list_command,
    local_time,
)
from whenthen.cli.lists.shown_things import show_action
from whenthen.cli.lists.tables import Shape
from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, fail, print_json, stdout

if TYPE_CHECKING:
    from whenthen.cli.client import Client

__all__ = ["add_commands"]

_OF_TYPE = Filter(name="type", help="Of this type: run-deployment, ...")
ACTIONS = Listing(
    about="Actions of firings and what became of them, newest first.",
    route="/api/actions",
    columns=(
        Column(title="AT", value=local_time("at")),
        Column(title="AUTOMATION", value="automation", shape=Shape.NAME),
        Column(title="ACTION", value="type", shape=Shape.NAME),
        Column(title="OUTCOME", value="outcome"),
        Column(title="TRIES", value="attempt", shape=Shape.NUMBER),
        Column(title="KEY", value="key", shape=Shape.ID),
        Column(title="ERROR", value=lambda item: item.get("error"), shape=Shape.TEXT, optional=True),
    ),
    empty="no actions",
    filters=(
        OF_AUTOMATION,
        _OF_TYPE,
        Filter(name="outcome", help="waiting, retrying, executed, dead, or dropped."),
        OF_FIRING,
        ID,
        SINCE,
        UNTIL,
        TEXT,
    ),
    most=MAX_ITEMS,
)
DEAD_LETTERS = Listing(
    about="Dead letters: actions that used up their attempts.",
    route="/api/actions",
    columns=ACTIONS.columns,
    empty="no dead letters",
    filters=(OF_AUTOMATION, _OF_TYPE, OF_FIRING, SINCE, UNTIL, TEXT),
    fixed={"outcome": "dead"},
    most=MAX_ITEMS,
)


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    actions = new_group(app, "actions", ACTIONS.about)
    add_listing(actions, ACTIONS)
    actions.command("show")(show_action)
    actions.command("dead")(list_command(DEAD_LETTERS))
    actions.command("redrive")(redrive_actions)
    actions.command("drop")(drop_actions)


_Letters = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY", help="Keys of dead letters, as they are listed or in full.", show_default=False),
]
_AllLetters = Annotated[bool, typer.Option("--all", help="Every dead letter.")]
_LettersOf = Annotated[str | None, typer.Option("--automation", "-a", help="With --all: only of this one.")]
_LettersOfType = Annotated[str | None, typer.Option("--type", help="With --all: only actions of this type.")]


@errors
def redrive_actions(
    keys: _Letters = None,
    everything: _AllLetters = False,
    automation: _LettersOf = None,
    type: _LettersOfType = None,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Under a new idempotency key, so that a receiver does it again.")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give dead letters new attempts, by the rules of today."""
    from whenthen.cli.client import Client

    with Client.connect(url, ca) as client:
        keys = _letters(client, keys, everything, automation, type)
        done, refused = _each_letter(client, keys, "redrive", **({"new_key": "true"} if new_key else {}))
    _tell_letters(done, refused, "redriven", "is tried again", as_json=as_json)


@errors
def drop_actions(
    keys: _Letters = None,
    everything: _AllLetters = False,
    automation: _LettersOf = None,
    type: _LettersOfType = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before several are dropped.")] = False,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give dead letters up. They are not performed, and their outcome is `dropped`."""
    from whenthen.cli.client import Client

    with Client.connect(url, ca) as client:
        keys = _letters(client, keys, everything, automation, type)
        if everything and keys and not yes:
            typer.confirm(f"Drop {len(keys)} dead letters?", abort=True, err=True)
        done, refused = _each_letter(client, keys, "drop")
    _tell_letters(done, refused, "dropped", "is dropped", as_json=as_json)


def _letters(
    client: Client, keys: list[str] | None, everything: bool, automation: str | None, type: str | None
) -> list[str]:
    """The keys that are meant."""
    if bool(keys) == everything:
        fail("give the keys of dead letters, or --all", 2)
    if not everything:
        return keys or []
    dead = client.pages("/api/actions", limit=MAX_ITEMS, outcome="dead", automation=automation, type=type)
    return [item["key"] for item in dead]


def _each_letter(client: Client, keys: list[str], what: str, **query: str) -> tuple[list[str], dict[str, str]]:
    """Do something with each letter: the keys of those that it was done with, and why not of the others."""
    from whenthen.cli.client import ApiError, quoted

    done: list[str] = []
    refused: dict[str, str] = {}
    for key in keys:
        try:
            done.append(client.post(f"/api/actions/{quoted(key)}/{what}", **query)["key"])
        except ApiError as error:
            refused[key] = str(error)
    return done, refused


def _tell_letters(done: list[str], refused: dict[str, str], word: str, said: str, *, as_json: bool) -> None:
    if as_json:
        print_json({word: done, "refused": refused})
    else:
        for key in done:
            stdout().print(f"{escape(key)} {said}")
        for key, message in refused.items():
            stdout().print(f"[red]{escape(key)}[/]: {escape(message)}")
        if not done and not refused:
            stdout().print("no dead letters")
    if refused:
        raise typer.Exit(1)
