"""Retry schedules and outcome events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from whenthen.actions import (
    ActionResult,
    next_delay,
)
from whenthen.actions.outcome_events import executed_event, failed_event
from whenthen.actions.retries import MAX_HINT
from whenthen.actions.secrets import Redactor
from whenthen.schemas.actions import Retry
from whenthen.schemas.errors import ActionError
from whenthen.schemas.events import decode_event
from whenthen.schemas.firings import ActionTask

NewTask = Callable[..., ActionTask]
SECOND = timedelta(seconds=1)


def test_delays_double_up_to_the_maximum_and_end() -> None:
    retry = Retry(retries=5, delay=SECOND, max_delay=timedelta(seconds=5), jitter=0)
    delays = [next_delay(retry, attempt, random=0.3) for attempt in range(1, 8)]
    assert delays == [SECOND, 2 * SECOND, 4 * SECOND, 5 * SECOND, 5 * SECOND, None, None]


def test_what_the_receiver_asks_for_is_a_bounded_lower_bound() -> None:
    retry = Retry(retries=2, delay=10 * SECOND, jitter=0)
    assert next_delay(retry, 1, random=0, retry_after=SECOND) == 10 * SECOND
    assert next_delay(retry, 1, random=0, retry_after=60 * SECOND) == 60 * SECOND
    assert next_delay(retry, 1, random=0, retry_after=timedelta(days=9)) == MAX_HINT
    assert next_delay(retry, 3, random=0, retry_after=SECOND) is None


@given(
    retries=st.integers(0, 99),
    delay=st.floats(0, 1e8),
    max_delay=st.floats(0, 1e8),
    jitter=st.floats(0, 1),
    attempt=st.integers(1, 120),
    random=st.floats(0, 1, exclude_max=True),
)
def test_every_delay_lies_within_its_jitter(
    retries: int, delay: float, max_delay: float, jitter: float, attempt: int, random: float
) -> None:
    retry = Retry(
        retries=retries, delay=timedelta(seconds=delay), max_delay=timedelta(seconds=max_delay), jitter=jitter
    )
    found = next_delay(retry, attempt, random=random)
    if attempt > retries:
        assert found is None
        return
    assert found is not None
    base = min(retry.delay.total_seconds() * 2 ** (attempt - 1), retry.max_delay.total_seconds())
    slack = base * 1e-9 + 1e-6
    assert base * (1 - jitter) - slack <= found.total_seconds() <= base * (1 + jitter) + slack
    assert found >= timedelta(0)


def test_retries_count_further_attempts_and_attempts_all_of_them() -> None:
    for retry in (Retry(retries=2), Retry(attempts=3), Retry.model_validate(Retry(attempts=3).model_dump())):
        assert (retry.retries, retry.most_attempts) == (2, 3)
        assert [next_delay(retry, attempt, random=0) is not None for attempt in (1, 2, 3)] == [True, True, False]
    assert Retry().most_attempts == 5


def test_without_jitter_delays_never_shrink() -> None:
    retry = Retry(retries=99, jitter=0)
    delays = [next_delay(retry, attempt, random=0.9) for attempt in range(1, 100)]
    assert None not in delays
    assert delays == sorted(delays)  # type: ignore[type-var]


def test_an_executed_outcome_is_one_event_however_often_it_is_made(task: NewTask, now: datetime) -> None:
    result = ActionResult(
        details={"status": 200, "note": "pl4nted"},
        related=({"id": "whenthen.flow-run.r1", "role": "flow-run"},),
    )
    redactor = Redactor()
    redactor.add("pl4nted")
    built = [
        executed_event(
            task({"type": "call-webhook"}, attempt=attempt),
            result,
            now=now + timedelta(seconds=attempt),
            duration=timedelta(milliseconds=12.5),
            redactor=redactor,
        )
        for attempt in (1, 2)
    ]
    assert {event.id for event in built} == {"f-1.0.executed"}
    event = decode_event(built[0].encode())
    assert event.name == "automation.action.executed"
    assert event.resource == {
        "id": "whenthen.automation.load-new-csv",
        "name": "load-new-csv",
        "action": "call-webhook",
    }
    assert event.related == [
        {"id": "whenthen.firing.f-1", "role": "firing"},
        {"id": "whenthen.event.e-1", "role": "triggering-event", "name": "s3.file.uploaded"},
        {"id": "whenthen.flow-run.r1", "role": "flow-run"},
    ]
    assert event.payload == {
        "action": "call-webhook",
        "index": 0,
        "attempt": 1,
        "key": "f-1.0",
        "duration_ms": 12.5,
        "details": {"status": 200, "note": "***"},
    }
    assert event.data["lineage"] == {"depth": 2, "firing": "f-1", "automations": ["first", "load-new-csv"]}


def test_a_failed_outcome_says_why_and_what_follows(task: NewTask, now: datetime) -> None:
    redactor = Redactor()
    redactor.add("pl4nted")
    error = ActionError("answered 500: pl4nted " + "x" * 5000, reason="http_status")

    def failed(attempt: int, retry_in: timedelta | None) -> Any:
        return failed_event(
            task({"type": "call-webhook"}, None, attempt=attempt),
            error,
            now=now,
            duration=SECOND,
            redactor=redactor,
            retry_in=retry_in,
        )

    first, last = failed(1, 2 * SECOND), failed(2, None)
    assert first.name == "automation.action.failed"
    assert (first.id, last.id) == ("f-1.0.failed.1", "f-1.0.failed.2")
    assert first.payload["reason"] == "http_status"
    assert first.payload["message"].startswith("answered 500: *** x")
    assert len(first.payload["message"]) == 2000
    assert (first.payload["final"], first.payload["retry_in_s"]) == (False, 2.0)
    assert (last.payload["final"], last.payload["retry_in_s"]) == (True, None)
    assert first.payload["retryable"] is True
    assert [item["role"] for item in first.related] == ["firing"]
