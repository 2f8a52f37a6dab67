"""Work pools and the workers in them."""

from __future__ import annotations

from typing import Annotated

import typer

from whenthen.cli.command_groups import new_group
from whenthen.cli.lists.listings import Column, Listing, add_listing, list_command, local_time
from whenthen.cli.lists.tables import Shape
from whenthen.cli.options import DEFAULT_URL, CaOption, JsonOption, UrlOption
from whenthen.cli.output import errors, escape, print_json, stdout

__all__ = ["add_commands"]

PoolArgument = Annotated[str, typer.Argument(metavar="POOL", help="The pool's name.", show_default=False)]

POOLS = Listing(
    about="Work pools: where runs wait for workers, and whether they are paused.",
    route="/api/work-pools",
    columns=(
        Column(title="NAME", value="name", shape=Shape.NAME),
        Column(title="TYPE", value="type"),
        Column(title="STATE", value=lambda item: "paused" if item["paused"] else "open"),
        Column(
            title="LIMIT",
            value=lambda item: "" if item["limit"] is None else f"{len(item['active'])} of {item['limit']}",
            optional=True,
        ),
        Column(title="WORKERS", value=lambda item: len(item["workers"]), shape=Shape.NUMBER),
        Column(title="DEPLOYMENTS", value=lambda item: ", ".join(item["deployments"]), shape=Shape.NAME),
    ),
    empty="no work pools",
)
WORKERS = Listing(
    about="Workers that are at work: in which pool, since when, and how many runs they have.",
    route="/api/workers",
    columns=(
        Column(title="NAME", value="name", shape=Shape.NAME),
        Column(title="POOL", value="pool", shape=Shape.NAME),
        Column(title="SINCE", value=local_time("since")),
        Column(title="RUNS", value=lambda item: f"{item['running']} of {item['concurrency']}"),
        Column(title="STATE", value=lambda item: "lost" if item["lost"] else "at work"),
        Column(title="VERSION", value="version"),
    ),
    empty="no workers",
)


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("workers")(list_command(WORKERS))
    pools = new_group(app, "work-pools", POOLS.about)
    add_listing(pools, POOLS)
    pools.command("pause")(pause_pool)
    pools.command("resume")(resume_pool)


@errors
def pause_pool(
    name: PoolArgument, url: UrlOption = DEFAULT_URL, ca: CaOption = None, as_json: JsonOption = False
) -> None:
    """Start no more runs of a pool; those that are active go on."""
    _switch(name, "pause", url, ca, as_json)


@errors
def resume_pool(
    name: PoolArgument, url: UrlOption = DEFAULT_URL, ca: CaOption = None, as_json: JsonOption = False
) -> None:
    """Start the runs that wait in a pool."""
    _switch(name, "resume", url, ca, as_json)


def _switch(name: str, verb: str, url: str, ca: str | None, as_json: bool) -> None:
    from whenthen.cli.client import Client, quoted

    with Client.connect(url, ca) as client:
        found = client.post(f"/api/work-pools/{quoted(name)}/{verb}")
    if as_json:
        print_json(found)
        return
    stdout().print(escape(f"{name} is {'paused' if found['paused'] else 'open'}"))
