"""Metric windows with few and with many events, compared with the definition in docs/rules.md, "Metrics"."""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trigger_samples import START_US, evaluator, event, rule, us

from tests.examples import up_to
from whenthen.schemas.automations import Automation
from whenthen.schemas.firings import Reason, Ref
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.rule_set import RuleSet
from whenthen.triggers.windows import metric
from whenthen.triggers.windows.metric import MetricRule
from whenthen.triggers.windows.metric_slices import Slices
from whenthen.triggers.windows.transitions import State, Transition

HOUR_US = 3_600_000_000
WITHIN_S = 256  #: so that a slice is one second
KINDS = ["count", "sum", "avg", "min", "max", "distinct", "p50", "p75", "p90", "p99"]
OPERATORS = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
FEW = 4  #: events that the models' windows keep one by one, instead of 1,000

thorough = up_to(200)
numbers = st.one_of(st.integers(-3, 5), st.sampled_from([0.5, -0.25, 1e308, -1e308, 5e-324, 2**60, 0.1]))
steps = st.lists(
    st.tuples(st.sampled_from([0, 0.25, 1, 3, 60, 300]), st.sampled_from([0, 0, 0.25, 2, 200, 255.75]), numbers),
    max_size=30,
)


@pytest.fixture(autouse=True, scope="module")
def _few_events_are_kept() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metric, "MAX_REFS", FEW)
        patch.setattr(metric, "_EXACT_AGAIN", FEW // 2)
        patch.setattr(metric, "_FEW", 2)
        yield


def naive(kind: str, values: list[float]) -> float | None:
    if kind in ("count", "distinct"):
        return len(values) if kind == "count" else len(set(values))
    if kind in ("sum", "avg"):
        whole = sum(int(value * 2**1074) if isinstance(value, int) else scaled(value) for value in values)
        try:
            total = whole / 2**1074
        except OverflowError:
            total = math.inf if whole > 0 else -math.inf
        return total if kind == "sum" else total / len(values) if values else None
    if not values:
        return None
    if kind in ("min", "max"):
        return min(values) if kind == "min" else max(values)
    ordered = sorted(values)
    return next(v for n, v in enumerate(ordered, 1) if 100 * n >= int(kind[1:]) * len(ordered))


def scaled(value: float) -> int:
    numerator, denominator = value.as_integer_ratio()
    return numerator * (2**1074 // denominator)


class Definition:
    """All events, aggregated anew at every moment at which the window may change."""

    def __init__(self, kind: str, asks: str, threshold: float, hold: float, *, keep: int) -> None:
        self.kind, self.asks, self.threshold, self.hold_us, self.keep = kind, asks, threshold, round(hold * 1e6), keep
        self.within_us = WITHIN_S * 1_000_000
        self.slice_us = 1_000_000
        self.known: list[tuple[int, float]] = []
        self.in_slices = False  #: whether there were ever more than are kept each
        self.began = False
        self.triggered, self.since = False, 0
        self.warms_up = kind in ("count", "sum", "distinct") and asks not in (">", ">=")
        self.looks: list[int] = []
        self.found: list[tuple[str, int]] = []

    def covered(self, now: int) -> list[float]:
        covered = [(at, value) for at, value in self.known if at > now - self.within_us]
        if len(covered) <= self.keep:
            if not self.in_slices:
                self.known = covered  # what has left to the microsecond does not come back with its slice
            return [value for _, value in covered]
        self.in_slices = True
        first = (now - self.within_us + 1) // self.slice_us
        return [value for at, value in self.known if at // self.slice_us >= first]

    def take(self, at: int, value: float, now: int) -> None:
        self.advance(now)
        self.known.append((at, value))
        self.began = True
        self.looks += [at + self.within_us, (at // self.slice_us + 1) * self.slice_us + self.within_us - 1]
        self.look(now)

    def advance(self, now: int) -> None:
        while due := [each for each in self.looks if each <= now]:
            self.looks.remove(min(due))
            self.look(min(due))

    def look(self, now: int) -> None:
        if not self.warms_up and not self.began:
            return
        number = naive(self.kind, self.covered(now))
        holds = number is not None and OPERATORS[self.asks](number, self.threshold)
        if not holds or (self.warms_up and now < START_US + self.within_us):
            self.since = 0
            if self.triggered:
                self.triggered = False
                self.found.append(("Resolved", now))
            return
        if not self.since:
            self.since = now
            self.looks.append(now + self.hold_us)
        if not self.triggered and now - self.since >= self.hold_us:
            self.triggered = True
            self.found.append(("Triggered", now))


def metric_rule(kind: str, asks: str, threshold: float, hold: float = 0, within: float = WITHIN_S) -> Automation:
    return rule(
        {
            "type": "metric",
            "expect": "a",
            "aggregate": kind,
            "value": "$.payload.n",
            "operator": asks,
            "threshold": threshold,
            "within": within,
            "for": hold,
        }
    )


@thorough
@given(
    steps,
    st.sampled_from(KINDS),
    st.sampled_from(list(OPERATORS)),
    st.sampled_from([-1, 0, 0.5, 1, 3, 6, 9]),
    st.sampled_from([0, 0, 2.5]),
    st.booleans(),
)
def test_a_window_of_any_size_decides_as_its_definition_also_when_stored_and_restored_between_events(
    given_steps: list[tuple[float, float, float]], kind: str, asks: str, threshold: float, hold: float, restarts: bool
) -> None:
    try:
        automation = metric_rule(kind, asks, threshold, hold)
    except ValueError:
        assume(False)
    engine = Evaluator(RuleSet.compile([automation]))
    engine.advance(us(0))
    definition = Definition(kind, asks, threshold, hold, keep=FEW)
    if definition.warms_up:
        definition.looks.append(us(WITHIN_S))
    found: list[tuple[str, int]] = []
    kept: dict[tuple[str, str], bytes] = {}
    clock = 0.0
    for number, (gap, lag, value) in enumerate(given_steps):
        clock += gap
        each = event("a", clock - lag, id=f"e{number}", received=clock, payload={"n": value})
        found += [(firing.state.value, micros(firing.at)) for firing in engine.process(each, us(clock)).firings]
        definition.take(us(clock - lag), float(value) if abs(value) > 2**53 else value, us(clock))
        if restarts:
            for trigger, key, state in engine.drain():
                kept.pop((trigger, key), None) if state is None else kept.__setitem__((trigger, key), state)
            engine = Evaluator(RuleSet.compile([automation]))
            engine.clock_us = us(clock)
            for (trigger, key), state in kept.items():
                engine.restore(trigger, key, state)
    found += [(f.state.value, micros(f.at)) for f in engine.advance(us(clock + 1000)).firings]
    definition.advance(us(clock + 1000))
    assert found == definition.found


def micros(text: str) -> int:
    return round(us(0) + (event("t", 0).occurred.fromisoformat(text) - event("t", 0).occurred).total_seconds() * 1e6)


# -- real sizes


@pytest.fixture
def real_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric, "MAX_REFS", 1000)
    monkeypatch.setattr(metric, "_EXACT_AGAIN", 500)
    monkeypatch.setattr(metric, "_FEW", 16)


def window_of(kind: str, asks: str = ">", threshold: float = 1e9, *, within_us: int = HOUR_US) -> MetricRule:
    return MetricRule(aggregate=kind, operator=asks, threshold=threshold, within_us=within_us, hold_us=0, keyed=True)


def feed(
    window: MetricRule, values: Any, *, every_us: int = 1000, state: State | None = None, ids: str = "e"
) -> Iterator[Transition]:
    for number, value in enumerate(values):
        at = START_US + number * every_us
        transition = metric.on_event(window, state, Ref(f"{ids}{number}", number, at), value, now_us=at)
        state = transition.state
        yield transition


@pytest.mark.takes(2)
@pytest.mark.usefixtures("real_sizes")
def test_a_count_above_150000_fires_at_the_event_that_passes_it_and_says_how_many_there_were() -> None:
    fired = [t for t in feed(window_of("count", ">", 150_000), range(150_010)) if t.reason is Reason.FIRED]
    assert len(fired) == 1
    assert fired[0].total == 150_001
    assert fired[0].refs is not None
    assert [ref.seq for ref in fired[0].refs] == list(range(149_001, 150_001))


@pytest.mark.usefixtures("real_sizes")
def test_up_to_1000_events_an_event_leaves_to_the_microsecond_and_beyond_with_its_slice() -> None:
    window = window_of("count", ">", 0, within_us=256_000_000)
    for number in (1000, 1001):
        start = START_US // 1_000_000 * 1_000_000  # all in one slice of a second
        state: State | None = None
        for each in range(number):
            state = metric.on_event(window, state, Ref(f"e{each}", each, start + each), 0, now_us=start + each).state
        assert state is not None
        left = metric.deadline_us(window, state)
        # of 1,001 the first leaves in its own time: from then on 1,000 are left, and exact
        assert left == start + 256_000_000
        assert metric.on_time(window, state, now_us=left).detail.startswith(f"count is {number - 1},")


@pytest.mark.usefixtures("real_sizes")
def test_beyond_1000_events_a_slice_leaves_when_its_last_moment_does() -> None:
    window = window_of("count", ">", 0, within_us=256_000_000)
    start = START_US // 1_000_000 * 1_000_000
    state: State | None = None
    for each in range(3000):
        at = start + each + (0 if each < 1500 else 5_000_000)
        state = metric.on_event(window, state, Ref(f"e{each}", each, at), 0, now_us=at).state
    assert state is not None
    leaves = start + 1_000_000 + 256_000_000 - 1
    assert metric.deadline_us(window, state) == leaves
    assert metric.on_time(window, state, now_us=leaves - 1).detail.startswith("count is 3000,")
    assert metric.on_time(window, state, now_us=leaves).detail.startswith("count is 1500,")


@pytest.mark.takes(0.2)
@pytest.mark.parametrize("kind", ["count", "sum", "avg", "min", "max", "distinct", "p99"])
@pytest.mark.usefixtures("real_sizes")
def test_the_stored_window_has_a_bound(kind: str) -> None:
    rng = random.Random(7)
    wild = [rng.choice([1e308, -1e308, 5e-324, 0.1]) * rng.random() for _ in range(20_000)]
    values: list[Any] = [f"{n}-" + "v" * 500 for n in range(20_000)] if kind == "distinct" else wild
    window = window_of(kind, ">", 15_000 if kind == "distinct" else 1e300, within_us=16_000_000)
    size = most = 0
    for number, transition in enumerate(feed(window, values, ids="i" * 200)):
        if number % 1999 == 0:
            assert transition.state is not None
            size = len(orjson.dumps(transition.state, default=lambda part: part.stored()))
            most = max(most, size)
    assert most < 1000 * (256 + 100) + 160 * 1024
    assert size > 100_000


@pytest.mark.usefixtures("real_sizes")
def test_a_window_of_an_earlier_version_with_all_its_events_is_carried_forward() -> None:
    window = window_of("sum", ">", 5000)
    old: State = [START_US, 0, 0, START_US, 0]
    for number in range(3000):
        old += [START_US - 3000 + number, number, f"e{number}", 1]
    transition = metric.on_event(window, orjson.loads(orjson.dumps(old)), Ref("new", 9, START_US), 1, now_us=START_US)
    assert transition.detail.startswith("sum is 3001,")
    again = metric.on_event(window, transition.state, Ref("e2999", 9, START_US), 1, now_us=START_US)
    assert again.reason is Reason.SPENT
    few = metric.on_event(window, old[: 5 + 4 * 3], Ref("new", 9, START_US), 1, now_us=START_US)
    assert few.detail.startswith("sum is 4,")


@pytest.mark.usefixtures("real_sizes")
def test_what_was_counted_is_subtracted_to_the_last_bit_when_it_leaves() -> None:
    window = window_of("sum", ">", 1e300, within_us=256_000_000)
    state: State | None = None
    for number in range(4000):
        at = START_US + number
        value = 1e308 if number % 2 else 0.1
        state = metric.on_event(window, state, Ref(f"e{number}", number, at), value, now_us=at).state
    late = START_US + 200_000_000
    state = metric.on_event(window, state, Ref("last", 0, late), 0.1, now_us=late).state
    after = metric.on_event(window, state, Ref("one", 0, late + 100_000_000), 0.2, now_us=late + 100_000_000)
    assert after.detail.startswith("sum is 0.3,")


@pytest.mark.parametrize(("distinct", "above"), [(49_999, False), (50_001, True)])
def test_up_to_65535_distinct_values_are_counted_exactly(distinct: int, above: bool) -> None:
    assert (reading_of_distinct(50_000, distinct).sign == 1) is above


@pytest.mark.takes(2)
@pytest.mark.parametrize("threshold", [100_000, 300_000])
def test_beyond_65535_distinct_values_are_counted_within_one_percent(threshold: int) -> None:
    assert reading_of_distinct(threshold, round(threshold * 0.99)).sign == -1
    assert reading_of_distinct(threshold, round(threshold * 1.01)).sign == 1


def reading_of_distinct(threshold: int, distinct: int) -> Any:
    slices = Slices("distinct", threshold)
    for number in range(distinct):
        slices.add(number % 250, f'"{number}"')
    return Slices.load("distinct", threshold, orjson.loads(orjson.dumps(slices.stored()))).reading()


def test_a_value_that_was_seen_again_stays_when_its_first_slice_leaves() -> None:
    slices = Slices("distinct", 5)
    for number, value in enumerate(["x", "y", "z", "x"]):
        slices.add(number, value)
    slices.drop_before(2)
    assert slices.reading().shown == "2"


def test_a_long_value_of_distinct_is_kept_as_its_digest() -> None:
    window = window_of("distinct")
    (_, second, other) = feed(window, ["v" * 2_000_000, "v" * 2_000_000, "v" * 2_000_001])
    assert second.detail.startswith("distinct is 1,")
    assert other.detail.startswith("distinct is 2,")
    assert len(orjson.dumps(other.state)) < 1000


def test_equal_numbers_are_one_value_of_distinct() -> None:
    *_, last = feed(window_of("distinct"), [1, 1.0, 2**60, True])
    assert last.detail.startswith("distinct is 3,")


def test_an_event_ahead_of_the_clock_counts_as_one_of_this_moment() -> None:
    window = window_of("count", ">", 5)
    transition = metric.on_event(window, None, Ref("e", 1, START_US + 99 * HOUR_US), 0, now_us=START_US)
    assert transition.state is not None
    assert metric.deadline_us(window, transition.state) == START_US + HOUR_US


def test_a_metric_that_is_part_of_a_sequence_hands_on_how_many_events_there_were() -> None:
    part = metric_rule("count", ">=", 6).trigger.model_dump(mode="json", by_alias=True)
    engine = evaluator({"type": "sequence", "triggers": [part, {"expect": "b"}]})
    for number in range(6):
        engine.process(event("a", number, id=f"e{number}", payload={"n": 1}), us(number))
    (firing,) = engine.process(event("b", 9), us(9)).firings
    assert firing.total == 7
    assert [ref.id for ref in firing.refs] == ["e2", "e3", "e4", "e5", "b@9"]
