"""Rule sets of a running server: what a set would change, putting it in force, going back, and which there were.

The rules are read here and sent as texts, so that the folder need not be on the server's machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from whenthen.cli.lists.listings import Column, Listing, list_command, local_time
from whenthen.cli.lists.tables import Shape
from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, print_json, stdout
from whenthen.machine_user import user_at_host

__all__ = ["MARKS", "add_commands"]

REVISIONS = Listing(
    about="Revisions of the rules that are kept, newest first: who published them, when and how.",
    route="/api/rules/revisions",
    columns=(
        Column(title="NUMBER", value=lambda item: f"{item['number']}{' (current)' if item['current'] else ''}"),
        Column(title="PUBLISHED", value=local_time("at")),
        Column(title="HOW", value=lambda item: _how(item)),
        Column(title="WHO", value=lambda item: f"{item['who']} on {item['host']}", shape=Shape.NAME),
        Column(title="AUTOMATIONS", value="automations", shape=Shape.NUMBER),
        Column(title="DIGEST", value="digest", shape=Shape.NAME),
    ),
    empty="no rules were published",
)
MARKS = {"new": "[green]+[/]", "changed": "[yellow]~[/]", "restarted": "[yellow]![/]", "removed": "[red]-[/]"}

RulesArgument = Annotated[
    Path | None,
    typer.Argument(
        help="A folder of YAML files, or one file. Default: those that the server has on disk.", show_default=False
    ),
]
ExpectOption = Annotated[
    int | None,
    typer.Option("--expect", help="The revision that is to be replaced; refused when another one is in force by now."),
]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(plan)
    app.command("apply")(apply_rules)
    app.command()(rollback)
    app.command("revisions")(list_command(REVISIONS))


@errors
def plan(
    rules: RulesArgument = None, url: UrlOption = DEFAULT_URL, ca: CaOption = None, as_json: JsonOption = False
) -> None:
    """What rules would change: automations that are new, changed, starting afresh or removed. Changes nothing."""
    from whenthen.cli.client import Client

    with Client.connect(url, ca) as client:
        found = client.post("/api/rules/plan", _request(rules))
    if as_json:
        print_json(found)
        return
    out = stdout()
    for change in found["changes"]:
        out.print(
            f"{MARKS[change['change']]} {change['kind']} {escape(change['name'])}: {escape('; '.join(_details(change)))}"
        )
    if found["digest"] == found["in_force"]:
        out.print(f"these rules are in force, as revision {found['number']}")
        return
    if not found["changes"]:
        out.print("nothing but the text of the files changes")
    if found.get("published_before"):
        out.print(f"they were published before, as revision {found['published_before']}")
    words = "whenthen apply" if rules is None else f"whenthen apply {rules}"
    out.print(f"revision {found['number']} is in force; `{escape(words)} --expect {found['number']}` replaces it")


@errors
def apply_rules(
    rules: RulesArgument = None,
    expect: ExpectOption = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put rules in force, whatever was in force before. All processes follow."""
    from whenthen.cli.client import Client

    with Client.connect(url, ca) as client:
        found = client.post("/api/rules/apply", {**_request(rules), **_expected(expect)})
    _print(found, as_json=as_json)


@errors
def rollback(
    revision: Annotated[
        int, typer.Argument(min=1, help="Its number; `whenthen revisions` lists them.", show_default=False)
    ],
    expect: ExpectOption = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the rules of an earlier revision in force again, as a new one. A later change of watched files replaces them."""
    from whenthen.cli.client import Client

    with Client.connect(url, ca) as client:
        found = client.post(f"/api/rules/revisions/{revision}/rollback", {"who": user_at_host(), **_expected(expect)})
    _print(found, as_json=as_json)


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    counts = ", ".join(f"{found[kind]} {kind}" for kind in ("automations", "webhooks", "deployments", "notifiers"))
    stdout().print(f"revision {found['number']} is in force ({found['digest']}): {counts}")


def _details(change: Mapping[str, Any]) -> list[str]:
    """What a plan says of one change."""
    found = [change["detail"]]
    if fields := change.get("fields"):
        found.append(f"changed is {', '.join(fields)}")
    count = change.get("windows")
    if count is not None:
        number = "10,000 or more" if count >= 10_000 else str(count) if count else "no"
        found.append(f"{number} open window{'' if count == 1 else 's'}")
    return found


def _how(item: Mapping[str, Any]) -> str:
    return f"rollback to {item['rolled_back_to']}" if item.get("rolled_back_to") else str(item["how"])


def _expected(expect: int | None) -> dict[str, int]:
    return {} if expect is None else {"expected": expect}


def _request(rules: Path | None) -> dict[str, Any]:
    """The rules as the API takes them."""
    if rules is None:
        return {"who": user_at_host()}
    from whenthen.rules import rules_files
    from whenthen.schemas.errors import InvalidRules, Problem

    files = []
    problems = []
    for file in rules_files(rules):
        trouble = file.trouble
        try:
            files.append({"name": file.name.replace(os.sep, "/"), "text": file.raw.decode()})
        except UnicodeDecodeError as error:
            trouble = f"not UTF-8 at byte {error.start}; save it as UTF-8"
        if trouble:
            problems.append(Problem(file=file.name, line=0, column=0, path=(), detail=trouble))
    if not files and not problems:
        problems.append(Problem(file=str(rules), line=0, column=0, path=(), detail="no rules files (*.yaml) are in it"))
    if problems:
        raise InvalidRules(problems)
    return {"files": files, "who": user_at_host()}
