"""States, which may follow which, what ends a run and what is tried again: pure."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.exceptions import CancelledRun, CrashedRun, FailedRun, MissingResult, PausedRun, UnfinishedRun
from whenthen.flows.states.moves import MOVES, RetryRule, delay_before_retry, may_follow
from whenthen.flows.states.outcomes import crashed_state, failed_state, state_of_value
from whenthen.flows.states.state import TERMINAL_STATES
from whenthen.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Retrying,
    Running,
    Scheduled,
    State,
    StateType,
    Suspended,
    get_state_exception,
    raise_state_exception,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FINAL = [Completed, Failed, Crashed, Cancelled]
STATES = st.sampled_from([Completed, Failed, Crashed, Cancelled, Pending, Running, Paused]).map(lambda make: make())


def test_every_type_has_its_moves_and_none_leaves_the_end() -> None:
    assert set(MOVES) == set(StateType)
    assert [kind for kind in TERMINAL_STATES if MOVES[kind]] == []


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        ("PENDING", "RUNNING", True),
        ("PENDING", "PENDING", True),  # NotReady
        ("PENDING", "COMPLETED", False),
        ("RUNNING", "SCHEDULED", True),  # AwaitingRetry
        ("SCHEDULED", "RUNNING", True),
        ("SCHEDULED", "COMPLETED", False),
        ("RUNNING", "COMPLETED", True),
        ("CANCELLING", "RUNNING", False),
        ("CANCELLING", "CANCELLED", True),
        ("COMPLETED", "FAILED", False),
        ("FAILED", "RUNNING", False),
    ],
)
def test_a_move_is_allowed_or_not(before: str, after: str, allowed: bool) -> None:
    assert may_follow(StateType(before), StateType(after)) is allowed


@pytest.mark.parametrize(
    ("state", "name", "kind"),
    [
        (Completed(), "Completed", "COMPLETED"),
        (Retrying(), "Retrying", "RUNNING"),
        (AwaitingRetry(), "AwaitingRetry", "SCHEDULED"),
        (Scheduled(), "Scheduled", "SCHEDULED"),
        (Suspended(), "Suspended", "PAUSED"),
        (Cancelling(), "Cancelling", "CANCELLING"),
        (Failed(name="TimedOut"), "TimedOut", "FAILED"),
    ],
)
def test_a_state_has_a_name_and_a_type(state: State[None], name: str, kind: str) -> None:
    assert (state.name, state.type, state.is_final()) == (name, kind, StateType(kind) in TERMINAL_STATES)


def test_what_a_state_gives() -> None:
    assert Completed(data=5).result() == 5
    assert Completed(data=None).result() is None
    error = ValueError("x")
    with pytest.raises(ValueError, match="x"):
        Failed(data=error).result()
    assert Failed(data=error).result(raise_on_failure=False) is error


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (Completed(), MissingResult),
        (Pending(), UnfinishedRun),
        (Running(), UnfinishedRun),
        (Paused(), PausedRun),
        (Failed(), FailedRun),
        (Crashed(message="m"), CrashedRun),
        (Cancelled(), CancelledRun),
        (Failed(data="told"), FailedRun),
        (Failed(data=[Completed(), Crashed()]), CrashedRun),
        (Failed(data=Cancelled()), CancelledRun),
    ],
)
def test_a_state_without_a_result_says_why(state: State[None], error: type[Exception]) -> None:
    with pytest.raises(error):
        state.result()


def test_an_exception_of_a_state_can_be_had_and_raised() -> None:
    assert isinstance(get_state_exception(Failed(message="m")), FailedRun)
    raise_state_exception(Completed())
    with pytest.raises(FailedRun, match="m"):
        raise_state_exception(Failed(message="m"))
    with pytest.raises(ValueError, match="COMPLETED has no exception"):
        get_state_exception(Completed())


def test_in_an_async_context_a_result_is_awaited() -> None:
    async def main() -> object:
        return await Completed(data=3).result()

    assert asyncio.run(main()) == 3


@given(st.lists(STATES, min_size=1, max_size=6))
def test_states_together_are_completed_when_all_are_and_never_otherwise(states: list[State[None]]) -> None:
    state = state_of_value(states, now=NOW)
    assert state.is_completed() == all(one.is_completed() for one in states)
    assert state.data is states
    assert state.message


@given(st.one_of(st.none(), st.integers(), st.lists(st.integers()), st.dictionaries(st.text(), st.integers())))
def test_a_value_is_the_data_of_a_completed_state(value: object) -> None:
    state = state_of_value(value, now=NOW)
    assert (state.is_completed(), state.result(), state.timestamp) == (True, value, NOW)


def test_a_state_that_the_function_made_is_the_runs_and_one_of_another_run_is_not() -> None:
    made = Completed(name="Skipped")
    assert state_of_value(made, now=NOW) is made
    made.state_details.task_run_id = made.id
    assert (state_of_value(made, now=NOW).name, state_of_value(made, now=NOW).data) == ("Completed", made)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "Execution was aborted by an interrupt signal."),
        (SystemExit(1), "Execution was aborted by Python system exit call."),
        (asyncio.CancelledError(), "Execution was cancelled by the runtime environment."),
        (GeneratorExit("x"), "Execution was interrupted by an unexpected exception: GeneratorExit: x"),
    ],
)
def test_a_crash_says_what_it_was(error: BaseException, said: str) -> None:
    assert (crashed_state(error, now=NOW).message, crashed_state(error, now=NOW).data) == (said, error)


def test_a_failure_says_what_was_raised() -> None:
    assert failed_state(KeyError("k"), what="Task:", now=NOW).message == "Task: KeyError: 'k'"


DELAYS = st.one_of(st.none(), st.floats(0, 100), st.lists(st.floats(0, 100), max_size=5))


@given(st.integers(0, 30), DELAYS, st.one_of(st.none(), st.floats(0, 3)), st.floats(0, 1))
def test_retries_end(retries: int, delay: object, jitter: float | None, where: float) -> None:
    rule = RetryRule(retries, delay, jitter)  # type: ignore[arg-type]
    delays = [delay_before_retry(rule, tried, uniform=where) for tried in range(retries)]
    assert all(one is not None and one >= 0 for one in delays)
    assert delay_before_retry(rule, retries, uniform=where) is None


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=5), st.integers(0, 10), st.floats(0.01, 3), st.floats(0, 1))
def test_a_delay_is_that_of_its_try_and_lies_within_the_jitter(
    delays: list[float], tried: int, factor: float, where: float
) -> None:
    plain = delays[min(tried, len(delays) - 1)]
    assert delay_before_retry(RetryRule(11, delays), tried) == plain
    jittered = delay_before_retry(RetryRule(11, delays, factor), tried, uniform=where)
    assert jittered is not None
    assert max(0.0, plain * (1 - factor)) <= jittered * 1.0001
    assert jittered <= plain * (1 + factor) * 1.0001
