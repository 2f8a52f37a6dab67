"""An event that a shard passes over because it hung processes: as a record, a message in `EVENTS`, and an event for rules. Pure.

The message tells whoever reads the stream later, such as a replay; the shard itself goes by the record in `ENGINE`, which is
committed under its fence (`shard_skips`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson

from whenthen.schemas.base import known_fields
from whenthen.schemas.events import Event, new_event

__all__ = ["EVENT_SET_ASIDE", "Skip", "event_set_aside", "skip_subject"]

EVENT_SET_ASIDE = "automation.event.set-aside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """One position of the event log that one of `shards` shards passes over."""

    shard: int
    shards: int
    position: int
    event: str | None  #: the id; None of a tick, or of an event that is no longer kept
    automation: str | None  #: at which it hung; None when that is not known
    reason: str  #: `hung` or `crashed`
    tries: int
    process: str  #: the last that hung on it
    at: str  #: RFC 3339

    @property
    def message_id(self) -> str:
        """The same for one position of a shard, so that a repeated publish is the same message."""
        return f"skip-{self.shard}-{self.position}"

    def encode(self) -> bytes:
        """The message in `EVENTS`; also a line that `whenthen replay` understands."""
        return orjson.dumps({"skip": asdict(self)})

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Skip:
        """What `asdict` made; fields of a later version are left out. Raises `TypeError` where one is missing."""
        return cls(**known_fields(cls, fields))


def skip_subject(shard: int) -> str:
    """Where the skips of a shard are, in `EVENTS`."""
    return f"skips.{shard}"


def event_set_aside(skip: Skip, *, now: datetime) -> Event:
    """Says that an event was passed over. One id for a position of a shard, so that a repeated publish is the same event."""
    return new_event(
        EVENT_SET_ASIDE,
        id=f"event-aside-{skip.shard}-{skip.position}",
        resource={"id": f"whenthen.event.{skip.event or skip.position}", "name": skip.event or str(skip.position)},
        payload=asdict(skip),
        source="whenthen",
        now=now,
    )
