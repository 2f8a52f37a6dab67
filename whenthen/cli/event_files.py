"""Files of events as other commands print them: what `events --json` lists is read by `replay --events` and `emit --file`.

A listing is one JSON list, the newest event first, with what the server added to each: `seq`, `received`, `source`, `lineage`, `trace`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

__all__ = ["in_order", "lines_of", "without_own"]

_ADDED = ("seq", "received", "source", "lineage", "trace")
#: of events that the server makes itself, out of the others
_OWN = frozenset({"whenthen", "flow-runs"})


def lines_of(file: IO[bytes]) -> Iterator[bytes]:
    """The events in a file, one a line, the oldest first. A list is read whole; anything else line by line, as it is.

    Raises:
        InvalidInput: it begins like a list and is none.
    """
    import orjson

    from whenthen.schemas.errors import InvalidInput

    file.seek(0)
    while (first := file.read(1)).isspace():
        pass
    file.seek(0)
    if first != b"[":
        return iter(file)
    try:
        items = orjson.loads(file.read())
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"not JSON: {error}; a file of events is a list, or one event a line") from None
    return iter([orjson.dumps(item) for item in in_order(items)])


def in_order(events: list[Any]) -> list[Any]:
    """Listed events from the oldest on; others as they are."""
    if all(isinstance(event, dict) and isinstance(event.get("seq"), int) for event in events):
        return sorted(events, key=lambda event: int(event["seq"]))
    return events


def without_own(events: list[Any]) -> tuple[list[Any], int]:
    """Events as they may be sent again: of listed ones without what the server added, and without those that it made itself, which
    it makes again. Gives how many these are."""
    kept: list[Any] = []
    left_out = 0
    for event in in_order(events):
        if not isinstance(event, dict) or "seq" not in event or "received" not in event:
            kept.append(event)
        elif event.get("source") in _OWN or event.get("lineage"):
            left_out += 1
        else:
            kept.append({name: value for name, value in event.items() if name not in _ADDED and value is not None})
    return kept, left_out
