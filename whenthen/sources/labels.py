"""Builds labels from a payload: absent values are left out, and every text is a legal label.

Used by the presets (`sources.github`, `sources.objectstore`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from whenthen.schemas import CONTROL, EventLimits

__all__ = ["Labels", "dig", "label_of"]

_MAX_CHARS = EventLimits().label_chars


def label_of(value: Any) -> str | None:
    """A label's text, or None for what is no single value. Control characters are percent-encoded, long text is cut."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if not isinstance(value, str) or not value:
        return None
    return CONTROL.sub(lambda match: quote(match[0]), value)[:_MAX_CHARS]


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
