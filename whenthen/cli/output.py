"""How commands print: tables for people, JSON for programs, errors with their remedy on standard error.

Exit codes: 0 done, 1 the answer is no (bad rules, failed tests, not found, refused), 2 the command was called wrongly.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, ParamSpec, TypeVar

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whenthen.schemas import InvalidRules, WhenthenError

__all__ = ["cell", "errors", "fail", "print_json", "print_lines", "print_problems", "print_table", "stderr", "stdout"]

P = ParamSpec("P")
R = TypeVar("R")


def stdout() -> Console:
    """Standard output as it is now; wide enough for a table when it is not a terminal."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)


def stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document, indented."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())


def print_lines(values: Iterable[Any]) -> None:
    """One JSON document a line, each written at once."""
    for value in values:
        sys.stdout.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE).decode())
        sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """A table without frame; `empty` is said when there are no rows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    if table.row_count:
        stdout().print(table)
    else:
        stdout().print(empty)


def print_problems(error: InvalidRules) -> None:
    """Every problem, a line each, in the form that editors jump to."""
    for problem in error.problems:
        print(problem, file=sys.stderr)


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what went wrong and end."""
    stderr().print(f"[bold red]error[/]: {escape(message)}")
    raise typer.Exit(code)


def errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn an error of ours into its message and exit code 1."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except InvalidRules as error:
            print_problems(error)
            count = len(error.problems)
            fail(f"{count} problem{'s' if count != 1 else ''}; nothing was taken from these rules")
        except WhenthenError as error:
            fail(str(error))
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(0) from None

    return wrapped


def cell(item: Mapping[str, Any], name: str) -> Any:
    """A value of a listing for a table: lists joined, missing as empty."""
    value = item.get(name)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value
