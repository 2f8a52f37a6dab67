"""A history of a million events from one of a few: every row is copied within the database."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from whenthen.history import Database

__all__ = ["multiply"]

#: what a copy has instead of a column; columns that are not named are copied. `copies.copy` is its number
_FIRING_DOC: Final = "replace(doc, firing, firing || '-' || copies.copy)"
_COPIES: Final = {
    "events": {
        "id": "id || '-' || copies.copy",
        "doc": """replace(doc, '"' || id || '"', '"' || id || '-' || copies.copy || '"')""",
    },
    "event_marks": {},
    "decisions": {
        "event": "event || '-' || copies.copy",
        "firing": "CASE firing WHEN '' THEN '' ELSE firing || '-' || copies.copy END",
    },
    "firings": {
        "id": "id || '-' || copies.copy",
        "event": "event || '-' || copies.copy",
        "doc": """replace(replace(doc, '"' || id || '"', '"' || id || '-' || copies.copy || '"'), '"' || event || '"',
                          '"' || event || '-' || copies.copy || '"')""",
    },
    "actions": {
        "id": "replace(id, firing, firing || '-' || copies.copy)",
        "firing": "firing || '-' || copies.copy",
        "doc": _FIRING_DOC,
    },
}


def multiply(database: Database, times: int) -> None:
    """Have each event, decision, firing and action `times` times, one copy after the other at the place and time of the first, so that what is
    ordered by place stays ordered by time; tallies count them all."""
    if times == 1:
        return
    with database.writing() as connection:
        connection.execute(sa.text("PRAGMA cache_size = -500000"))
        for name, fields in _COPIES.items():
            table = sa.Table(name, sa.MetaData(), autoload_with=connection)
            indices = connection.execute(
                sa.text(
                    "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = :name AND sql IS NOT NULL"
                ),
                {"name": name},
            ).all()
            for index, _ in indices:  # made again at the end, which is sooner than to keep them up to date
                connection.execute(sa.text(f'DROP INDEX "{index}"'))
            first, last = connection.execute(sa.text(f"SELECT min(pos), max(pos) FROM {name}")).one()
            columns = [f'"{column.name}"' for column in table.columns]
            # behind all that are there, which then go: no copy stands where another row still is
            place = "(pos - :first) * :times + copies.copy + :last + 1"
            values = [place if column == '"pos"' else fields.get(column.strip('"'), column) for column in columns]
            connection.execute(
                sa.text(
                    f"WITH RECURSIVE copies(copy) AS (SELECT 0 UNION ALL SELECT copy + 1 FROM copies WHERE copy + 1 < :times) "
                    f"INSERT INTO {name} ({', '.join(columns)}) "
                    f"SELECT {', '.join(values)} FROM (SELECT * FROM {name} WHERE pos <= :last) CROSS JOIN copies"
                ),
                {"first": first, "last": last, "times": times},
            )
            connection.execute(sa.text(f"DELETE FROM {name} WHERE pos <= :last"), {"last": last})
            for _, statement in indices:
                connection.execute(sa.text(statement))
        connection.execute(sa.text("UPDATE tallies SET count = count * :times"), {"times": times})
