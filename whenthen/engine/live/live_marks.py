"""How far a client was shown the streams, and the id that says so. Pure.

An id names positions of streams and nothing of this process, so any process goes on where another one stopped:
`t1764262393.e3f2a91bc-1042.d5b0c1d2e-12+3-9` means that at that second (`t`) everything was shown up to position 1042 of `EVENTS`
(`e`), and of `DECISIONS` (`d`) the batch at 12 of shard 0 and three rows of its next one, and that at 9 of shard 1. The eight digits
tell a stream from one that was made again with the same name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from whenthen.schemas.errors import InvalidInput

__all__ = ["LAST_EVENT_ID", "Mark", "Place", "Shown", "decode_id", "encode_id", "short_identity"]

LAST_EVENT_ID = "Last-Event-ID"  #: the header, and what its errors name
MOST_ID_CHARS = 16_384  #: 256 shards take less than half of it
_ID = re.compile(r"t(\d{1,12})((?:\.[a-z][0-9a-f]{8}(?:-\d{1,19}(?:\+\d{1,9})?)+)*)", re.ASCII)
_END = 1 << 63


class Place(NamedTuple):
    """A position of a stream, or of a shard in `DECISIONS`."""

    seq: int = 0  #: up to this one everything was shown
    rows: int = 0  #: and so many rows of the batch that follows


@dataclass(slots=True)
class Mark:
    """How far one stream was shown."""

    identity: str
    places: list[Place]  #: one; of `DECISIONS` one for each shard

    def copy(self) -> Mark:
        return Mark(self.identity, list(self.places))

    def advance(self, to: Mark) -> None:
        """Take over what is further in `to`, and all of it when that is another stream."""
        if to.identity != self.identity:
            self.identity, self.places = to.identity, list(to.places)
        else:
            self.places = [max(pair) for pair in zip(self.places, to.places, strict=True)]


class Shown(NamedTuple):
    """What an id says."""

    at_s: int  #: when it was true, in seconds since the epoch
    marks: dict[str, Mark]  #: by the stream's letter


def short_identity(created: str) -> str:
    """Tells streams of one name apart by when they were created."""
    return blake2b(created.encode(), digest_size=4).hexdigest()


def encode_id(at_s: int, marks: Mapping[str, Mark]) -> str:
    """The id of a moment."""
    parts = [f"t{at_s}"]
    for letter, mark in marks.items():
        places = "-".join(f"{place.seq}+{place.rows}" if place.rows else str(place.seq) for place in mark.places)
        parts.append(f"{letter}{mark.identity}-{places}")
    return ".".join(parts)


def decode_id(text: str, places: Mapping[str, int]) -> Shown:
    """What an id says. `places` is how many places the mark of each stream has.

    Raises:
        InvalidInput: it is none of ours.
    """
    found = _ID.fullmatch(text) if len(text) <= MOST_ID_CHARS else None
    if found is None:
        raise _no_id(text)
    marks: dict[str, Mark] = {}
    for part in filter(None, found[2].split(".")):
        letter, identity, numbers = part[0], part[1:9], part[10:].split("-")
        if letter in marks or places.get(letter) != len(numbers):
            raise _no_id(text)
        marks[letter] = Mark(identity, [_place(number) for number in numbers])
        if any(place.seq >= _END for place in marks[letter].places):
            raise _no_id(text)
    return Shown(int(found[1]), marks)


def _place(number: str) -> Place:
    seq, _, rows = number.partition("+")
    return Place(int(seq), int(rows or 0))


def _no_id(text: str) -> InvalidInput:
    return InvalidInput(
        f"{text[:80]!r} is no id of this stream; send one that it gave, or none to begin now", path=(LAST_EVENT_ID,)
    )
