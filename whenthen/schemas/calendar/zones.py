"""Time zones by name, and local times in them."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from whenthen.schemas.errors import near_names

__all__ = ["local_time", "zone_of"]


def zone_of(name: str) -> ZoneInfo:
    """The zone of an IANA name.

    Raises:
        ValueError: there is none; names the nearest.
    """
    zone = _known_zone(name)
    if zone is None:
        near = near_names(name, available_timezones(), cutoff=0.7)
        hint = f"; did you mean {near[0]!r}?" if near else ", such as Europe/Berlin or UTC"
        raise ValueError(f"{name!r} is not a known IANA time zone{hint}")
    return zone


@lru_cache(maxsize=1024)
def _known_zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return None


def local_time(moment: datetime, zone: ZoneInfo) -> datetime:
    """The local time, without a zone, of a moment; one that has no zone is local already."""
    return moment if moment.tzinfo is None else moment.astimezone(zone).replace(tzinfo=None)
