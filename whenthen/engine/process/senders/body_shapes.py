"""What does a body look like, without what it holds? For people who mend a mapping. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson

__all__ = ["body_shape"]

MOST_CHARS = 400
MOST_DEPTH = 5
MOST_FIELDS = 30  #: of one object
MOST_NAME_CHARS = 40
_FORM = "application/x-www-form-urlencoded"


def body_shape(body: bytes, headers: Mapping[str, str]) -> str:
    """`{number: number, card: text of 11, lines: 2 of {sku: text of 4}}`: names of fields and kinds of values, at most `MOST_CHARS`."""
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    try:
        if kind.startswith(_FORM):
            shape = _shape(dict(parse_qsl(body.decode(), keep_blank_values=True)), 0)
        else:
            shape = _shape(orjson.loads(body), 0)
    except ValueError:  # neither JSON nor UTF-8
        try:
            shape = f"no JSON: text of {len(body.decode())}"
        except UnicodeDecodeError:
            shape = f"no text: {len(body)} bytes"
    return shape if len(shape) <= MOST_CHARS else shape[:MOST_CHARS] + "..."


def _shape(value: Any, depth: int) -> str:
    if isinstance(value, dict):
        if depth == MOST_DEPTH:
            return "{...}" if value else "{}"
        shown = [f"{_name(name)}: {_shape(each, depth + 1)}" for name, each in list(value.items())[:MOST_FIELDS]]
        return "{" + ", ".join([*shown, "..."] if len(value) > MOST_FIELDS else shown) + "}"
    if isinstance(value, list):
        return f"{len(value)} of {_shape(value[0], depth + 1)}" if value else "an empty list"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else "true or false"
    return f"text of {len(value)}" if isinstance(value, str) else "number"


def _name(name: str) -> str:
    name = name if len(name) <= MOST_NAME_CHARS else name[:MOST_NAME_CHARS] + "..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)
