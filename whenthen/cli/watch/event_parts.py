"""Server-sent events out of the bytes that come (https://html.spec.whatwg.org/multipage/server-sent-events.html). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from whenthen.schemas.errors import WhenthenError

__all__ = ["EventPart", "TooLong", "event_parts"]

MOST_BYTES = 64 << 20  #: of one part


class TooLong(WhenthenError):
    """What comes is no part of a stream of ours."""

    reason = "not_whenthen"


class EventPart(NamedTuple):
    """One part of a stream."""

    name: str  #: of the event; empty for none, which has an id alone
    id: str | None
    data: bytes


def event_parts(chunks: Iterable[bytes]) -> Iterator[EventPart]:
    """The parts, each as soon as it is whole. A last one without its end is left out.

    Raises:
        TooLong: a part of more than `MOST_BYTES`.
    """
    buffered = bytearray()
    for chunk in chunks:
        looked = max(0, len(buffered) - 1)
        buffered += chunk
        while (end := buffered.find(b"\n\n", looked)) >= 0:
            yield _part(bytes(buffered[:end]))
            del buffered[: end + 2]
            looked = 0
        if len(buffered) > MOST_BYTES:
            raise TooLong(
                f"a part of the stream has more than {MOST_BYTES} bytes; is another program behind the address?"
            )


def _part(block: bytes) -> EventPart:
    name, last_id, data = "", None, []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"id":
            last_id = value.decode("utf-8", "replace")
        elif field == b"data":
            data.append(value)
    return EventPart(name if data else "", last_id, b"\n".join(data))
