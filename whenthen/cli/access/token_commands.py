"""`whenthen tokens`: named tokens of the API with scopes. The value of a new one goes to standard output, alone, and nowhere else."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from whenthen.cli.command_groups import new_group
from whenthen.cli.lists.listings import Column, Item, Listing, add_listing, joined, local_time
from whenthen.cli.lists.tables import Shape
from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, print_json, stderr, stdout

__all__ = ["add_commands"]


def _expires(item: Item) -> str:
    return f"{local_time('expires')(item)}{' (over)' if item['expired'] else ''}" if item["expires"] else "never"


TOKENS = Listing(
    about="Tokens of the API with their scopes, beside the server's own one.",
    route="/api/tokens",
    columns=(
        Column(title="NAME", value="name", shape=Shape.NAME),
        Column(title="SCOPES", value=joined("scopes")),
        Column(title="CREATED", value=local_time("created")),
        Column(title="BY", value="created_by", shape=Shape.NAME),
        Column(title="EXPIRES", value=_expires),
        Column(title="ID", value="id"),
    ),
    empty="no tokens but the server's own one; whenthen tokens create makes some",
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The token's name.", show_default=False)]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    tokens = new_group(app, "tokens", TOKENS.about)
    add_listing(tokens, TOKENS)
    tokens.command()(create)
    tokens.command()(revoke)


@errors
def create(
    name: NameArgument,
    scope: Annotated[
        list[str],
        typer.Option(
            metavar="SCOPE",
            help="What it may be used for; may be given several times: read (every list), emit (send events), operate (run, pause, "
            "cancel, redrive), admin (all of it, rules, backups and tokens).",
            show_default=False,
        ),
    ],
    expires: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="After which it ends, such as 90d. Default: when it is revoked."),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token, and print its value: it is shown this once."""
    from whenthen.cli.client import Client

    body: dict[str, Any] = {"name": name, "scopes": scope}
    if expires is not None:
        body["lasts"] = expires
    with Client.connect(url, ca) as client:
        made = client.post("/api/tokens", body)
    if as_json:
        print_json(made)
        return
    until = f", until {local_time('expires')(made)}" if made["expires"] else ""
    stderr().print(
        f"the token {escape(made['name'])} may {escape(', '.join(made['scopes']))}{until}; keep its value, it is shown this once:"
    )
    typer.echo(made["value"])


@errors
def revoke(name: NameArgument, url: UrlOption = DEFAULT_URL, ca: CaOption = None, as_json: JsonOption = False) -> None:
    """End a token at once, with every session that it began."""
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        gone = client.post(f"/api/tokens/{quoted(name)}/revoke")
    if as_json:
        print_json(gone)
        return
    stdout().print(f"the token {escape(gone['name'])} is revoked")
