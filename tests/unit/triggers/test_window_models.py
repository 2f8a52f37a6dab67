"""Windows compared with models that keep everything and count by brute force."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trigger_samples import evaluator, event, reasons, run, take, us

from tests.examples import up_to
from whenthen.schemas.firings import Firing

thorough = up_to(300)
keys = st.sampled_from(["x", "y"])
gaps = st.sampled_from([0, 0.5, 1, 1, 2, 3, 5, 10])


@st.composite
def arrivals(draw: st.DrawFn, *, within: float, late: bool) -> list[tuple[float, float, str]]:
    """Clock, event time (behind by less than `within`), key."""
    clock = 0.0
    found = []
    for _ in range(draw(st.integers(1, 25))):
        clock += draw(gaps)
        lag = draw(st.sampled_from([0, 0, 0.25, 0.5, 0.75])) * within if late else 0.0
        found.append((clock, clock - lag, draw(keys)))
    return found


def fired_at(firing: Firing) -> tuple[str, list[str]]:
    return firing.key.get("k", ""), [ref.id for ref in firing.refs]


class SlidingModel:
    """Every unspent event of a key; a firing takes the earliest set of `threshold` that lies within one another."""

    def __init__(self, threshold: int, within: float, cooldown: float) -> None:
        self.threshold, self.within, self.cooldown = threshold, within, cooldown
        self.unspent: list[tuple[float, int, str]] = []
        self.quiet_until = -math.inf

    def take(self, at: float, number: int, name: str) -> list[str] | None:
        if at < self.quiet_until:
            return None
        new = (at, number, name)
        self.unspent.append(new)
        fitting = [
            sorted([new, *others])
            for others in combinations([each for each in self.unspent if each is not new], self.threshold - 1)
            if max([at, *(o[0] for o in others)]) - min([at, *(o[0] for o in others)]) < self.within
        ]
        if not fitting:
            return None
        fired = min(fitting)
        self.unspent = [each for each in self.unspent if each not in fired]
        if self.cooldown:
            self.quiet_until = fired[-1][0] + self.cooldown
            self.unspent = [each for each in self.unspent if not fired[-1][0] < each[0] < self.quiet_until]
        return [each[2] for each in fired]


@thorough
@given(st.data(), st.integers(1, 4), st.sampled_from([1, 4, 10]), st.sampled_from([None, 0, 1, 15]), st.booleans())
def test_sliding_windows_equal_a_brute_force_count(
    data: st.DataObject, threshold: int, within: float, cooldown: float | None, late: bool
) -> None:
    trigger: dict[str, Any] = {"expect": "a", "threshold": threshold, "within": within, "for_each": "k"}
    if cooldown is not None:
        trigger["cooldown"] = cooldown
    engine = evaluator(trigger)
    models: dict[str, SlidingModel] = {}
    for number, (clock, at, key) in enumerate(data.draw(arrivals(within=within, late=late))):
        each = event("a", at, id=f"e{number}", received=clock, labels={"k": key})
        firings = engine.process(each, us(clock)).firings
        model = models.setdefault(key, SlidingModel(threshold, within, within if cooldown is None else cooldown))
        expected = model.take(at, number, f"e{number}")
        assert [fired_at(firing) for firing in firings] == ([] if expected is None else [(key, expected)])


@thorough
@given(st.lists(st.tuples(gaps, st.sampled_from(["a", "c", "b"])), max_size=25), st.integers(1, 3))
def test_sliding_windows_with_after_equal_a_brute_force_count(steps: list[tuple[float, str]], threshold: int) -> None:
    """`c` opens, `a` counts, `b` does both; in order, so that a window is known when its events come."""
    within, cooldown = 4, 2
    engine = evaluator(
        {"expect": ["a", "b"], "after": ["c", "b"], "threshold": threshold, "within": within, "cooldown": cooldown}
    )
    openings: list[float] = []
    unspent: list[tuple[float, str]] = []
    quiet_until = -math.inf
    clock = 0.0
    for number, (gap, name) in enumerate(steps):
        clock += gap
        firings = engine.process(event(name, clock, id=f"e{number}"), us(clock)).firings
        expected: list[str] = []
        if name in ("a", "b") and clock >= quiet_until and any(o <= clock < o + within for o in openings):
            unspent.append((clock, f"e{number}"))
            for opened in sorted(set(openings)):
                inside = [each for each in unspent if opened <= each[0] < opened + within]
                if opened <= clock < opened + within and len(inside) >= threshold:
                    fired = inside[-threshold:]
                    expected = [each[1] for each in fired]
                    unspent = [each for each in unspent if each not in fired]
                    quiet_until = clock + cooldown
                    openings = [each for each in openings if each > clock]
                    break
        if name in ("c", "b"):
            openings.append(clock)
        assert [ref.id for firing in firings for ref in firing.refs] == expected


@thorough
@given(st.lists(st.tuples(gaps, keys), max_size=20), st.integers(1, 3), st.sampled_from([2, 6]))
def test_absence_without_after_equals_a_brute_force_look_at_every_moment(
    steps: list[tuple[float, str]], threshold: int, within: int
) -> None:
    """At half-second ticks: a key fires when fewer than `threshold` came in the last `within`, then starts again."""
    engine = evaluator(
        {"expect": "a", "posture": "proactive", "threshold": threshold, "within": within, "for_each": "k"}
    )
    times: dict[str, list[float]] = {}
    started: dict[str, float] = {}
    planned = []
    clock = 0.0
    for gap, key in steps:
        clock += gap
        planned.append((clock, key))
    end = clock + 3 * within
    moment = 0.0
    number = 0
    while moment <= end:
        expected = []
        for key in sorted(started):
            since = max(started[key], moment - within)
            inside = [at for at in times[key] if since <= at < moment]
            ends = [started[key] + within]
            if len(times[key]) >= threshold:
                ends.append(sorted(times[key])[-threshold] + within)
            if moment >= max(ends):
                expected.append(key)
                started[key] = moment
                times[key] = []
                assert len(inside) < threshold or max(ends) == moment
        found = [firing.key["k"] for firing in engine.advance(us(moment)).firings]
        assert sorted(found) == expected
        while number < len(planned) and planned[number][0] <= moment:
            at, key = planned[number]
            engine.process(event("a", at, id=f"e{number}", labels={"k": key}), us(moment))
            started.setdefault(key, at)
            times.setdefault(key, []).append(at)
            number += 1
        moment += 0.5


@thorough
@given(st.lists(st.tuples(gaps.filter(bool), st.sampled_from(["begin", "end"])), max_size=20), st.integers(1, 2))
def test_absence_with_after_equals_a_brute_force_count(steps: list[tuple[float, str]], threshold: int) -> None:
    within = 4
    engine = evaluator(
        {"expect": "end", "after": "begin", "posture": "proactive", "threshold": threshold, "within": within}
    )
    moments = []
    clock = 0.0
    for gap, name in steps:
        clock += gap
        moments.append((clock, name))
    found = [
        firing
        for firings, _ in run(engine, [(event(n, t, id=f"e{i}"), t) for i, (t, n) in enumerate(moments)])
        for firing in firings
    ]
    found += engine.advance(us(clock + 100)).firings
    opened: float | None = None
    count = 0
    expected = []
    for at, name in [*moments, (clock + 100, "")]:
        if opened is not None and at >= opened + within:
            expected.append(opened + within)
            opened = None
        if name == "begin" and opened is None:
            opened, count = at, 0
        elif name == "end" and opened is not None:
            count += 1
            if count >= threshold:
                opened = None
    assert [firing.at for firing in found] == [_text(at) for at in expected]


def _text(at: float) -> str:
    return event("t", at).data["occurred"]  # type: ignore[no-any-return]


@thorough
@given(
    st.lists(st.tuples(gaps, keys), max_size=25),
    st.integers(1, 4),
    st.sampled_from([2, 6]),
    st.sampled_from([None, 1, 3]),
)
def test_bursts_equal_a_brute_force_grouping(
    steps: list[tuple[float, str]], events: int, wait: float, quiet: float | None
) -> None:
    collect: dict[str, Any] = {"events": events, "wait": wait}
    if quiet is not None:
        collect["quiet"] = quiet
    engine = evaluator({"expect": "a", "collect": collect, "for_each": "k"})
    clock = 0.0
    found: list[tuple[str, list[str]]] = []
    bursts: dict[str, list[tuple[float, str]]] = {}
    expected: list[tuple[str, list[str]]] = []

    def end_bursts(now: float) -> None:
        for key, burst in list(bursts.items()):
            ends = burst[0][0] + wait
            if quiet is not None:
                ends = min(ends, burst[-1][0] + quiet)
            if ends <= now:
                expected.append((key, [name for _, name in burst]))
                del bursts[key]

    for number, (gap, key) in enumerate(steps):
        clock += gap
        name = f"e{number}"
        found += map(fired_at, engine.process(event("a", clock, id=name, labels={"k": key}), us(clock)).firings)
        end_bursts(clock)
        bursts.setdefault(key, []).append((clock, name))
        if len(bursts[key]) >= events:
            expected.append((key, [name for _, name in bursts.pop(key)]))
    found += map(fired_at, engine.advance(us(clock + 100)).firings)
    end_bursts(clock + 100)
    assert sorted(found) == sorted(expected)


def aggregate(kind: str, values: list[float]) -> float | None:
    if kind in ("count", "distinct", "sum"):
        return {"count": len(values), "distinct": len(set(values)), "sum": sum(values)}[kind]
    if not values:
        return None
    if kind == "avg":
        return sum(values) / len(values)
    if kind in ("min", "max"):
        return {"min": min, "max": max}[kind](values)
    rank = int(kind[1:])
    return next(v for v in sorted(values) if 100 * sum(other <= v for other in values) >= rank * len(values))


@thorough
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 5), st.integers(0, 3)), max_size=20),
    st.sampled_from(["count", "sum", "avg", "min", "max", "distinct", "p50", "p75", "p90", "p99"]),
    st.sampled_from([">", ">=", "<", "<=", "==", "!="]),
    st.integers(-1, 4),
    st.sampled_from([0, 2]),
)
def test_metrics_equal_a_brute_force_aggregate_at_every_moment(
    steps: list[tuple[int, int, int]], kind: str, operator: str, threshold: int, hold: int
) -> None:
    """Whole seconds; each event may be up to three seconds late in a window of four."""
    assume(kind not in ("count", "distinct") or threshold > 0 or operator in (">", ">=", "!="))  # others never hold
    within = 4
    engine = evaluator(
        {
            "type": "metric",
            "expect": "a",
            "aggregate": kind,
            "value": "$.payload.n",
            "operator": operator,
            "threshold": threshold,
            "within": within,
            "for": hold,
        }
    )
    engine.advance(us(0))
    known: list[tuple[float, int]] = []
    triggered, since = False, None
    warms_up = kind in ("count", "sum", "distinct") and operator not in (">", ">=")

    def look(now: float) -> str | None:
        nonlocal triggered, since
        if not warms_up and not known:
            return None  # nothing is watched before the first event
        number = aggregate(kind, [value for at, value in known if now - within < at])
        holds = number is not None and eval(f"{number!r} {operator} {threshold}") and (now >= within or not warms_up)
        if not holds:
            since = None
            if triggered:
                triggered = False
                return "Resolved"
            return None
        since = now if since is None else since
        if not triggered and now - since >= hold:
            triggered = True
            return "Triggered"
        return None

    clock = 0
    found: list[tuple[str, float]] = []
    expected: list[tuple[str, float]] = []
    moment = 0
    for number, (gap, value, lag) in enumerate([*steps, (20, 0, -1)]):
        clock += gap
        while moment < clock:
            moment += 1
            if state := look(moment):
                expected.append((state, moment))
        if lag < 0:
            found += [(firing.state.value, seconds(firing.at)) for firing in engine.advance(us(clock)).firings]
            break
        each = event("a", clock - lag, id=f"e{number}", received=clock, payload={"n": value})
        found += [(firing.state.value, seconds(firing.at)) for firing in engine.process(each, us(clock)).firings]
        known.append((clock - lag, value))
        if state := look(clock):
            expected.append((state, clock))
    assert found == expected


def seconds(text: str) -> float:
    return (event("t", 0).occurred.fromisoformat(text) - event("t", 0).occurred).total_seconds()


class CompositeModel:
    """The latest firing of each part, as a list that is scanned for every answer."""

    def __init__(self, needed: int, parts: int, ordered: bool, within: float | None) -> None:
        self.needed, self.parts, self.ordered, self.within = needed, parts, ordered, within
        self.log: list[tuple[float, int, str]] = []

    def take(self, at: float, part: int, name: str) -> list[str] | None:
        self.log.append((at, part, name))
        latest: dict[int, tuple[float, int, str]] = {}
        for order, (when, which, event_id) in enumerate(self.log):
            if self.within is None or when >= at - self.within:
                latest[which] = (when, order, event_id)
        chosen = sorted((when, order, which, event_id) for which, (when, order, event_id) in latest.items())
        if len(chosen) < self.needed or (self.ordered and [each[2] for each in chosen] != list(range(self.parts))):
            return None
        self.log = []
        return [each[3] for each in chosen]


@thorough
@given(
    st.lists(st.tuples(gaps, st.sampled_from("abc"), keys), max_size=30),
    st.sampled_from(["sequence", "all", "any", 2]),
    st.sampled_from([None, 3]),
    st.booleans(),
)
def test_composites_equal_a_naive_model(
    steps: list[tuple[float, str, str]], kind: str | int, within: float | None, correlated: bool
) -> None:
    trigger: dict[str, Any] = {"triggers": [{"expect": name} for name in "abc"]}
    trigger |= {"type": "sequence"} if kind == "sequence" else {"type": "compound", "require": kind}
    if within is not None:
        trigger["within"] = within
    if correlated:
        trigger["correlate"] = "k"
    engine = evaluator(trigger)
    needed = {"sequence": 3, "all": 3, "any": 1}.get(str(kind), 2)
    models: dict[str, CompositeModel] = {}
    clock = 0.0
    for number, (gap, name, key) in enumerate(steps):
        clock += gap
        firings = engine.process(event(name, clock, id=f"e{number}", labels={"k": key}), us(clock)).firings
        group = key if correlated else ""
        model = models.setdefault(group, CompositeModel(needed, 3, kind == "sequence", within))
        expected = model.take(clock, "abc".index(name), f"e{number}")
        assert [fired_at(firing) for firing in firings] == ([] if expected is None else [(group, expected)])


@pytest.mark.parametrize("parts", [["a", "b"], ["b", "a"]])
def test_one_event_for_two_parts_of_a_sequence_fires_it_in_the_written_order(parts: list[str]) -> None:
    triggers = [{"expect": "*", "match": {"k": "*"}}, {"expect": parts, "after": "*", "within": 5}]
    engine = evaluator({"type": "sequence", "triggers": triggers})
    first = take(engine, event("c", 0, labels={"k": "1"}))
    (outcome,) = take(engine, event("a", 1, labels={"k": "1"}))
    assert not first[0].firings
    assert [ref.id for ref in outcome.firings[0].refs] == ["a@1"]
    assert "fired" in reasons([outcome])
