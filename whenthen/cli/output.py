"""How commands print: text for people, JSON for programs, errors with their remedy on standard error.

Exit codes: 0 done, 1 the answer is no (bad rules, failed tests, not found, refused), 2 the command was called wrongly.
What prints or encodes is imported when it is needed: help and errors of usage need none of it.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from whenthen.schemas.errors import Problem

__all__ = [
    "errors",
    "escape",
    "fail",
    "print_document",
    "print_json",
    "print_lines",
    "print_problems",
    "stderr",
    "stdout",
    "visible",
]

#: what a terminal obeys or hides: control characters but line break and tab, separators, and changes of the direction
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: the same in JSON, where the characters before the space are escaped already
_OBEYED_IN_JSON = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

P = ParamSpec("P")
R = TypeVar("R")


def stdout() -> Console:
    """Standard output as it is now, for text with markup; lines are not broken."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def stderr() -> Console:
    """Standard error; see `stdout`."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def escape(text: str) -> str:
    """`text` for `stdout` and `stderr`: shown as `visible` gives it, whatever brackets it has."""
    from rich.markup import escape

    return escape(visible(text))


def visible(text: str) -> str:
    """`text` with every character escaped (`\\x1b`) that a terminal would obey in place of showing it."""
    if text.isprintable():
        return text
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _json_text(data: bytes) -> str:
    return _OBEYED_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", data.decode())


def print_json(value: Any) -> None:
    """One JSON document, indented."""
    import orjson

    sys.stdout.write(_json_text(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)))


def print_lines(values: Iterable[Any]) -> None:
    """One JSON document a line, each written at once."""
    import orjson

    for value in values:
        sys.stdout.write(_json_text(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)))
        sys.stdout.flush()


def print_document(value: Any, *, as_json: bool) -> None:
    """One thing: as YAML for people, or as JSON."""
    if as_json:
        print_json(value)
    else:
        import yaml

        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False)
        typer.echo(visible(text.rstrip("\n")))


def print_problems(problems: Iterable[Problem]) -> None:
    """Every problem, a line each, in the form that editors jump to."""
    for problem in problems:
        print(visible(str(problem)), file=sys.stderr)


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
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(0) from None
        except typer.Exit:
            raise
        except Exception as error:
            from whenthen.schemas.errors import InvalidRules, WhenthenError

            if isinstance(error, InvalidRules):
                print_problems(error.problems)
                count = len(error.problems)
                fail(f"{count} problem{'s' if count != 1 else ''}; nothing was taken from these rules")
            if isinstance(error, WhenthenError):
                fail(str(error))
            raise

    return wrapped
