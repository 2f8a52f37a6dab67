"""What a try of an action sent and what came back, as lines that read like HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

__all__ = ["request_text"]


def request_text(part: Mapping[str, Any]) -> str:
    """Of `request` or `answer` of a record (docs/actions.md, "What was sent"): first line, headers, an empty line, the body; a JSON body indented
    where it is whole. What is no HTTP is a line for each field."""
    rest = dict(part)
    first = " ".join(str(rest.pop(name)) for name in ("method", "url", "status") if name in rest)
    headers, body = rest.pop("headers", {}), rest.pop("body", None)
    size = rest.pop("body_bytes", None)
    lines = [first] if first else []
    lines += [f"{name}: {value}" for name, value in headers.items()] if isinstance(headers, Mapping) else [str(headers)]
    lines += [f"{name}: {_indented(value)}" for name, value in rest.items()]
    if body:
        lines += ["", _indented(body)]
    elif size == 0:
        lines += ["", "(no body)"]
    return "\n".join(lines)


def _indented(value: Any) -> str:
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return str(value)
    try:
        return orjson.dumps(orjson.loads(value), option=orjson.OPT_INDENT_2).decode()
    except ValueError:  # cut, or no JSON
        return value
