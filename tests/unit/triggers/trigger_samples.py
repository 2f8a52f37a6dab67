"""Events, runs and random rules for the tests of the evaluator."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from whenthen.schemas.automations import Automation
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Decision, Firing
from whenthen.schemas.times import format_time
from whenthen.triggers.evaluator import Evaluation, Evaluator
from whenthen.triggers.rule_set import RuleSet

START = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
START_US = 1_769_846_400_000_000
SECOND = 1_000_000

#: one step of a run: an event that arrives, or None for a tick; and the clock in seconds after START
Stimulus = tuple[Event | None, float]


def us(seconds: float) -> int:
    return START_US + round(seconds * SECOND)


def event(
    name: str = "a",
    at: float = 0,
    *,
    id: str | None = None,
    received: float | None = None,
    labels: dict[str, str] | None = None,
    related: list[dict[str, str]] | None = None,
    payload: Any = None,
    follows: str | None = None,
    depth: int | None = None,
    seq: int = 0,
) -> Event:
    """An event `at` seconds after START, received then or later."""
    arrived = at if received is None else received
    data: dict[str, Any] = {
        "id": id or f"{name}@{at:g}",
        "event": name,
        "occurred": format_time(START + timedelta(seconds=at)),
        "received": format_time(START + timedelta(seconds=arrived)),
        "source": "test",
        "resource": {"id": "r", **(labels or {})},
        "related": related or [],
        "payload": {} if payload is None else payload,
        "follows": follows,
    }
    if depth is not None:
        data["lineage"] = {"depth": depth, "firing": "f", "automations": ["other"]}
    return Event(data, seq)


def rule(trigger: dict[str, Any], name: str = "rule", **more: Any) -> Automation:
    return Automation.model_validate({"name": name, "trigger": trigger, **more})


def evaluator(*triggers: dict[str, Any] | Automation, **options: Any) -> Evaluator:
    automations = [
        trigger if isinstance(trigger, Automation) else rule(trigger, f"rule{number}")
        for number, trigger in enumerate(triggers)
    ]
    return Evaluator(RuleSet.compile(automations), **options)


def take(engine: Evaluator, *events: Event) -> list[Evaluation]:
    """Each event at the time at which it was received."""
    return [engine.process(each, received_us(each)) for each in events]


def received_us(each: Event) -> int:
    moment = datetime.fromisoformat(each.data["received"])
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def reasons(outcomes: Iterable[Evaluation]) -> list[str]:
    return [decision.reason.value for outcome in outcomes for decision in outcome.decisions]


def run(engine: Evaluator, stimuli: Iterable[Stimulus]) -> list[tuple[list[Firing], list[Decision]]]:
    """What each stimulus led to."""
    results = []
    for each, clock in stimuli:
        outcome = engine.advance(us(clock)) if each is None else engine.process(each, us(clock))
        results.append((outcome.firings, outcome.decisions))
    return results


# -- random rules and events

NAMES = ("a", "b", "c", "a.b")
KEYS = ("x", "y", "[1]", "")
durations = st.sampled_from([1, 2, 5, 8])

filters = st.fixed_dictionaries(
    {"expect": st.sampled_from(["a", "b", "c", "a*", "*", ["a", "b"], ["c", "a.?"]])},
    optional={
        "match": st.sampled_from([{"k": "x"}, {"k": ["x", "y"]}, {"k": "!x"}, {"k": "*"}]),
        "when": st.sampled_from(
            [
                "event.payload.n > 1",
                "event.payload.n == 1",
                "event.payload.n in [1, 2]",
                "event.payload.missing",
                'event.resource.k == "x"',
            ]
        ),
        "let": st.sampled_from(
            [
                {"k": "event.payload.n"},
                {"k": 'event.resource.?k.orValue("y")', "m": "event.resource.k"},
                {"k": 'event.payload.n == 1 ? "x" : event.resource.m', "m": '["x", "y"][event.payload.n - 1]'},
                {"k": 'now.getSeconds() % 2 == 0 ? "x" : "y"'},
            ]
        ),
    },
)
keyed = st.sampled_from(
    [
        {},
        {"for_each": "k"},
        {"for_each": ["k", "$.payload.n"]},
        {"for_each": {"path": "k", "default": "x"}},
        {"for_each": [{"path": "$.payload.n", "default": 1}, "k"]},
    ]
)


@st.composite
def event_triggers(draw: st.DrawFn, *, root: bool = True) -> dict[str, Any]:
    trigger: dict[str, Any] = {**draw(filters), **draw(keyed)}
    kind = draw(st.sampled_from(["every", "sliding", "tumbling", "absence", "absence_after", "collect", "after"]))
    if kind != "every":
        trigger["within"] = draw(durations)
    if kind in ("sliding", "tumbling", "after"):
        trigger["threshold"] = draw(st.integers(1, 3))
    if kind in ("sliding", "after", "absence", "absence_after"):
        cooldown = draw(st.sampled_from([None, 0, 1, 7]))
        if cooldown is not None:
            trigger["cooldown"] = cooldown
    if kind == "tumbling":
        trigger["window"] = "tumbling"
        trigger["posture"] = draw(st.sampled_from(["reactive", "proactive"]))
    if kind.startswith("absence"):
        trigger["posture"] = "proactive"
        trigger["threshold"] = draw(st.integers(1, 2))
    if kind in ("after", "absence_after"):
        trigger["after"] = draw(st.sampled_from(["a", "c", "*"]))
    if kind == "collect":
        del trigger["within"]
        trigger["collect"] = draw(
            st.fixed_dictionaries({"events": st.integers(1, 4), "wait": durations}, optional={"quiet": durations})
        )
    if root and draw(st.booleans()):
        trigger["resolve_on"] = draw(st.sampled_from(["c", "a.b"]))
    return trigger


metrics = st.fixed_dictionaries(
    {
        "type": st.just("metric"),
        "expect": st.sampled_from(["a", "*"]),
        "aggregate": st.sampled_from(["count", "sum", "avg", "min", "max", "distinct", "p50", "p90"]),
        "value": st.just("$.payload.n"),
        "operator": st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        "threshold": st.integers(0, 3),
        "within": durations,
    },
    optional={"for": durations, "for_each": st.just("k")},
).filter(lambda drawn: not (drawn["operator"] == "<" and drawn["threshold"] == 0))  # never holds, of a count
schedules = st.fixed_dictionaries({"type": st.just("schedule"), "interval": durations})


def composites(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.fixed_dictionaries(
            {
                "type": st.just("compound"),
                "triggers": st.lists(parts, min_size=2, max_size=3),
                "require": st.sampled_from(["any", "all", 2]),
            },
            optional={"within": durations},
        ),
        st.fixed_dictionaries(
            {"type": st.just("sequence"), "triggers": st.lists(parts, min_size=2, max_size=3)},
            optional={"within": durations},
        ),
    )


leaves = st.one_of(event_triggers(root=False), event_triggers(root=False), metrics)
uncorrelated = st.recursive(st.one_of(leaves, schedules), composites, max_leaves=4).filter(lambda t: "triggers" in t)
unkeyed = leaves.map(lambda t: {name: value for name, value in t.items() if name != "for_each"})
correlated = st.one_of(
    composites(leaves.filter(lambda t: "default" not in str(t.get("for_each")))).map(
        lambda t: {**t, "correlate": ["k"]}
    ),
    composites(unkeyed).map(
        lambda t: {**t, "correlate": [{"path": "k", "default": "x"}], "let": {"k": "event.payload.n"}}
    ),
)
triggers = st.one_of(event_triggers(), event_triggers(), metrics, schedules, uncorrelated, correlated)
rule_sets = st.lists(triggers, min_size=1, max_size=4).map(
    lambda drawn: [rule(each, f"rule{number}") for number, each in enumerate(drawn)]
)


@st.composite
def streams(draw: st.DrawFn, *, max_size: int = 20, follows: bool = False) -> list[Stimulus]:
    """Events and ticks; the clock never goes back, events may be late."""
    clock = 0.0
    stimuli: list[Stimulus] = []
    for number in range(draw(st.integers(1, max_size))):
        clock += draw(st.sampled_from([0, 0, 0.5, 1, 1, 2, 5, 11, 25]))
        if draw(st.integers(0, 6)) == 0:
            stimuli.append((None, clock))
            continue
        lag = draw(st.sampled_from([0, 0, 0, 0.5, 1, 3, 9]))
        labels = {} if draw(st.integers(0, 8)) == 0 else {"k": draw(st.sampled_from(KEYS))}
        leader = f"e{draw(st.integers(0, max_size))}" if follows and draw(st.booleans()) else None
        each = event(
            draw(st.sampled_from(NAMES)),
            clock - lag,
            id=f"e{number}",
            received=clock,
            labels=labels,
            payload=draw(st.sampled_from([{}, {"n": 1}, {"n": 1.0}, {"n": 2}, {"n": "text"}, {"n": True}, {"n": 5}])),
            follows=leader,
            seq=number + 1,
        )
        stimuli.append((each, clock))
    return stimuli
