"""Pages of decisions: every row once, also where one moment has several."""

from __future__ import annotations

import pytest

from whenthen.engine.http import Page
from whenthen.engine.process.queries.decision_items import decision_page
from whenthen.schemas.decision_records import DecisionRow
from whenthen.schemas.errors import InvalidInput


def row(at_us: int, seq: int, key: str) -> DecisionRow:
    return DecisionRow(
        automation="a",
        path="",
        reason="fired",
        seq=seq,
        event=None,
        at_us=at_us,
        key=key,
        detail="",
        firing=None,
        rules=1,
    )


#: newest first; a moment without an event has position 0
ROWS = [row(30, 9, "a"), row(30, 9, "b"), row(30, 9, "c"), row(30, 0, "d"), row(30, 0, "e"), row(20, 4, "f")]


@pytest.mark.parametrize("limit", range(1, 8))
def test_pages_have_every_row_once_and_in_order(limit: int) -> None:
    found, following = decision_page(ROWS, Page(limit=limit))
    while following is not None:
        assert len(found) % limit == 0
        rows, following = decision_page(ROWS, Page(limit=limit, before=following))
        found += rows
    assert found == ROWS


def test_rows_that_come_meanwhile_and_rows_that_go_leave_the_next_page_where_it_was() -> None:
    _, following = decision_page(ROWS, Page(limit=4))
    later = [row(40, 11, "new"), *ROWS[3:]]
    assert decision_page(later, Page(limit=9, before=following)) == (ROWS[4:], None)


@pytest.mark.parametrize("before", ["", "x", "7", "1/2", "1/2/x", "1/2/3/4", "-1/2/3"])
def test_what_is_no_place_is_refused(before: str) -> None:
    with pytest.raises(InvalidInput, match="is no place in the list of decisions") as refused:
        decision_page(ROWS, Page(before=before))
    assert refused.value.path == ("before",)
