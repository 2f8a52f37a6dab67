"""`concurrency` and `rate_limit`: slots of this process, who gets them next, and what is said when they can not be had."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patience import limit
from whenthen import flow, task
from whenthen.concurrency.asyncio import concurrency as aconcurrency
from whenthen.concurrency.asyncio import rate_limit as arate_limit
from whenthen.concurrency.sync import concurrency, rate_limit
from whenthen.exceptions import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    ConfigurationError,
    FlowRunTimeoutError,
    NotSupported,
)
from whenthen.flows.services.process_limits import Limit, ProcessLimits, SlotRequest, read_limit


class Ask:
    """Requests to limits of a test, with a clock of the test."""

    def __init__(self, **limits: Limit) -> None:
        self.known = limits
        self.limits = ProcessLimits()
        self.now = 0.0

    def slots(self, *names: str, occupy: int = 1) -> SlotRequest:
        request = SlotRequest({name: self.known[name] for name in names}, occupy, lambda: None)
        self.limits.request(request, now=self.now)
        return request

    def back(self, request: SlotRequest) -> None:
        self.limits.withdraw(request, now=self.now)


def test_slots_are_given_in_the_order_of_requests() -> None:
    ask = Ask(db=Limit(2))
    first, second, large, small = ask.slots("db"), ask.slots("db"), ask.slots("db", occupy=2), ask.slots("db")
    assert [one.granted for one in (first, second, large, small)] == [True, True, False, False]
    ask.back(first)
    assert not large.granted
    assert not small.granted  # there is a slot for it, but it is not its turn
    ask.back(second)
    assert large.granted
    assert not small.granted
    ask.back(large)
    assert small.granted


def test_a_request_for_two_limits_gets_both_or_none() -> None:
    ask = Ask(a=Limit(1), b=Limit(1))
    a = ask.slots("a")
    both, b = ask.slots("a", "b"), ask.slots("b")
    assert not both.granted
    assert not b.granted  # it came after the one that is the first of b
    ask.back(both)
    assert b.granted
    ask.back(a)
    ask.back(b)
    assert ask.slots("a", "b").granted


def test_slots_of_a_decay_come_free_with_time() -> None:
    ask = Ask(api=Limit(2, decay=0.5))
    one, two, three = ask.slots("api", occupy=2), ask.slots("api"), ask.slots("api")
    assert one.granted
    assert ask.limits.poll(two, now=0.0) == pytest.approx(2.0)
    assert ask.limits.poll(three, now=0.0) is None  # it is told when it is its turn
    assert ask.limits.poll(two, now=1.9) == pytest.approx(0.1)
    assert ask.limits.poll(two, now=2.0) is None
    assert two.granted
    assert not three.granted
    assert ask.limits.poll(three, now=2.0) == pytest.approx(2.0)
    assert ask.limits.poll(three, now=1.0) == pytest.approx(2.0)  # a clock that goes back frees nothing
    ask.limits.poll(three, now=4.0)
    assert three.granted


@given(
    st.lists(st.tuples(st.sets(st.sampled_from("abc"), min_size=1), st.integers(1, 3), st.integers(0, 8)), max_size=40)
)
def test_never_more_slots_than_there_are_and_none_is_lost(steps: list[tuple[set[str], int, int]]) -> None:
    ask = Ask(a=Limit(3), b=Limit(3), c=Limit(4))
    asked: list[SlotRequest] = []
    for names, occupy, give_back in steps:
        asked.append(ask.slots(*names, occupy=occupy))
        if give_back < len(asked):
            ask.back(asked.pop(give_back))
        for name, there in ask.known.items():
            taken = sum(one.occupy for one in asked if one.granted and name in one.limits)
            assert taken <= there.slots
    while asked:
        granted = [one for one in asked if one.granted]
        assert granted, "all wait and nobody holds anything"
        ask.back(granted[0])
        asked.remove(granted[0])
    assert ask.limits._slots == {}


@pytest.mark.parametrize("written", ["", "x", "-1", "1.5", "3,", "3, 0", "3, x/s", "1/s"])
def test_a_limit_that_can_not_be_read_is_refused(written: str) -> None:
    with pytest.raises(ConfigurationError, match="is no limit; write the number of slots"):
        read_limit(written, "WHENTHEN_LIMIT_X")


def test_limits_are_written_as_numbers_with_or_without_a_decay() -> None:
    assert (read_limit(" 3 ", "X"), read_limit("10,2.5/s", "X")) == (Limit(3), Limit(10, 2.5))


class Most:
    """How many were in it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inside = self.most = self.all = 0

    def __enter__(self) -> None:
        with self._lock:
            self.inside += 1
            self.all += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self.inside -= 1


