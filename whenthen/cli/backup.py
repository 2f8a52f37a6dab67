"""`whenthen backup` and `whenthen restore`: everything that the embedded server stores, in one file and back.

A backup is made by the server that runs, and restored by nobody but the command: no server may use the data directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whenthen.cli.options import DEFAULT_URL, UrlOption
from whenthen.cli.output import errors, escape, fail, stdout

if TYPE_CHECKING:
    from whenthen.engine.backup import ArchiveSummary

__all__ = ["add_commands"]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(backup)
    app.command()(restore)


@errors
def backup(
    file: Annotated[Path, typer.Argument(help="Where to; there must be no such file yet.", show_default=False)],
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Write everything that a running server with embedded NATS stores into a file."""
    from whenthen.cli.client import Client
    from whenthen.engine.backup import read_archive

    if file.exists():
        fail(f"{file} is there already; name another file, or remove it")
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        try:
            # it holds the payloads of events and the parameters of runs: nobody else may read it
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as target, Client.connect(url) as client:
                for part in client.download("/api/backup"):
                    target.write(part)
                target.flush()
                os.fsync(target.fileno())
            summary = read_archive(draft)
            os.link(draft, file)  # unlike a rename, it takes no other file's place
        except OSError as error:
            fail(f"{file} can not be written: {error.strerror or error}")
    finally:
        draft.unlink(missing_ok=True)
    stdout().print(f"[bold]{escape(str(file))}[/]: {_told(summary)}")


@errors
def restore(
    file: Annotated[Path, typer.Argument(help="What `whenthen backup` wrote.", show_default=False)],
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Where to; it must have no data. Default: as of whenthen serve.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A file of settings (TOML or YAML).")] = None,
) -> None:
    """Make a backup the data of a new data directory, which no server uses; then start whenthen serve with it."""
    import asyncio

    from whenthen.engine.backup import restore as restore_file
    from whenthen.engine.process import load_settings

    target = load_settings({"data_dir": data_dir, "config": config}).data_dir
    if not file.is_file():
        fail(f"{file}: there is no such file")
    summary = asyncio.run(restore_file(file, target))
    stdout().print(f"[bold]{escape(str(target))}[/]: {_told(summary)}")
    stdout().print("Logins and the API token are not in a backup; whenthen serve makes new ones.")


def _told(summary: ArchiveSummary) -> str:
    head = summary.head
    messages = sum(stream.messages for stream in summary.streams.values())
    return (
        f"{len(summary.streams)} streams, {messages} messages, {summary.bytes / 1e6:.1f} MB, "
        f"of {escape(head.created)} by whenthen {escape(head.version)} (format {head.format})"
    )
