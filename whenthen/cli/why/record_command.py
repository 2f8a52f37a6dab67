"""`whenthen record`: what happened, as a test of rules, ready to run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from whenthen.cli.options import DEFAULT_URL, CaOption, UrlOption
from whenthen.cli.output import errors, escape, fail, stderr, visible

__all__ = ["add_commands"]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("record")(record)


@errors
def record(
    firing: Annotated[
        str | None, typer.Argument(help="The firing's id, as it is listed or in full.", show_default=False)
    ] = None,
    missing: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--missing", help="An automation and the event for which it did not fire.", metavar="AUTOMATION EVENT"
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Write a new file, such as rules/pager.test.yaml; else standard output."),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
) -> None:
    """Write a test of rules (*.test.yaml) from what happened: what led to a firing, or why there was none."""
    import yaml

    from whenthen.cli.client import Client

    if (firing is None) == (missing is None):
        fail("give a firing's id, or --missing AUTOMATION EVENT", 2)
    if file is not None and not file.name.endswith((".test.yaml", ".test.yml")):
        fail(f"{file}: `whenthen test` reads files whose names end in .test.yaml; name it so", 2)
    automation, event = missing if missing is not None else (None, None)
    with Client.connect(url, ca) as client:
        found = client.get("/api/record", firing=firing, automation=automation, event=event)
    text = yaml.safe_dump(
        {"tests": [found["test"]]}, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )
    notes = "".join(f"# {visible(line)}\n" for note in found["notes"] for line in note.splitlines())
    if file is None:
        sys.stdout.write(notes + text)
    else:
        try:
            with file.open("x", encoding="utf-8") as out:
                out.write(notes + text)
        except OSError as error:
            fail(f"{file}: {error.strerror}; name a file that is not there yet")
    if not found["passes"]:
        stderr().print(f"[yellow]warning[/]: the test does not pass as it is: {escape('; '.join(found['notes']))}")
