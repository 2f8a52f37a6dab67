"""What a plain scalar of YAML stands for, and how a value is called in a message.

Called by `documents`, `validation_messages` and every other module that reports a value that was found. Scalars are what they are to PyYAML
(YAML 1.1: `yes`, `no`, `on` and `off` are booleans, so that a text field refuses them instead of one editor seeing `on`
and another `true`), but for base-60 numbers and dates, which stay text, and octal numbers, which are refused.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["SPECIAL_START", "WORDS", "describe", "number", "short"]

MAX_NUMBER_CHARS = 400

WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
for _word, _value in {"yes": True, "no": False, "on": True, "off": False, "true": True, "false": False}.items():
    WORDS |= {_word: _value, _word.capitalize(): _value, _word.upper(): _value}
SPECIAL_START = frozenset("0123456789+-.~nNyYoOtTfF")  #: what is not text starts with one of these
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_BASED = re.compile(r"[-+]?(?:0x_*[0-9a-fA-F][0-9a-fA-F_]*|0b_*[01][01_]*)")
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_FLOAT = re.compile(r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?")
_NOT_JSON = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def describe(value: Any) -> str:
    """What kind of thing a value is, in words."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {short(str(value))}"
    if isinstance(value, str):
        return f'the text "{short(value)}"'
    return "a list" if isinstance(value, list) else "a mapping"


def number(text: str) -> Any:
    """The number that `text` spells, or the text itself.

    Raises:
        ValueError: a number that YAML readers or JSON would take differently; the message has the remedy.
    """
    if _INTEGER.fullmatch(text) or _BASED.fullmatch(text):
        digits = text.replace("_", "")
        if len(digits) <= MAX_NUMBER_CHARS:
            found = int(digits, 0)
            if -(2**63) <= found < 2**64:
                return found
        raise ValueError(f"the number {short(text)} does not fit into 64 bits; put it in quotes to make it text")
    if _OCTAL.fullmatch(text):
        raise ValueError(
            f"{short(text)} is octal to some YAML readers and decimal to others; put it in quotes, or drop the zero"
        )
    if _FLOAT.fullmatch(text):
        real = float(text.replace("_", "")) if len(text) <= MAX_NUMBER_CHARS else float("inf")
        if real in (float("inf"), float("-inf")):
            raise ValueError(f"the number {short(text)} is too large; put it in quotes to make it text")
        return real
    if _NOT_JSON.fullmatch(text):
        raise ValueError(f"{text} is no number in JSON; write a finite one")
    return text


def short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[:limit] + "..."
