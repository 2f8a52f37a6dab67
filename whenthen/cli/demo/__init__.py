"""`whenthen demo`: a real project end to end, in a temporary folder, told as a story.

`project/` holds its rules as anybody would write them, `payloads` what the outside sends, `receiver` what stands in for the
outside on the other end, `stage` starts and stops the server, `story` says what must have been seen, and `play` does it all.
All of that is imported when it is needed: other commands start without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whenthen.cli.output import errors

__all__ = ["add_commands"]


def add_commands(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(demo)


@errors
def demo(
    keep: Annotated[
        Path | None, typer.Option(help="Leave the project, its data and the server's log in this (new) folder.")
    ] = None,
    stay: Annotated[
        bool, typer.Option("--stay", help="Leave the server running, to look at its pages, until Ctrl-C.")
    ] = False,
) -> None:
    """Run a small project end to end, without a network, and tell what happened."""
    from whenthen.cli.demo.play import play

    if not play(keep, stay=stay):
        raise typer.Exit(1)
