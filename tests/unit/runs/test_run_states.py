"""The state machine of flow runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.runs.attempts.run_handling import Handling, handling
from whenthen.runs.reaper import Assessment, ReaperSettings, assess, mark_crashed
from whenthen.runs.run_states import (
    ALLOWED,
    finish_attempt,
    flow_run_event,
    max_attempts,
    new_run,
    run_id_of,
    transition,
)
from whenthen.schemas.deployments import ACTIVE, TERMINAL, WAITING, Deployment, FlowRun, RunState
from whenthen.schemas.errors import Conflict

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def a_run(**fields: object) -> FlowRun:
    return new_run(Deployment(name="d", command=["true"], **fields), key="k", parameters={}, now=NOW)


def test_the_id_follows_from_the_key_alone() -> None:
    assert run_id_of("firing.0") == run_id_of("firing.0") == "630afa5982a15f08a5861c71cb6d57a1"
    assert run_id_of("firing.0") != run_id_of("firing.1")


@given(st.lists(st.tuples(st.sampled_from(RunState), st.integers(-5, 5)), max_size=30))
def test_whatever_is_asked_a_run_moves_along_allowed_transitions_only(steps: list[tuple[RunState, int]]) -> None:
    run = a_run()
    for to, seconds in steps:
        before = run
        if to not in ALLOWED[before.state]:
            with pytest.raises(Conflict, match=f"{before.state} and can not become {to}"):
                transition(run, to, NOW)
            continue
        run = transition(run, to, NOW + seconds * SECOND)
        assert run.state is to
        assert (run.id, run.key, run.created, run.parameters) == (
            before.id,
            before.key,
            before.created,
            before.parameters,
        )
        assert run.changed >= before.changed
        assert (run.ended is not None) == (run.state in TERMINAL) or run.state in WAITING | {RunState.PENDING}
        assert run.attempt - before.attempt in (0, 1)


def test_what_has_ended_stays_as_it_is() -> None:
    for state in TERMINAL:
        assert not ALLOWED[state]


def test_every_state_that_is_not_an_end_leads_to_one() -> None:
    for state in RunState:
        reached, found = set(), {state}
        while found - reached:
            reached |= found
            found = set().union(*(ALLOWED[item] for item in found))
        assert reached & TERMINAL


def test_fields_that_identify_a_run_can_not_change() -> None:
    with pytest.raises(ValueError, match="parameters"):
        transition(a_run(), RunState.PENDING, NOW, parameters={})


@pytest.mark.parametrize("ended", [RunState.FAILED, RunState.TIMED_OUT, RunState.CRASHED])
def test_a_failed_try_is_retried_while_tries_are_left(ended: RunState) -> None:
    run = a_run(retries=1, retry_delay=30)
    for expected in (RunState.RETRYING, ended):
        run = transition(transition(run, RunState.PENDING, NOW), RunState.RUNNING, NOW)
        run = finish_attempt(run, ended, NOW, message="why")
        assert run.state is expected
    assert run.attempt == max_attempts(run) == 2
    assert run.message == "why"


def test_the_event_of_a_revision_has_one_id_and_carries_what_rules_need() -> None:
    run = transition(a_run(), RunState.PENDING, NOW + SECOND)
    run = transition(run, RunState.RUNNING, NOW + 2 * SECOND)
    run = transition(run, RunState.COMPLETED, NOW + 5 * SECOND, exit_code=0)
    first, second = flow_run_event(run, 7, NOW + 6 * SECOND), flow_run_event(run, 7, NOW + 60 * SECOND)
    assert first.id == second.id == f"{run.id}-7"
    assert first.name == "flow-run.Completed"
    assert first.payload["duration"] == 3.0
    assert first.payload["lateness"] == 2.0
    assert first.payload["succeeded"] == 1
    assert first.occurred == NOW + 5 * SECOND


def test_lateness_is_that_of_the_first_attempt_and_success_is_known_at_the_end() -> None:
    waiting = a_run(retries=1)
    payload = flow_run_event(waiting, 1, NOW).payload
    assert (payload["lateness"], payload["succeeded"]) == (None, None)
    run = waiting
    for late, expected in ((4, RunState.RETRYING), (90, RunState.TIMED_OUT)):
        at = NOW + late * SECOND
        run = transition(transition(run, RunState.PENDING, at), RunState.RUNNING, at)
        run = finish_attempt(run, RunState.TIMED_OUT, at + SECOND)
        assert run.state is expected
    payload = flow_run_event(run, 9, NOW + 100 * SECOND).payload
    assert (payload["lateness"], payload["succeeded"]) == (4.0, 0)
    assert flow_run_event(replace(run, triggered_by="backfill:nightly"), 9, NOW).payload["lateness"] is None


@given(st.sampled_from(RunState), st.one_of(st.none(), st.integers(-200, 0)), st.integers(-200, 0))
def test_an_assessment_that_changes_a_run_is_always_a_legal_transition(
    state: RunState, beat: int | None, changed: int
) -> None:
    from whenthen.schemas.times import format_time

    run = replace(a_run(retries=1), state=state, attempt=1, changed=format_time(NOW + changed * SECOND))
    last = None if beat is None else NOW + beat * SECOND
    assessment = assess(run, last, NOW, ReaperSettings())
    if state in TERMINAL:
        assert assessment is Assessment.FINE
    if assessment not in (Assessment.FINE, Assessment.REQUEUE):
        assert mark_crashed(run, assessment, NOW).state is not state
    if state in ACTIVE and beat is not None and beat >= -60:
        assert assessment is Assessment.FINE
        assert handling(run, last, NOW, timedelta(seconds=60))[0] is Handling.BUSY
