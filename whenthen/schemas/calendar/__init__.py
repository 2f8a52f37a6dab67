"""When does a schedule come next? Cron, intervals and RRULEs in a time zone, across changes of the clocks."""

from __future__ import annotations

from whenthen.schemas.calendar.timetable import (
    Timetable,
    check_timetable,
    next_after,
    occurrences,
)

__all__ = ["Timetable", "check_timetable", "next_after", "occurrences"]
