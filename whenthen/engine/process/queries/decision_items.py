"""Decisions as the API gives them, whether they are on record or were computed now."""

from __future__ import annotations

from whenthen.engine.http import answer_models as answers
from whenthen.schemas.decision_records import DecisionRow
from whenthen.schemas.firings import Decision
from whenthen.schemas.times import format_us

__all__ = ["decision_item", "row_of_decision"]


def decision_item(row: DecisionRow, *, detail: str = "") -> answers.DecisionItem:
    """A row for people; `detail` in place of its own."""
    return answers.DecisionItem(
        at=format_us(row.at_us),
        reason=row.reason,
        event=row.event,
        path=row.path,
        key=row.key,
        detail=detail or row.detail,
        firing=row.firing,
        seq=row.seq,
        rules=row.rules,
    )


def row_of_decision(decision: Decision, *, rules: int) -> DecisionRow:
    """A decision that was computed, as a row."""
    return DecisionRow(
        automation=decision.automation,
        path=decision.path,
        reason=decision.reason.value,
        seq=decision.seq,
        event=decision.event,
        at_us=decision.at_us,
        key=decision.key,
        detail=decision.detail,
        firing=decision.firing,
        rules=rules,
    )
