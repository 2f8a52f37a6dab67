"""Decisions as the API gives them, whether they are on record or were computed now."""

from __future__ import annotations

from collections.abc import Iterable

from whenthen.engine.http import Page
from whenthen.engine.http import answer_models as answers
from whenthen.schemas.decision_records import DecisionRow
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.firings import Decision
from whenthen.schemas.times import format_us

__all__ = ["decision_item", "decision_page", "row_of_decision"]


def decision_page(newest: Iterable[DecisionRow], page: Page) -> tuple[list[DecisionRow], str | None]:
    """The part of rows, the newest first, that a page has; and the `before` of the page that follows, None without one.

    A row's place is its moment, its position, and the how many-th of both it is: one event, or one moment, may have several.

    Raises:
        InvalidInput: `page.before` is no place.
    """
    before = None if page.before is None else _place(page.before)
    found: list[DecisionRow] = []
    place = (0, 0, 0)
    for row in newest:
        last, nth = place, place[2] + 1 if place[:2] == (row.at_us, row.seq) else 1
        place = (row.at_us, row.seq, nth)
        if before is not None and (*place[:2], -nth) >= (*before[:2], -before[2]):
            continue
        if len(found) == page.limit:
            return found, "/".join(map(str, last))
        found.append(row)
    return found, None


def _place(text: str) -> tuple[int, int, int]:
    """The place of the last row of the page before."""
    parts = text.split("/")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise InvalidInput(f"{text[:80]!r} is no place in the list of decisions; follow its `Link`", path=("before",))
    at_us, seq, nth = map(int, parts)
    return at_us, seq, nth


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
