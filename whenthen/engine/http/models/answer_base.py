"""What answers have in common."""

from __future__ import annotations

from pydantic import ConfigDict

from whenthen.schemas.base import DocumentedModel

__all__ = ["AnswerModel", "Labels", "Trace"]

Labels = dict[str, str]


class AnswerModel(DocumentedModel):
    """The base of all answers. Read-only; docstrings below fields are the descriptions in the document."""

    # made when the first answer of its kind is: a process starts without
    model_config = ConfigDict(frozen=True, defer_build=True)


class Trace(AnswerModel):
    """A trace (W3C Trace Context)."""

    id: str
    """32 hexadecimal digits."""
    parent: str
    """16 hexadecimal digits."""
    flags: str
    state: str | None = None
    """The `tracestate`."""
