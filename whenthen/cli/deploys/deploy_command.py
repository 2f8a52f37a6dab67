"""Deployments of functions registered with a running server, beside its rules files, and taken out again.

Nothing of the user is imported: the name of a flow and its parameters are read from the syntax of its file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, fail, print_json, stderr, stdout
from whenthen.cli.rule_sets import MARKS
from whenthen.machine_user import user_at_host

__all__ = ["add_commands", "remove_registered"]

PreviewOption = Annotated[bool, typer.Option("--preview", help="Say what would change, and change nothing.")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(deploy)


@errors
def deploy(
    entrypoint: Annotated[
        str, typer.Argument(help="path/to/file.py:function, or package.module:function.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Behind the name of the flow; default: that of the file.")
    ] = None,
    cron: Annotated[
        list[str] | None, typer.Option(help="A schedule of five fields; may be given several times.")
    ] = None,
    interval: Annotated[list[str] | None, typer.Option(help="A time between runs, such as 15m.")] = None,
    rrule: Annotated[list[str] | None, typer.Option(help="A recurrence rule.")] = None,
    timezone: Annotated[str, typer.Option(help="Of its schedules, such as Europe/Paris.")] = "UTC",
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A default; JSON where it is JSON.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", help="A tag; may be given several times.")] = None,
    pool: Annotated[str, typer.Option("--pool", help="The work pool whose workers run it.")] = "default",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="How many runs may be active at once.")] = None,
    description: Annotated[str, typer.Option(help="What it does.")] = "",
    version: Annotated[str, typer.Option(help="Of its code.")] = "",
    git: Annotated[
        str | None, typer.Option(help="Its code is in this repository, which is cloned for each run.", metavar="URL")
    ] = None,
    ref: Annotated[str | None, typer.Option(help="A branch, tag or commit of the repository.")] = None,
    token: Annotated[
        str | None, typer.Option(help="Admits the worker to the repository: env:NAME or file:/path.")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Have its schedules paused.")] = False,
    preview: PreviewOption = False,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a function as a deployment. Workers of its pool have its code in the folder in which this is called, or in a repository."""
    from whenthen.cli.client import Client, quoted
    from whenthen.cli.lists.given_values import read_pairs

    times = [("cron", each) for each in cron or ()]
    times += [("interval", each) for each in interval or ()]
    times += [("rrule", each) for each in rrule or ()]
    repository = {"git": git, "ref": ref, "token": token}
    code = {key: value for key, value in repository.items() if value is not None}
    if code and git is None:
        fail("--ref and --token belong to a repository; give --git URL", 2)
    rule = {
        "name": _full_name(entrypoint, name, there=git is None),
        "description": description,
        "entrypoint": entrypoint,
        "code": code or {"folder": str(Path.cwd())},
        "version": version,
        "parameters": read_pairs(param or [], "--param"),
        "tags": tag,
        "concurrency_limit": limit,
        "work_pool": pool,
        "schedules": [_schedule(number, kind, text, timezone, paused) for number, (kind, text) in enumerate(times)],
    }
    rule = {key: value for key, value in rule.items() if value not in (None, "", [], {})}
    said = _warn(rule) if git is None else []
    with Client.connect(url, ca) as client:
        found = client.post(
            "/api/rules/deployments", {"deployments": [{"rule": rule}], "who": user_at_host(), "preview": preview}
        )
        if paused and not preview:
            client.post(f"/api/deployments/{quoted(str(rule['name']))}/pause")
    _print(found, said, preview=preview, as_json=as_json)


def remove_registered(names: list[str], *, preview: bool, url: str, ca: str | None, as_json: bool) -> None:
    """Take out deployments that were registered, and say which. Raises what the client does."""
    from whenthen.cli.client import Client

    with Client.connect(url, ca) as client:
        found = client.post("/api/rules/deployments", {"remove": names, "who": user_at_host(), "preview": preview})
    _print(found, [], preview=preview, as_json=as_json)


def _full_name(entrypoint: str, name: str | None, *, there: bool) -> str:
    """`flow/name`, with the name of the flow as its code has it."""
    from whenthen.rules.prefect_import import flow_names_below, function_name
    from whenthen.schemas.entry_points import entry_point

    try:
        point = entry_point(entrypoint)
    except ValueError as error:
        fail(str(error), 2)
    if there and point.file is not None and not Path(point.file).is_file():
        fail(
            f"there is no file {point.file!r} in {os.getcwd()}; entry points are relative to the folder of the command",
            2,
        )
    found = flow_names_below(Path.cwd())(point) if there else None
    return f"{found or function_name(point)}/{name or Path(point.where).stem.rpartition('.')[2]}"


def _schedule(number: int, kind: str, text: str, timezone: str, paused: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"name": "default" if number == 0 else f"schedule-{number + 1}", kind: text}
    if timezone != "UTC":
        found["timezone"] = timezone
    if paused:
        found["active"] = False
    return found


def _warn(rule: Mapping[str, Any]) -> list[str]:
    """Say what is probably not meant, as `whenthen check` does, and give it: the server may not have the code.

    Raises:
        InvalidRules: it is no deployment.
    """
    from whenthen.rules import SourceFile, compile_files
    from whenthen.yaml_text import list_item

    text = f"deployments:\n{list_item(rule)}\n"
    found = [each.detail for each in compile_files(Path.cwd(), [SourceFile(name="deploy", raw=text.encode())]).warnings]
    for detail in found:
        stderr().print(f"note: {escape(detail)}")
    return found


def _print(found: dict[str, Any], said: Sequence[str], *, preview: bool, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    out = stdout()
    for change in found["changes"]:
        out.print(f"{MARKS[change['change']]} {change['kind']} {escape(change['name'])}: {escape(change['detail'])}")
    for name in found["unchanged"]:
        out.print(f"= deployment {escape(name)}: as it was")
    for note in found["notes"]:
        if note.endswith(tuple(said)):  # a server on this machine finds the same in the code
            continue
        out.print(f"  note: {escape(note)}")
    out.print("nothing was changed" if preview else f"revision {found['number']} is in force")
