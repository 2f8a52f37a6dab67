"""Who runs next: the oldest whose target has a slot; the circuit breaker of a target that keeps failing opens, and then lets a probe through."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from whenthen.engine.execution.circuit_breaker import CircuitBreakerSettings
from whenthen.engine.execution.concurrency_limits import ConcurrencyLimits, Ticket


def limited(concurrency: int = 100, **limits: float) -> ConcurrencyLimits:
    return ConcurrencyLimits(concurrency, CircuitBreakerSettings(**limits))  # type: ignore[arg-type]


def nobody() -> None:
    raise AssertionError("a ticket that ran at once, or left, was woken")


def fail(line: ConcurrencyLimits, now: float) -> None:
    ticket = line.enter("t", nobody)
    line.leave(ticket, succeeded=False, now=now)


def test_a_target_takes_only_its_share() -> None:
    line = limited(at_once=2, waiting=1)
    assert all(line.enter("t", nobody).running for _ in range(2))
    assert not line.enter("t", nobody).running
    assert line.refuse_s("t", 0.0) > 0
    assert line.refuse_s("other", 0.0) == 0
    assert line.enter("other", nobody).running


def test_a_free_slot_wakes_the_oldest_of_its_target_alone() -> None:
    line = limited(at_once=1)
    woken: list[str] = []
    running = line.enter("t", nobody)
    for name in ("first", "second"):
        line.enter("t", lambda name=name: woken.append(name))  # type: ignore[misc]
    line.leave(running, succeeded=True, now=0.0)
    assert woken == ["first"]


def test_among_targets_the_oldest_goes_first() -> None:
    line = limited(concurrency=1, at_once=1)
    woken: list[int] = []
    running = line.enter("a", nobody)
    waiting = [line.enter(target, lambda n=n: woken.append(n)) for n, target in enumerate("bacba")]  # type: ignore[misc]
    for ticket in [running, *waiting]:
        line.leave(ticket, succeeded=True, now=0.0)
    assert woken == [0, 1, 2, 3, 4]
    assert (line.running, line.breakers) == (0, {})


def test_one_that_gives_up_waiting_is_passed_over() -> None:
    line = limited(at_once=1)
    woken: list[str] = []
    running = line.enter("t", nobody)
    gone = line.enter("t", nobody)
    line.enter("t", lambda: woken.append("second"))
    line.leave(gone, succeeded=None, now=0.0)
    line.leave(gone, succeeded=None, now=0.0)
    line.leave(running, succeeded=True, now=0.0)
    assert woken == ["second"]


def test_one_that_gives_up_as_it_is_woken_hands_its_slot_on() -> None:
    line = limited(at_once=1)
    woken: list[str] = []
    running = line.enter("t", nobody)
    cancelled = line.enter("t", lambda: woken.append("cancelled"))
    line.enter("t", lambda: woken.append("next"))
    line.leave(running, succeeded=True, now=0.0)
    line.leave(cancelled, succeeded=None, now=0.0)
    assert woken == ["cancelled", "next"]
    assert line.running == 1


def test_the_breaker_opens_after_failures_lets_one_probe_through_and_closes_after_a_success() -> None:
    line = limited(failures=3, open_s=5.0, max_open_s=8.0)
    for _ in range(3):
        assert line.refuse_s("t", 0.0) == 0
        fail(line, 0.0)
    assert line.refuse_s("t", 1.0) == 4.0
    assert line.refuse_s("t", 5.0) == 0
    probe = line.enter("t", nobody)
    assert line.refuse_s("t", 5.0) > 0, "one probe at a time"
    line.leave(probe, succeeded=False, now=5.0)
    assert line.refuse_s("t", 5.0) == 8.0, "the open time doubles up to its limit"
    probe = line.enter("t", nobody)
    line.leave(probe, succeeded=True, now=14.0)
    assert line.refuse_s("t", 14.0) == 0
    assert line.breakers == {}


def test_a_probe_that_gives_up_waiting_leaves_the_place_to_another_one() -> None:
    line = limited(concurrency=1, failures=1, open_s=5.0)
    fail(line, 0.0)
    line.enter("other", nobody)
    probe = line.enter("t", nobody)
    assert line.refuse_s("t", 5.0) > 0
    line.leave(probe, succeeded=None, now=5.0)
    assert line.refuse_s("t", 5.0) == 0


def test_an_interrupted_task_says_nothing_about_its_target() -> None:
    line = limited(failures=1)
    ticket = line.enter("t", nobody)
    line.leave(ticket, succeeded=None, now=0.0)
    assert line.refuse_s("t", 0.0) == 0


@dataclass
class Naive:
    """What is meant: after every change, all are looked at in order of age, and whoever may run runs."""

    concurrency: int
    at_once: int
    targets: dict[int, str] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)

    def enter(self, number: int, target: str) -> None:
        self.targets[number] = target
        self.waiting.append(number)
        self._admit()

    def leave(self, number: int) -> None:
        (self.running if number in self.running else self.waiting).remove(number)
        self._admit()

    def _admit(self) -> None:
        for number in list(self.waiting):
            of_target = sum(self.targets[other] == self.targets[number] for other in self.running)
            if len(self.running) < self.concurrency and of_target < self.at_once:
                self.waiting.remove(number)
                self.running.append(number)


@given(
    concurrency=st.integers(1, 4),
    at_once=st.integers(1, 3),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("enter"), st.sampled_from("abc")),
            st.tuples(st.just("leave"), st.integers(0, 50)),
        ),
        max_size=80,
    ),
)
def test_whoever_runs_is_whom_a_look_at_all_of_them_would_choose(
    concurrency: int, at_once: int, steps: list[tuple[str, object]]
) -> None:
    line = limited(concurrency, at_once=at_once)
    model = Naive(concurrency, at_once)
    here: dict[int, Ticket] = {}
    began: list[int] = []
    for number, (step, of) in enumerate(steps):
        if step == "enter":
            ticket = line.enter(str(of), lambda number=number: began.append(number))  # type: ignore[misc]
            here[number] = ticket
            if ticket.running:
                began.append(number)
            model.enter(number, str(of))
        elif here:
            assert isinstance(of, int)
            gone = sorted(here)[of % len(here)]
            line.leave(here.pop(gone), succeeded=True, now=0.0)
            model.leave(gone)
        assert [number for number, ticket in here.items() if ticket.running] == sorted(model.running)
        assert [number for number in began if number in here] == model.running, "in the same order"
        assert line.running == len(model.running)
        assert sum(breaker.waiting for breaker in line.breakers.values()) == len(model.waiting)
    for number in sorted(here):
        line.leave(here[number], succeeded=True, now=0.0)
    assert (line.running, line.breakers, line._lines) == (0, {}, {})
