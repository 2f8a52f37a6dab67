"""The first tables. Never changed: a database that has them is brought up to date by later migrations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "actions",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("pos", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("at_us", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("automation", _TEXT, nullable=False),
        sa.Column("firing", _TEXT, nullable=False),
        sa.Column("type", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("attempt", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("doc", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("actions_by_automation", "actions", ["automation", "pos"], unique=False)
    op.create_index("actions_by_automation_state", "actions", ["automation", "state", "pos"], unique=False)
    op.create_index("actions_by_firing", "actions", ["firing", "pos"], unique=False)
    op.create_index("actions_by_pos", "actions", ["pos"], unique=True)
    op.create_index("actions_by_state", "actions", ["state", "pos"], unique=False)
    op.create_index("actions_by_type", "actions", ["type", "pos"], unique=False)
    op.create_table(
        "audit",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("pos", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("at_us", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("who", _TEXT, nullable=False),
        sa.Column("doc", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("audit_by_kind", "audit", ["kind", "pos"], unique=False)
    op.create_index("audit_by_pos", "audit", ["pos"], unique=True)
    op.create_index("audit_by_who", "audit", ["who", "pos"], unique=False)
    op.create_table(
        "cursors",
        sa.Column("stream", _TEXT, nullable=False),
        sa.Column("shard", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("identity", _TEXT, nullable=False),
        sa.Column("incarnation", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("taken", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("clock_us", _NUMBER, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("stream", "shard"),
    )
    op.create_table(
        "decisions",
        sa.Column("pos", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("row", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("at_us", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("shard", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("automation", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("event", _TEXT, nullable=False),
        sa.Column("firing", _TEXT, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("path", _TEXT, nullable=False),
        sa.Column("detail", _TEXT, nullable=False),
        sa.Column("seq", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("decided_us", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("rules", _NUMBER, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("pos", "row"),
        sqlite_with_rowid=False,
    )
    op.create_index("decisions_by_automation", "decisions", ["automation", "pos", "row"], unique=False)
    op.create_index("decisions_by_automation_reason", "decisions", ["automation", "reason", "pos", "row"], unique=False)
    op.create_index("decisions_by_event", "decisions", ["event", "pos", "row"], unique=False)
    op.create_index(
        "decisions_by_firing",
        "decisions",
        ["firing", "pos", "row"],
        unique=False,
        sqlite_where=sa.text("firing <> ''"),
        postgresql_where=sa.text("firing <> ''"),
    )
    op.create_index("decisions_by_reason", "decisions", ["reason", "pos", "row"], unique=False)
    op.create_table(
        "event_marks",
        sa.Column("mark", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("pos", _NUMBER, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("mark", "pos"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "event_names",
        sa.Column("name", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "events",
        sa.Column("pos", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("at_us", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("doc", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("pos"),
    )
    op.create_index("events_by_id", "events", ["id"], unique=False)
    op.create_index("events_by_name", "events", ["name", "pos"], unique=False)
    op.create_table(
        "firings",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("pos", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("at_us", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("automation", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("event", _TEXT, nullable=False),
        sa.Column("doc", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("firings_by_automation", "firings", ["automation", "pos"], unique=False)
    op.create_index("firings_by_automation_state", "firings", ["automation", "state", "pos"], unique=False)
    op.create_index("firings_by_event", "firings", ["event", "pos"], unique=False)
    op.create_index("firings_by_key", "firings", ["key", "pos"], unique=False)
    op.create_index("firings_by_pos", "firings", ["pos"], unique=True)
    op.create_index("firings_by_state", "firings", ["state", "pos"], unique=False)
    op.create_table(
        "run_states",
        sa.Column("run", _TEXT, nullable=False),
        sa.Column("changed", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("attempt", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("pos", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("at_us", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("message", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("run", "changed", "state", "attempt"),
    )
    op.create_index("run_states_by_pos", "run_states", ["pos"], unique=False)
    op.create_table(
        "runs",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("pos", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("at_us", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("deployment", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("work_pool", _TEXT, nullable=False),
        sa.Column("doc", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("runs_by_deployment", "runs", ["deployment", "pos"], unique=False)
    op.create_index("runs_by_deployment_state", "runs", ["deployment", "state", "pos"], unique=False)
    op.create_index("runs_by_pos", "runs", ["pos"], unique=True)
    op.create_index("runs_by_state", "runs", ["state", "pos"], unique=False)
    op.create_index("runs_by_work_pool", "runs", ["work_pool", "pos"], unique=False)
    op.create_table(
        "tallies",
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("level", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("first", _TEXT, nullable=False),
        sa.Column("second", _TEXT, nullable=False),
        sa.Column("hour", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("count", _NUMBER, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("kind", "level", "first", "second", "hour"),
        sqlite_with_rowid=False,
    )
    op.create_index("tallies_by_hour", "tallies", ["kind", "level", "hour"], unique=False)
    op.create_table(
        "tries",
        sa.Column("action", _TEXT, nullable=False),
        sa.Column("attempt", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("at", _TEXT, nullable=False),
        sa.Column("pos", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("at_us", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("error", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("action", "attempt", "at"),
    )
    op.create_index("tries_by_pos", "tries", ["pos"], unique=False)