def test_tasks_hold_as_many_slots_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_LIMIT_MY_DB", "2")
    most = Most()

    @task
    def query(number: int) -> int:
        with concurrency("my-db", timeout_seconds=limit(30)), most:
            threading.Event().wait(0.002)
            return number

    @flow
    def many() -> list[int]:
        return query.map(range(30)).result()

    assert many() == list(range(30))
    assert (most.most, most.all) == (2, 30)


def test_async_tasks_share_the_slots_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_LIMIT_DB", "2")
    most = Most()

    async def query(number: int) -> int:
        async with aconcurrency("db", timeout_seconds=limit(30)):
            with most:
                await asyncio.sleep(0.001)
                return number

    async def main() -> list[int]:
        return await asyncio.gather(*(query(number) for number in range(200)))

    held = threading.Event()
    free = threading.Event()

    def hold() -> None:
        with concurrency("db"):
            held.set()
            free.wait(limit(30))

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(limit(30))
    assert asyncio.run(main()) == list(range(200))
    assert (most.most, most.all) == (1, 200)  # the thread had the other slot
    free.set()
    thread.join()


def test_what_waits_in_vain_is_told_so_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_LIMIT_DB", "1")

    async def wait() -> None:
        async with aconcurrency("db", timeout_seconds=0.01):
            raise AssertionError

    with concurrency("db"):
        for timeout_s in (0, 0.01):
            refused = pytest.raises(AcquireConcurrencySlotTimeoutError, match=r"1 slot\(s\) of db were not free within")
            with refused, concurrency("db", timeout_seconds=timeout_s):
                raise AssertionError
        with pytest.raises(TimeoutError):
            asyncio.run(wait())
    with concurrency("db", timeout_seconds=0):
        pass


def test_a_cancelled_waiter_gives_its_place_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_LIMIT_DB", "1")

    async def main() -> None:
        async with aconcurrency("db"):

            async def wait() -> None:
                async with aconcurrency("db"):
                    raise AssertionError

            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        async with aconcurrency("db", timeout_seconds=0):
            pass

    asyncio.run(main())


def test_a_flow_out_of_time_stops_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_LIMIT_DB", "1")
    ended = threading.Event()

    @task
    def wait() -> None:
        try:
            with concurrency("db"):
                raise AssertionError
        finally:
            ended.set()

    @flow(timeout_seconds=limit(0.1))
    def impatient() -> None:
        wait.submit().wait()

    with concurrency("db"):
        with pytest.raises(FlowRunTimeoutError):
            impatient()
        assert ended.wait(limit(10))
    with concurrency("db", timeout_seconds=0):
        pass


def test_a_rate_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_LIMIT_API", "2, 1000/s")
    for _ in range(10):
        rate_limit("api", timeout_seconds=limit(10))
    asyncio.run(arate_limit("api", occupy=2, timeout_seconds=limit(10)))
    monkeypatch.setenv("WHENTHEN_LIMIT_SLOW", "1, 0.001/s")
    rate_limit("slow")
    with pytest.raises(TimeoutError):
        rate_limit("slow", timeout_seconds=0.01)


def test_a_name_without_a_limit_lets_all_pass_with_a_word_unless_strict(caplog: pytest.LogCaptureFixture) -> None:
    with concurrency(["unheard-of"], occupy=3):
        pass
    assert "there is no limit unheard-of, so all pass; set WHENTHEN_LIMIT_UNHEARD_OF" in caplog.text
    with concurrency([]):
        pass
    with pytest.raises(ConcurrencySlotAcquisitionError, match="set WHENTHEN_LIMIT_UNHEARD_OF to the number of slots"):
        rate_limit("unheard-of", strict=True)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: concurrency("db", occupy=0), ConfigurationError, "occupy is a whole number from 1; found 0"),
        (
            lambda: concurrency("db", timeout_seconds=-1),
            ConfigurationError,
            "timeout_seconds is a number of seconds from 0, or None; found -1",
        ),
        (lambda: concurrency("db", max_retries=3), NotSupported, "use timeout_seconds"),
        (lambda: concurrency("db", occupy=3), ConcurrencySlotAcquisitionError, r"there are 2 \(WHENTHEN_LIMIT_DB=2\)"),
        (lambda: concurrency("d b"), ValueError, "the name of a limit has letters"),
    ],
)
def test_what_can_not_be_had_is_refused(
    call: Any, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENTHEN_LIMIT_DB", "2")
    with pytest.raises(error, match=said), call():
        pass
    with pytest.raises(ConcurrencySlotAcquisitionError, match="write WHENTHEN_LIMIT_DB='2, 1/s'"):
        rate_limit("db")


def test_a_waiter_of_a_closed_loop_takes_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENTHEN_LIMIT_DB", "1")
    loop = asyncio.new_event_loop()

    async def wait() -> None:
        async with aconcurrency("db"):
            pass

    with concurrency("db"):
        waiting = loop.create_task(wait())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    with concurrency("db", timeout_seconds=limit(5)):
        pass
    waiting.get_coro().close()  # type: ignore[union-attr]
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
