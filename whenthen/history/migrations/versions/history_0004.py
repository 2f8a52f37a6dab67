"""Runs by their creation, which is how they are listed, instead of by their last change."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_AT_ONCE = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INDEXES = {
    "deployment": ["deployment"],
    "deployment_state": ["deployment", "state"],
    "state": ["state"],
    "work_pool": ["work_pool"],
}


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("runs", sa.Column("created_us", number, nullable=False, server_default="0"))
    connection = op.get_bind()
    some = sa.text("SELECT id, at_us, doc FROM runs WHERE id > :id ORDER BY id LIMIT :most")
    change = sa.text("UPDATE runs SET created_us = :created_us WHERE id = :id")
    last = ""
    while rows := connection.execute(some, {"id": last, "most": _AT_ONCE}).all():
        last = rows[-1].id
        connection.execute(change, [{"id": row.id, "created_us": _created_us(row.doc, row.at_us)} for row in rows])
    for name, columns in _INDEXES.items():
        op.drop_index(f"runs_by_{name}", "runs")
        op.create_index(f"runs_by_{name}", "runs", [*columns, "created_us", "id"], unique=False)
    op.create_index("runs_by_creation", "runs", ["created_us", "id"], unique=False)


def _created_us(doc: str, at_us: int) -> int:
    try:
        return (datetime.fromisoformat(json.loads(doc)["created"]) - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, KeyError, TypeError):
        return at_us
