"""`whenthen variables`, `whenthen artifacts`, `whenthen limits`: what the code of runs shares and shows."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from whenthen.cli.command_groups import new_group
from whenthen.cli.lists.given_values import json_or_text
from whenthen.cli.lists.listings import Column, Filter, Item, Listing, add_listing, joined, list_command, local_time
from whenthen.cli.lists.tables import Shape
from whenthen.cli.options import DEFAULT_URL, MAX_PAGE, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, print_document, print_json, stdout, visible

__all__ = ["add_commands"]

_SHOWN = 200  #: characters of a value in a list

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The variable's name.", show_default=False)]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _progress(item: Item) -> str:
    return f"{item['data']:g} %" if item["type"] == "progress" else _short(item["data"])


VARIABLES = Listing(
    about="Variables: named values that flows and people share.",
    route="/api/variables",
    columns=(
        Column(title="NAME", value="name", shape=Shape.NAME),
        Column(title="VALUE", value=lambda item: _short(item["value"]), shape=Shape.TEXT),
        Column(title="TAGS", value=joined("tags"), shape=Shape.NAME, optional=True),
        Column(title="CHANGED", value=local_time("changed")),
        Column(title="BY", value="by", shape=Shape.NAME),
    ),
    empty="no variables; whenthen variables set NAME VALUE makes one",
)
ARTIFACTS = Listing(
    about="Artifacts: what runs have to show, the last changed first.",
    route="/api/artifacts",
    columns=(
        Column(title="UPDATED", value=local_time("updated")),
        Column(title="KEY", value="key", shape=Shape.NAME, optional=True),
        Column(title="TYPE", value="type"),
        Column(title="DEPLOYMENT", value="deployment", shape=Shape.NAME),
        Column(title="RUN", value="run", shape=Shape.ID),
        Column(title="ID", value="id", shape=Shape.ID),
        Column(title="DATA", value=_progress, shape=Shape.TEXT),
    ),
    empty="no artifacts",
    filters=(
        Filter(name="run", help="Of the run with this id."),
        Filter(name="key", help="Of this key: versions of one thing."),
    ),
    most=MAX_PAGE,
)
LIMITS = Listing(
    about="Named limits of the rules, and who has their slots.",
    route="/api/limits",
    columns=(
        Column(title="NAME", value="name", shape=Shape.NAME),
        Column(title="TAKEN", value=lambda item: f"{item['taken']:.4g} of {item['slots']}"),
        Column(
            title="PER SECOND",
            value=lambda item: "" if item["per_second"] is None else f"{item['per_second']:g}",
            optional=True,
        ),
        Column(title="HOLDERS", value=joined("holders"), shape=Shape.TEXT, optional=True),
    ),
    empty="no limits; `limits:` in the rules makes some",
)


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("limits")(list_command(LIMITS))
    artifacts = new_group(app, "artifacts", ARTIFACTS.about)
    add_listing(artifacts, ARTIFACTS)
    artifacts.command("show")(show_artifact)
    variables = new_group(app, "variables", VARIABLES.about)
    add_listing(variables, VARIABLES)
    variables.command("get")(get_variable)
    variables.command("set")(set_variable)
    variables.command("unset")(unset_variable)


@errors
def show_artifact(
    artifact: Annotated[
        str,
        typer.Argument(metavar="ID", help="The artifact's whole id, or a key: the newest of that.", show_default=False),
    ],
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """One artifact, whole."""
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        print_document(client.get(f"/api/artifacts/{quoted(artifact)}"), as_json=as_json)


@errors
def get_variable(
    name: NameArgument, url: UrlOption = DEFAULT_URL, ca: CaOption = None, as_json: JsonOption = False
) -> None:
    """Print the value of a variable: a text as it is, anything else as JSON."""
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        found = client.get(f"/api/variables/{quoted(name)}")
    if as_json:
        print_json(found)
        return
    value = found["value"]
    typer.echo(visible(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


@errors
def set_variable(
    name: NameArgument,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="A value that is JSON keeps its type.", show_default=False)
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Change it, if there is one already.")] = False,
    tag: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a value under a name."""
    from whenthen.cli.client import Client, quoted

    body = {"value": json_or_text(value), "tags": tag or [], "overwrite": overwrite}
    with Client.connect(url, ca) as client:
        made = client.post(f"/api/variables/{quoted(name)}", body)
    if as_json:
        print_json(made)
        return
    stdout().print(escape(f"{made['name']} is {_short(made['value'])}"))


@errors
def unset_variable(
    name: NameArgument, url: UrlOption = DEFAULT_URL, ca: CaOption = None, as_json: JsonOption = False
) -> None:
    """Forget a variable."""
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        gone = client.post(f"/api/variables/{quoted(name)}/unset")
    if as_json:
        print_json(gone)
        return
    stdout().print(escape(f"{name} is unset" if gone["unset"] else f"there was no variable {name}"))
