"""Counts over time, as a query of the tallies that are kept as rows arrive. Called by `history_queries`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from whenthen.history import history_tables as tables
from whenthen.history.history_tables import DAY_HOURS
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.history_rows import HOUR_US

__all__ = ["MOST_POINTS", "tally_query"]

MOST_POINTS: Final = 20_000  #: of counts over time


def tally_query(
    kind: str,
    fields: tuple[str, ...],
    *,
    since_us: int,
    until_us: int,
    by: str | None,
    equal: Mapping[str, str],
    step_hours: int,
) -> sa.Select[Any]:
    """Rows of `start` (in hours), `value` where there is a `by`, and `total`, ascending; one more than `MOST_POINTS` where there are more.
    `fields` are those that the kind is counted by. See `HistoryReader.counts`.

    Raises:
        InvalidInput: a field is none of the kind's, or the time is none.
    """
    fixed = dict(equal)
    for name in (*fixed, *([by] if by else [])):
        if name not in fields:
            raise InvalidInput(f"{kind} are counted by {' and '.join(fields)}, not by {name[:40]!r}", path=("by",))
    if step_hours < 1 or until_us <= since_us:
        raise InvalidInput("counts need an hour or more a step, and an end after the beginning", path=("until",))
    table = tables.tallies
    asked = {*fixed, *([by] if by else [])}
    level = sum(1 << number for number, name in enumerate(fields) if name in asked)
    columns = dict(zip(fields, (table.c.first, table.c.second), strict=False))

    def part(level: int, first_hour: int, end_hour: int) -> sa.Select[Any]:
        # with the first field fixed the primary key leaves the fewest rows, and not the index by hour; the sum keeps SQLite from that one
        hour = table.c.hour + 0 if fields[0] in fixed and fixed.keys() != set(fields) else table.c.hour
        where = [
            table.c.kind == kind,
            table.c.level == level,
            hour >= first_hour,
            hour < end_hour,
            *(columns[name] == text for name, text in fixed.items()),
        ]
        if not asked:
            where += [table.c.first == "", table.c.second == ""]
        value = columns[by] if by else sa.literal_column("''")
        return sa.select(table.c.hour.label("hour"), value.label("value"), table.c.count.label("count")).where(*where)

    first_hour, end_hour = since_us // HOUR_US, -(-until_us // HOUR_US)
    first_day, end_day = -(-first_hour // DAY_HOURS) * DAY_HOURS, end_hour // DAY_HOURS * DAY_HOURS
    if step_hours % DAY_HOURS == 0 and first_day < end_day:
        parts = [
            part(level + tables.DAY_LEVELS, first_day, end_day),
            *([part(level, first_hour, first_day)] if first_hour < first_day else []),
            *([part(level, end_day, end_hour)] if end_day < end_hour else []),
        ]
    else:
        parts = [part(level, first_hour, end_hour)]
    rows = sa.union_all(*parts).subquery("counted")
    start: sa.ColumnElement[int] = sa.literal_column(
        f"(counted.hour / {int(step_hours)}) * {int(step_hours)}", sa.BigInteger()
    )
    groups = [sa.text("start"), *([sa.text("value")] if by else [])]
    values = [rows.c.value.label("value")] if by else []
    return (
        sa.select(start.label("start"), *values, sa.func.sum(rows.c.count).label("total"))
        .group_by(*groups)
        .order_by(*groups)
        .limit(MOST_POINTS + 1)
    )
