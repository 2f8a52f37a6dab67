"""Writes docs/settings.md from the fields of `Settings`: `python -m tools.settings_page docs/settings.md` (`make docs`).

A test compares the page with what this makes. Meanings are the docstrings of the fields.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from whenthen.engine.process import Settings
from whenthen.engine.process.settings import FILE_NAMES, parse_bytes
from whenthen.schemas.base import description_of
from whenthen.schemas.times import format_duration

__all__ = ["settings_page"]

_HEAD = f"""# Settings

<!-- Written by `make docs` from the class `Settings` (whenthen/engine/process/settings.py). Do not edit. -->

How one process runs. A setting is taken from the first of these that has it:

1. a flag of `whenthen serve` or `whenthen worker` (`whenthen serve --help` lists those that exist);
2. the environment variable; an empty one counts as not set;
3. the file that `config` names, else the first of {", ".join(f"`{name}`" for name in FILE_NAMES)} in the data directory, then in
   the working directory. Its keys are the names below.

A name that does not exist, or a value that does not fit, is refused at start, with where it was set and the remedy.

- A **duration** is a number with a unit: `500ms`, `30s`, `5m`, `2h`, `7d`.
- A **size** is a number of bytes, or a number with a unit: `4MB`, `512MiB`, `10GB`. Where -1 is allowed, it and `unlimited` mean no limit.

"""
_SIZES = ((10**9, "GB"), (10**6, "MB"), (10**3, "KB"))


def settings_page() -> str:
    """The whole page as Markdown."""
    rows = ["| setting | environment variable | default | value | meaning |", "| --- | --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        description = description_of(Settings, name)
        if not description:
            raise ValueError(f"Settings.{name} has no docstring; write what it means below the field")
        meaning = " ".join(description.split())
        rows.append(f"| `{name}` | `WHENTHEN_{name.upper()}` | {_default(field)} | {_value(field)} | {meaning} |")
    return _HEAD + "\n".join(rows) + "\n"


def _is_size(field: FieldInfo) -> bool:
    return any(isinstance(item, BeforeValidator) and item.func is parse_bytes for item in field.metadata)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value is PydanticUndefined:
        return "not set"
    return f"`{_shown(field, value)}`"


def _shown(field: FieldInfo, value: Any) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    if _is_size(field):
        for size, unit in _SIZES:
            if value >= size and value % size == 0:
                return f"{value // size}{unit}"
    return str(value)


def _value(field: FieldInfo) -> str:
    """The kind of value and its range."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    types = {field.annotation, *get_args(field.annotation)}
    if timedelta in types:
        kind = "duration"
    elif _is_size(field):
        kind = "size"
    elif int in types:
        kind = "number"
    elif Path in types:
        kind = "path"
    else:
        kind = "text"
    low = next((item.ge for item in field.metadata if isinstance(item, Ge)), None)
    high = next((item.le for item in field.metadata if isinstance(item, Le)), None)
    if low == -1:
        return f"{kind}, or -1 for no limit"
    if low is not None and high is not None:
        return f"{kind}, {_shown(field, low)} to {_shown(field, high)}"
    if low is not None:
        return f"{kind}, at least {_shown(field, low)}"
    return kind


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(settings_page(), encoding="utf-8")
