"""`whenthen asyncapi`: print the AsyncAPI document, which a server serves at /asyncapi.json, too."""

from __future__ import annotations

import typer

__all__ = ["add_commands"]


def add_commands(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("asyncapi")(asyncapi)


def asyncapi() -> None:
    """Print an AsyncAPI document of all NATS subjects and messages, as JSON."""
    from whenthen import __version__
    from whenthen.engine.process import asyncapi_document

    typer.echo(asyncapi_document(__version__))
