"""Tries by what they are, an action's try and how it ended, instead of when that was said: outcomes and events tell of the same ones.

Those that outcomes no longer tell of are taken from the events that are stored already. Tallies stay as they were counted.
"""

from __future__ import annotations

import json
import re

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_CHARS = 512
_AT_ONCE = 1000
_ID = re.compile(r"([0-9a-f]{32}\.[0-9]+)\.failed\.([0-9]{1,18})")


def upgrade() -> None:
    op.create_table(
        "tries_new",
        sa.Column("action", _TEXT, nullable=False),
        sa.Column("attempt", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("told", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("at", _TEXT, nullable=False),
        sa.Column("at_us", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("error", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("action", "attempt", "state"),
    )
    op.execute(
        "INSERT INTO tries_new (action, attempt, state, told, at, at_us, error) "
        "SELECT action, attempt, state, 0, at, at_us, error FROM (SELECT action, attempt, state, at, at_us, error, "
        "row_number() OVER (PARTITION BY action, attempt, state ORDER BY pos DESC) AS nth FROM tries) AS numbered WHERE nth = 1"
    )
    op.drop_table("tries")
    _take_events()
    # what is left of a dead letter that was sent again, and of a try that had begun: neither was the end of one
    op.execute(
        "DELETE FROM tries_new WHERE state = 'retrying' AND told = 0 AND EXISTS (SELECT 1 FROM tries_new AS other WHERE "
        "other.action = tries_new.action AND other.attempt = tries_new.attempt AND other.state <> 'retrying')"
    )
    op.rename_table("tries_new", "tries")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE tries RENAME CONSTRAINT tries_new_pkey TO tries_pkey")
    op.create_index("tries_by_time", "tries", ["at_us"], unique=False)


def _take_events() -> None:
    connection = op.get_bind()
    some = sa.text(
        "SELECT pos, at_us, id, doc FROM events WHERE name = 'automation.action.failed' AND pos > :pos ORDER BY pos LIMIT :most"
    )
    add = sa.text(
        "INSERT INTO tries_new (action, attempt, state, told, at, at_us, error) "
        "VALUES (:action, :attempt, :state, 1, :at, :at_us, :error) ON CONFLICT (action, attempt, state) DO UPDATE SET "
        "told = 1, at = excluded.at, at_us = excluded.at_us, error = excluded.error"
    )
    pos = 0
    while rows := connection.execute(some, {"pos": pos, "most": _AT_ONCE}).all():
        pos = rows[-1].pos
        found = [tried for row in rows if (tried := _tried(row.id, row.at_us, json.loads(row.doc))) is not None]
        if found:
            connection.execute(add, found)


def _tried(event_id: str, at_us: int, event: dict[str, object]) -> dict[str, object] | None:
    found, payload = _ID.fullmatch(event_id), event.get("payload")
    if found is None or not isinstance(payload, dict):
        return None
    message = str(payload.get("message") or "").replace("\0", "�")
    return {
        "action": found[1],
        "attempt": int(found[2]),
        "state": "dead" if payload.get("final") else "retrying",
        "at": str(event.get("occurred"))[:_CHARS],
        "at_us": at_us,
        "error": message if len(message) <= _CHARS else f"{message[:_CHARS]}…",
    }
