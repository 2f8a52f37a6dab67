"""Values of any type on the command line: as text that may be JSON, as `name=value`, or in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

__all__ = ["json_or_text", "read_json_file", "read_pairs"]


def json_or_text(text: str) -> Any:
    """A value that is JSON keeps its type, anything else is text."""
    from whenthen.schemas.errors import InvalidInput
    from whenthen.sources import decode_json

    try:
        return decode_json(text.encode())
    except InvalidInput:
        return text


def read_pairs(texts: list[str], option: str) -> dict[str, Any]:
    """What is written as `name=value`, each value as `json_or_text` reads it.

    Raises:
        InvalidInput: without a name.
    """
    from whenthen.schemas.errors import InvalidInput

    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(f"{option}: {text[:80]!r} is not name=value")
        found[name] = json_or_text(value)
    return found


def read_json_file(file: str, option: str) -> Any:
    """The JSON value in a file; `-` is standard input.

    Raises:
        InvalidInput: it can not be read, or is no JSON.
    """
    from whenthen.schemas.errors import InvalidInput
    from whenthen.sources import decode_json

    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InvalidInput(f"{option}: {file} can not be read: {error.strerror}") from None
    try:
        return decode_json(data)
    except InvalidInput as error:
        raise InvalidInput(f"{option}: {file}: {error}") from None
