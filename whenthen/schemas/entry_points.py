"""The function that an entry point names: `path/to/file.py:function`, or `package.module:function`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MODULE", "EntryPoint", "entry_point"]

MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")  #: the name of one, with its packages


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPoint:
    """A function, and the file or the module that it is in; one of the two is None."""

    file: str | None
    module: str | None
    function: str  #: also `Class.method`

    @property
    def where(self) -> str:
        """The file or the module."""
        return self.file or self.module or ""


def entry_point(text: str) -> EntryPoint:
    """What `text` names.

    Raises:
        ValueError: it names no function of a file or module.
    """
    where, _, function = text.rpartition(":")
    if not where or not MODULE.fullmatch(function):
        raise ValueError(f"{text[:200]!r} is not path/to/file.py:function, nor package.module:function")
    if not where.endswith(".py") and MODULE.fullmatch(where):
        return EntryPoint(file=None, module=where, function=function)
    return EntryPoint(file=where, module=None, function=function)
