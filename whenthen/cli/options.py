"""Options that several commands have. Imports no more than typer, as every command's help needs them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

__all__ = ["DEFAULT_URL", "MAX_PAGE", "CaOption", "JsonOption", "Output", "OutputOption", "UrlOption"]

DEFAULT_URL = "http://127.0.0.1:4280"
#: of one page of a listing, as the API has it
MAX_PAGE = 1000


class Output(StrEnum):
    """How a listing is printed."""

    TABLE = "table"  #: as wide as the terminal, ids shortened
    WIDE = "wide"  #: everything in full, a line each
    JSON = "json"  #: as the API has it


UrlOption = Annotated[
    str,
    typer.Option("--url", envvar="WHENTHEN_URL", help="Where the server is.", metavar="URL"),
]
CaOption = Annotated[
    str | None,
    typer.Option("--ca", envvar="WHENTHEN_CA", help="The authorities (PEM) of an https:// server.", metavar="FILE"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="table fits the terminal; wide shows everything in full, a line each.")
]
