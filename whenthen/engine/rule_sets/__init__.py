"""Which rules are in force, for all processes? Sets of rules as numbered revisions in NATS, published by compare-and-set."""

from __future__ import annotations

from whenthen.engine.rule_sets.revision_records import (
    MarkerRecord,
    Revision,
    RevisionDamaged,
    RevisionHow,
    RevisionNotUnderstood,
    RevisionUnusable,
    who_publishes,
)
from whenthen.engine.rule_sets.revision_store import (
    REVISIONS_KEPT,
    RevisionStore,
    RevisionTaken,
    RulesFull,
)

__all__ = [
    "REVISIONS_KEPT",
    "MarkerRecord",
    "Revision",
    "RevisionDamaged",
    "RevisionHow",
    "RevisionNotUnderstood",
    "RevisionStore",
    "RevisionTaken",
    "RevisionUnusable",
    "RulesFull",
    "who_publishes",
]
