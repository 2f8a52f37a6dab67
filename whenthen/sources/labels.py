"""Builds labels and parts of names from a payload: absent values are left out, and every text is made legal.

Used by the presets (`sources.provider_mapping`, `sources.picks`, `sources.objectstore`), for the names of mapped events
(`sources.mapping`) and for signed times (`sources.hmac_signatures`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from whenthen.schemas.base import CONTROL
from whenthen.schemas.events import EventLimits

__all__ = ["Labels", "dig", "label_of", "legal_name", "name_part"]

_MAX_CHARS = EventLimits().label_chars
_MAX_PART = 100  #: characters of a part that a sender chooses freely
_NOT_WORD = re.compile(r"[^\w.-]+")


def label_of(value: Any) -> str | None:
    """A label's text, or None for what is no single value. Control characters are percent-encoded, long text is cut."""
    if isinstance(value, str):
        if not value:
            return None
        if len(value) <= _MAX_CHARS and value.isprintable():
            return value  # as nearly all are, with nothing to encode or cut
        return CONTROL.sub(lambda match: quote(match[0]), value)[:_MAX_CHARS]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else None


def name_part(text: str) -> str:
    """What a sender's free text adds to the name of an event: letters of any script, digits, `_`, `-` and dots.

    Everything else becomes `-`, without any at the beginning or end of a word; what is longer than 100 characters is cut.
    The result may be empty.
    """
    words = _NOT_WORD.sub("-", unicodedata.normalize("NFC", text[: 4 * _MAX_PART])).split(".")
    kept = ".".join(word for word in (word.strip("-") for word in words) if word)
    return kept[:_MAX_PART].rstrip(".-")


def legal_name(text: str, limit: int) -> str:
    """`text` as the name of an event: each control character inside of it becomes `-`, and what has more than `limit` characters
    is cut."""
    return CONTROL.sub("-", text.strip())[:limit]


class Labels:
    """One resource under construction."""

    __slots__ = ("_labels",)

    def __init__(self, id: str, *, role: str | None = None) -> None:
        self._labels = {"id": label_of(id) or id}
        if role is not None:
            self._labels["role"] = role

    def put(self, label: str, value: Any) -> None:
        """Set a label when `value` is text, a number or a boolean; otherwise leave it out."""
        text = label_of(value)
        if text is not None:
            self._labels[label] = text

    def done(self) -> dict[str, str]:
        return self._labels


def dig(document: Any, path: str) -> Any:
    """The value at a dotted path of keys, or None."""
    for key in path.split("."):
        if not isinstance(document, Mapping):
            return None
        document = document.get(key)
    return document
