"""Parts of pages that the history may still fill are asked for again, and no others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from http_fakes import ANSWERS, RUN

from whenthen.engine.http.pages.late_rows import counts_may_follow, states_may_follow, tries_may_follow
from whenthen.schemas.times import format_time

ACTION = ANSWERS["get_action"]


def ago(**span: float) -> str:
    return format_time(datetime.now(UTC) - timedelta(**span))


def tried(*states: str) -> list[dict[str, Any]]:
    return [{"attempt": number, "state": state} for number, state in enumerate(states, 1)]


@pytest.mark.parametrize(
    ("outcome", "attempt", "next_at", "tries", "may_follow"),
    [
        ("waiting", 0, None, tried(), False),
        ("waiting", 0, None, None, True),
        ("retrying", 1, "2030-01-01T00:00:00Z", tried(), True),
        ("retrying", 1, "2030-01-01T00:00:00Z", tried("retrying"), False),
        ("retrying", 2, None, tried(), True),  # the second has begun
        ("retrying", 2, None, tried("retrying"), False),
        ("executed", 2, None, tried("retrying"), True),
        ("executed", 2, None, [{"attempt": 2, "state": "executed"}], True),
        ("executed", 2, None, tried("retrying", "executed"), False),
        ("dropped", 1, None, tried("dead"), True),
        ("dropped", 1, None, [*tried("dead"), {"attempt": 1, "state": "dropped"}], False),
    ],
)
def test_tries_follow_until_the_last_one_that_ended_is_there(
    outcome: str, attempt: int, next_at: str | None, tries: list[dict[str, Any]] | None, may_follow: bool
) -> None:
    action = ACTION.model_copy(
        update={"outcome": outcome, "attempt": attempt, "next_at": next_at, "at": ago(minutes=5)}
    )
    assert tries_may_follow(action, tries) is may_follow


def test_what_has_been_missing_for_long_is_not_waited_for() -> None:
    action = ACTION.model_copy(update={"outcome": "executed", "attempt": 1, "at": ago(days=2)})
    assert not tries_may_follow(action, [])
    assert not states_may_follow(RUN.model_copy(update={"changed": ago(days=2)}), [])


def test_states_follow_until_that_of_the_run_is_there() -> None:
    run = RUN.model_copy(update={"changed": ago(minutes=5)})
    entered = {"state": run.state.value, "changed": run.changed}
    assert states_may_follow(run, None)
    assert states_may_follow(run, [{**entered, "changed": ago(minutes=6)}])
    assert not states_may_follow(run, [entered])


def test_counts_may_follow_for_a_while() -> None:
    assert counts_may_follow(None, None)
    assert counts_may_follow([], ago(seconds=2))
    assert not counts_may_follow([], ago(minutes=5))
    assert not counts_may_follow([], None)
