"""The tables of the history. Meaning: docs/history.md, "Tables and natural keys".

The migrations make them (`history/migrations`); a test holds the two together.
"""

from __future__ import annotations

import sqlalchemy as sa

__all__ = [
    "DAY_HOURS",
    "DAY_LEVELS",
    "actions",
    "age_order",
    "audit",
    "cursors",
    "decisions",
    "event_marks",
    "event_names",
    "events",
    "firings",
    "metadata",
    "run_states",
    "runs",
    "tallies",
    "tries",
]

DAY_HOURS = 24
DAY_LEVELS = 4  #: added to the level of a tally: the same for a day, at its first hour

metadata = sa.MetaData()


def age_order(table: sa.Table) -> sa.Column[int]:
    """By what the oldest rows of a table come first: their place, or the time where they are of two streams."""
    column: sa.Column[int] = table.c.pos if "pos" in table.c else table.c.at_us
    return column


def _text(name: str, *, primary_key: bool = False) -> sa.Column[str]:
    """Compared by code points, as Python does, so that prefixes are ranges."""
    kind = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(name, kind, nullable=False, primary_key=primary_key)


def _number(name: str, *, primary_key: bool = False) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, nullable=False, primary_key=primary_key, autoincrement=False)


cursors = sa.Table(
    "cursors",
    metadata,
    _text("stream", primary_key=True),
    _number("shard", primary_key=True),
    _text("identity"),
    _number("incarnation"),
    _number("taken"),
    _number("clock_us"),
)

events = sa.Table(
    "events",
    metadata,
    _number("pos", primary_key=True),
    _number("at_us"),
    _text("id"),
    _text("name"),
    _text("doc"),
    sa.Index("events_by_id", "id"),
    sa.Index("events_by_name", "name", "pos"),
)

event_marks = sa.Table(
    "event_marks",
    metadata,
    _number("mark", primary_key=True),
    _number("pos", primary_key=True),
    sqlite_with_rowid=False,
)

event_names = sa.Table("event_names", metadata, _text("name", primary_key=True), sqlite_with_rowid=False)

decisions = sa.Table(
    "decisions",
    metadata,
    _number("pos", primary_key=True),
    _number("row", primary_key=True),
    _number("at_us"),
    _number("shard"),
    _text("automation"),
    _text("reason"),
    _text("event"),
    _text("firing"),
    _text("key"),
    _text("path"),
    _text("detail"),
    _number("seq"),
    _number("decided_us"),
    _number("rules"),
    sa.Index("decisions_by_automation", "automation", "pos", "row"),
    sa.Index("decisions_by_automation_reason", "automation", "reason", "pos", "row"),
    sa.Index("decisions_by_reason", "reason", "pos", "row"),
    sa.Index("decisions_by_event", "event", "pos", "row"),
    sa.Index(
        "decisions_by_firing",
        "firing",
        "pos",
        "row",
        sqlite_where=sa.text("firing <> ''"),
        postgresql_where=sa.text("firing <> ''"),
    ),
    sqlite_with_rowid=False,
)

firings = sa.Table(
    "firings",
    metadata,
    _text("id", primary_key=True),
    _number("pos"),
    _number("at_us"),
    _text("automation"),
    _text("state"),
    _text("key"),
    _text("event"),
    _text("doc"),
    sa.Index("firings_by_pos", "pos", unique=True),
    sa.Index("firings_by_automation", "automation", "pos"),
    sa.Index("firings_by_automation_state", "automation", "state", "pos"),
    sa.Index("firings_by_state", "state", "pos"),
    sa.Index("firings_by_event", "event", "pos"),
    sa.Index("firings_by_key", "key", "pos"),
)

actions = sa.Table(
    "actions",
    metadata,
    _text("id", primary_key=True),
    _number("pos"),
    _number("at_us"),
    _text("automation"),
    _text("firing"),
    _text("type"),
    _text("state"),
    _number("attempt"),
    _text("doc"),
    sa.Index("actions_by_pos", "pos", unique=True),
    sa.Index("actions_by_automation", "automation", "pos"),
    sa.Index("actions_by_automation_state", "automation", "state", "pos"),
    sa.Index("actions_by_state", "state", "pos"),
    sa.Index("actions_by_firing", "firing", "pos"),
    sa.Index("actions_by_type", "type", "pos"),
)

tries = sa.Table(
    "tries",
    metadata,
    _text("action", primary_key=True),
    _number("attempt", primary_key=True),
    _text("state", primary_key=True),
    _number(
        "told"
    ),  #: 1: an event in `EVENTS` told of it, which is kept when the outcome is not; 0: its outcome in `ENGINE` alone
    _text("at"),
    _number("at_us"),
    _text("error"),
    _text("sent"),  #: what was sent and what came back, as JSON; empty without
    sa.Index("tries_by_time", "at_us"),
)

runs = sa.Table(
    "runs",
    metadata,
    _text("id", primary_key=True),
    _number("pos"),
    _number("at_us"),
    _text("deployment"),
    _text("state"),
    _text("work_pool"),
    _text("doc"),
    _number("created_us"),
    sa.Index("runs_by_pos", "pos", unique=True),
    sa.Index("runs_by_creation", "created_us", "id"),
    sa.Index("runs_by_deployment", "deployment", "created_us", "id"),
    sa.Index("runs_by_deployment_state", "deployment", "state", "created_us", "id"),
    sa.Index("runs_by_state", "state", "created_us", "id"),
    sa.Index("runs_by_work_pool", "work_pool", "created_us", "id"),
)

run_states = sa.Table(
    "run_states",
    metadata,
    _text("run", primary_key=True),
    _text("changed", primary_key=True),
    _text("state", primary_key=True),
    _number("attempt", primary_key=True),
    _number("pos"),
    _number("at_us"),
    _text("message"),
    sa.Index("run_states_by_pos", "pos"),
)

audit = sa.Table(
    "audit",
    metadata,
    _text("id", primary_key=True),
    _number("pos"),
    _number("at_us"),
    _text("kind"),
    _text("who"),
    _text("doc"),
    sa.Index("audit_by_pos", "pos", unique=True),
    sa.Index("audit_by_kind", "kind", "pos"),
    sa.Index("audit_by_who", "who", "pos"),
)

tallies = sa.Table(
    "tallies",
    metadata,
    _text("kind", primary_key=True),
    _number(
        "level", primary_key=True
    ),  #: 0 in all, 1 by the first field, 2 by the second, 3 by both; more: `DAY_LEVELS`
    _text("first", primary_key=True),
    _text("second", primary_key=True),
    _number("hour", primary_key=True),  #: since 1970
    _number("count"),
    sa.Index("tallies_by_hour", "kind", "level", "hour"),
    sqlite_with_rowid=False,
)
