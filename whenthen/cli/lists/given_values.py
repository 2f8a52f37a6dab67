"""Values of any type on the command line: as text that may be JSON, as `name=value`, or in a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["json_or_text", "read_json_file", "read_pairs", "read_pairs_for"]


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


def read_pairs_for(texts: list[str], option: str, schema: Callable[[], Any]) -> dict[str, Any]:
    """As `read_pairs`, with a value as it is written where the JSON Schema that `schema()` gives takes a text: `order=7` is "7" there.

    `schema` is asked only where it matters; what the server refuses to tell is done without.

    Raises:
        InvalidInput: without a name.
    """
    from whenthen.cli.client import ApiError

    found = read_pairs(texts, option)
    if all(isinstance(value, str) for value in found.values()):
        return found
    try:
        told = schema()
    except ApiError:  # a token may change and not read; what else is wrong the change itself says
        return found
    properties = told.get("properties") if isinstance(told, dict) else None
    takes = properties if isinstance(properties, dict) else {}
    written = dict(text.split("=", 1) for text in texts)
    return {
        name: value if isinstance(value, str) or not _is_text(takes.get(name), value) else written[name]
        for name, value in found.items()
    }


def _is_text(schema: Any, value: Any) -> bool:
    """Whether a schema takes a text, and no `value` that is none."""
    if not isinstance(schema, dict):
        return False
    choices = schema.get("anyOf", [schema])
    kinds = [choice.get("type") if isinstance(choice, dict) else None for choice in choices]
    return "string" in kinds and all(kind == "string" or (kind == "null" and value is not None) for kind in kinds)


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
