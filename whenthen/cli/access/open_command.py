"""`whenthen open`: the pages in a browser, logged in.

The browser gets a file that leads to the one-time address, and not the address: what programs are started with is seen by every user of
the machine. The file can be read by its owner only, and what it leads to works once.
"""

from __future__ import annotations

import contextlib
import html
import os
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from whenthen.cli.options import DEFAULT_URL, CaOption, UrlOption
from whenthen.cli.output import errors, escape, fail, stderr, stdout

__all__ = ["add_commands"]

FILE = "open.html"  #: in the state folder


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("open")(open_pages)


@errors
def open_pages(
    url: UrlOption = DEFAULT_URL,
    ca: CaOption = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print the address, and start no browser.")] = False,
) -> None:
    """Open the pages in a browser, logged in with the token of this command."""
    from whenthen.cli.client import Client

    with Client.connect(url, ca) as client:
        made = client.post("/api/login-addresses")
        address = client.url + made["path"]
    if only_print:
        typer.echo(address)
        return
    try:
        file = _leading_to(address)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}; whenthen open --print prints the address")
    if not webbrowser.open(file.as_uri()):
        with contextlib.suppress(OSError):
            file.unlink()
        stderr().print("no browser could be started; open this address in one, within ten minutes, once:")
        typer.echo(address)
        return
    stdout().print(
        f"a browser opens {escape(client.url)}; if it shows nothing, whenthen open --print prints an address for it"
    )


def _leading_to(address: str) -> Path:
    """A file that leads a browser to an address, in place of the one of before."""
    from whenthen.cli.token_files import state_folder

    folder = state_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
    path = folder / FILE
    path.unlink(missing_ok=True)
    link = html.escape(address, quote=True)
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(number, "w", encoding="utf-8") as file:
        file.write(
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>whenthen</title>'
            f'<meta name="referrer" content="no-referrer"><meta http-equiv="refresh" content="0; url={link}"></head>'
            f'<body><p><a href="{link}">Log in</a></p></body></html>\n'
        )
    return path
