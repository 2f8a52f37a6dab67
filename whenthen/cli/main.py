"""The `whenthen` command."""

from __future__ import annotations

from typing import Annotated

import typer

from whenthen import __version__
from whenthen.cli import demo, emit, inspect, rules, runs, serve

__all__ = ["app", "main"]

app = typer.Typer(
    name="whenthen",
    help="When this happens, then do that: events in, rules in git, actions out, and nothing lost on the way.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"whenthen {__version__}")
        raise typer.Exit


@app.callback()
def whenthen(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """When this happens, then do that."""


serve.add_commands(app)
rules.add_commands(app)
emit.add_commands(app)
inspect.add_commands(app)
runs.add_commands(app)
demo.add_commands(app)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
