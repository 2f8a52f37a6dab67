"""Why did a rule fire, or not, tomorrow and from any process? Decisions on record: written before a commit, true with it, and read.

Meaning: docs/architecture.md, "Decisions on record".
"""

from __future__ import annotations

from whenthen.engine.decisions.committed import CommittedBatches
from whenthen.engine.decisions.decision_log import DecisionLog, NatsDecisionLog
from whenthen.engine.decisions.decision_reader import DecisionReader, Recorded
from whenthen.engine.decisions.recorder import RECORDS, DecisionRecorder, Gathered, StoredDecisions

__all__ = [
    "RECORDS",
    "CommittedBatches",
    "DecisionLog",
    "DecisionReader",
    "DecisionRecorder",
    "Gathered",
    "NatsDecisionLog",
    "Recorded",
    "StoredDecisions",
]
