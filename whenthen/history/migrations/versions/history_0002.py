"""Tallies by day beside those by hour: made of these."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute(
        "INSERT INTO tallies (kind, level, first, second, hour, count) "
        "SELECT kind, level + 4, first, second, hour / 24 * 24, sum(count) FROM tallies WHERE level < 4 "
        "GROUP BY kind, level, first, second, hour / 24"
    )
