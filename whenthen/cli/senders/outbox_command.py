"""`whenthen sources sql`: an outbox table for PostgreSQL. Needs no server."""

from __future__ import annotations

from typing import Annotated

import typer

from whenthen.cli.output import errors, fail


@errors
def sql(
    table: Annotated[str, typer.Argument(help="The table, such as app.outbox.")] = "whenthen_outbox",
) -> None:
    """Print the SQL that makes an outbox table in PostgreSQL, which a source of the type postgres reads. It may be run again."""
    from pydantic import TypeAdapter, ValidationError

    from whenthen.engine.sources import outbox_sql
    from whenthen.schemas.event_sources import Identifier

    try:
        TypeAdapter(Identifier).validate_python(table)
    except ValidationError as error:
        fail(str(error.errors()[0]["ctx"]["error"]), 2)
    typer.echo(outbox_sql(table), nl=False)
