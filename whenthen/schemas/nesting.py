"""How deep JSON values may be nested. The one limit of everything that becomes part of an event or a record.

JSON libraries refuse or crash at other depths: orjson writes 254 levels. A value that is accepted at a door gets a few levels
more around it on its way, so the limit of the doors is far below.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["MAX_DEPTH", "MAX_MADE_DEPTH", "is_deeper_than"]

MAX_DEPTH: Final = 100  #: levels of lists and objects of a value that comes from outside
MAX_MADE_DEPTH: Final = 200  #: of a value that a rule makes of such values: what it emits, and parameters of runs


def is_deeper_than(value: Any, limit: int) -> bool:
    """Whether lists and objects in `value` are nested more than `limit` deep. Takes one look at each of them, a shared one
    for each level that it is on."""
    level: list[Any] = [value] if isinstance(value, list | tuple | dict) else []
    depth = 0
    while level:
        depth += 1
        if depth > limit:
            return True
        below: dict[int, Any] = {}
        for item in level:
            for part in item.values() if isinstance(item, dict) else item:
                if isinstance(part, list | tuple | dict):
                    below[id(part)] = part
        level = list(below.values())
    return False
