"""`whenthen sources`: what is read beside requests."""

from __future__ import annotations

import typer

from whenthen.cli.command_groups import new_group
from whenthen.cli.senders.outbox_command import sql

ABOUT = "What brings events in, and the SQL of an outbox table."


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    group = new_group(app, "sources", ABOUT)
    group.callback()(_help)
    group.command("sql")(sql)


def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
