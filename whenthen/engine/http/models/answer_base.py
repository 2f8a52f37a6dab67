"""What answers have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["AnswerModel", "Labels", "Trace"]

Labels = dict[str, str]


class AnswerModel(BaseModel):
    """The base of all answers. Read-only; docstrings below fields are the descriptions in the document."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Trace(AnswerModel):
    """A trace (W3C Trace Context)."""

    id: str
    """32 hexadecimal digits."""
    parent: str
    """16 hexadecimal digits."""
    flags: str
    state: str | None = None
    """The `tracestate`."""
