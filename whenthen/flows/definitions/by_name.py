"""Flows and tasks as arguments and results: pickled by the name under which their module has them, as functions are."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["ByName"]


class ByName:
    """Pickled as the name of a module's attribute; copied attribute by attribute."""

    __module__: str
    __qualname__: str

    def __reduce__(self) -> str | tuple[Any, ...]:
        found: Any = sys.modules.get(self.__module__)
        for part in self.__qualname__.split("."):
            found = getattr(found, part, None)
        if found is not self:
            raise TypeError(
                f"{self!r} can not be pickled: {self.__module__} has it not under the name {self.__qualname__!r}; define it at the top of a "
                "module, or pass what it needs instead of itself"
            )
        return str(self.__qualname__)

    def __copy__(self) -> Any:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new
