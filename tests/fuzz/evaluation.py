"""The target for the evaluator: rules and a stream of events drawn from bytes.

Whatever the rules: no error, the same firings each time, no id twice, and a run that is stored and restored between two events
ends like one that is not.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from pydantic import ValidationError

from fuzz.draws import Draws
from whenthen.schemas.automations import Automation
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Firing
from whenthen.schemas.times import format_time
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.rule_set import RuleSet

__all__ = ["evaluator"]

START = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
START_US = 1_769_846_400_000_000
NAMES = ("a", "b", "c", "a.b", "beat")
GLOBS: tuple[Any, ...] = ("a", "b", "a*", "*", "a.?", "!a", "[ab]", ["a", "b"], ["!a", "b"], "a.b")
MATCHES: tuple[Any, ...] = ({"k": "x"}, {"k": ["x", "y"]}, {"k": "!x"}, {"k": "*"}, {"k": ""}, {"j": "a*"}, {"id": "r"})
CONDITIONS = (
    "event.payload.n > 1",
    "event.payload.n == 1 && event.resource.k == 'x'",
    "event.payload.n in [1, 2]",
    "has(event.payload.list) && event.payload.list.exists(x, x > 1)",
    "event.payload.missing",
    "event.occurred < event.received",
    "event.payload.n / 0 == 1 || true",
    "size(event.related) > 0",
)
KEYS: tuple[Any, ...] = (
    "k",
    ["k", "$.payload.n"],
    "$.payload",
    "related:role:id",
    "$.payload.list[*]",
    "id",
    "$.occurred",
)
SPANS: tuple[Any, ...] = (1, 2, 5, 60, "1us", "1ms", "1h", "1d", "3653d", 0, 0.5)
PACES = (0, 0, 0.000001, 0.5, 1, 1, 2, 5, 11, 25, 61, 3600, 86_400, 31_536_000, 3 * 31_536_000)
LEAP = timedelta(days=1)


def _filter(draws: Draws) -> dict[str, Any]:
    found: dict[str, Any] = {"expect": draws.pick(GLOBS)}
    if draws.one_in(3):
        found["match"] = draws.pick(MATCHES)
    if draws.one_in(5):
        found["match_related"] = draws.pick(({"role": "role"}, [{"id": "a*"}, {"role": "!x"}]))
    if draws.one_in(3):
        found["when"] = draws.pick(CONDITIONS)
    return found


def _event_trigger(draws: Draws, root: bool) -> dict[str, Any]:
    trigger = _filter(draws)
    if draws.one_in(2):
        trigger["for_each"] = draws.pick(KEYS)
    kind = draws.pick(("every", "sliding", "tumbling", "absence", "absence_after", "collect", "after"))
    if kind not in ("every", "collect"):
        trigger["within"] = draws.pick(SPANS)
    if kind in ("sliding", "tumbling", "after"):
        trigger["threshold"] = draws.number(1, 4)
    if kind in ("sliding", "after", "absence", "absence_after") and draws.one_in(2):
        trigger["cooldown"] = draws.pick(SPANS)
    if kind == "tumbling":
        trigger["window"] = "tumbling"
        trigger["posture"] = draws.pick(("reactive", "proactive"))
    if kind.startswith("absence"):
        trigger["posture"] = "proactive"
        trigger["threshold"] = draws.number(1, 3)
    if kind in ("after", "absence_after"):
        trigger["after"] = draws.pick(GLOBS)
    if kind == "collect":
        trigger["collect"] = {"events": draws.number(1, 4), "wait": draws.pick(SPANS)}
        if draws.one_in(2):
            trigger["collect"]["quiet"] = draws.pick(SPANS)
    if trigger.get("posture") == "proactive" and trigger["within"] in ("1us", "1ms", 0.5):
        trigger["within"] = 5  # checked so often that one input would take seconds
    if root and draws.one_in(3):
        trigger["resolve_on"] = draws.pick(GLOBS)
    return trigger


def _trigger(draws: Draws, depth: int = 2) -> dict[str, Any]:
    kind = draws.byte() % (8 if depth else 5)
    if kind in (0, 1, 2):
        return _event_trigger(draws, depth == 2)
    if kind == 3:
        metric = {
            "type": "metric",
            "expect": draws.pick(GLOBS),
            "aggregate": draws.pick(("count", "sum", "avg", "min", "max", "distinct", "p50", "p90")),
            "value": draws.pick(("$.payload.n", "$.payload", "$.payload.list[*]", "$.id")),
            "operator": draws.pick(("<", "<=", ">", ">=", "==", "!=")),
            "threshold": draws.pick((0, 1, 2, 0.5, 1e308, -1)),
            "within": draws.pick(SPANS),
        }
        if draws.one_in(2):
            metric["for"] = draws.pick(SPANS)
        if draws.one_in(2):
            metric["for_each"] = draws.pick(KEYS)
        return metric
    if kind == 4:
        if draws.one_in(2):
            zone = draws.pick(("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"))
            return {"type": "schedule", "cron": draws.pick(("* * * * *", "30 2 * * *", "0 0 29 2 *", "0 0 31 12 0")),
                    "timezone": zone}  # fmt: skip
        return {"type": "schedule", "interval": draws.pick(SPANS)}
    parts = [_trigger(draws, depth - 1) for _ in range(draws.number(1, 3))]
    composite: dict[str, Any] = {"type": draws.pick(("compound", "sequence")), "triggers": parts}
    if composite["type"] == "compound":
        composite["require"] = draws.pick(("any", "all", 1, 2, 3))
    if draws.one_in(2):
        composite["within"] = draws.pick(SPANS)
    if draws.one_in(3):
        composite["correlate"] = draws.pick((["k"], ["$.payload.n"], ["k", "related:role:id"]))
    return composite


def _automations(draws: Draws) -> list[Automation]:
    """Those of some drawn rules that the loader takes."""
    taken = []
    for number in range(draws.number(1, 4)):
        trigger = _trigger(draws)
        try:
            automation = Automation.model_validate({"name": f"rule{number}", "trigger": trigger})
            RuleSet.compile([automation])
        except (ValidationError, InvalidInput):
            continue
        taken.append(automation)
    return taken


def _stream(draws: Draws) -> list[tuple[Event | None, int]]:
    """Events, late ones too, and ticks; with the clock, which never goes back."""
    stimuli: list[tuple[Event | None, int]] = []
    clock = timedelta(0)
    leapt = False
    while draws.left and len(stimuli) < 24:
        pace = timedelta(seconds=draws.pick(PACES))
        if pace >= LEAP:  # one is enough: a tick of each second of many years takes its time
            pace, leapt = (timedelta(seconds=61) if leapt else pace), True
        clock += pace
        now_us = START_US + clock // timedelta(microseconds=1)
        if draws.one_in(6):
            stimuli.append((None, now_us))
            continue
        lag = timedelta(seconds=draws.pick((0, 0, 0, 0.5, 1, 3, 9, 3600, 10_000_000)))
        payload = draws.json(3) if draws.one_in(3) else {"n": draws.pick((1, 1.0, 2, 5, "1", True, None, 2**53, -0.0))}
        data: dict[str, Any] = {
            "id": f"e{len(stimuli)}",
            "event": draws.pick(NAMES),
            "occurred": format_time(START + clock - lag),
            "received": format_time(START + clock),
            "source": "fuzz",
            "resource": {"id": draws.pick(("r", "s")), **({} if draws.one_in(5) else {"k": draws.text()})},
            "related": [{"id": draws.text() or "i", "role": "role"}] if draws.one_in(3) else [],
            "payload": {} if payload is None else payload,
            "follows": f"e{draws.number(0, 24)}" if draws.one_in(5) else None,
        }
        if draws.one_in(6):
            depth = draws.number(0, 9)
            data["lineage"] = {"depth": depth, "firing": "f", "automations": ["rule0"]}
        stimuli.append((Event(orjson.loads(orjson.dumps(data)), len(stimuli) + 1), now_us))
    return stimuli


class _Run:
    """An evaluator whose windows are kept, as a shard's are, and that can be replaced by one restored from them."""

    def __init__(self, automations: list[Automation], wait: timedelta) -> None:
        self._automations = automations
        self._wait = wait
        self._engine = self._new()
        self._kept: dict[tuple[str, str], bytes] = {}

    def _new(self) -> Evaluator:
        return Evaluator(RuleSet.compile(self._automations), follows_wait=self._wait)

    def step(self, event: Event | None, now_us: int) -> tuple[list[Firing], Any]:
        outcome = self._engine.advance(now_us) if event is None else self._engine.process(event, now_us)
        for trigger, key, state in self._engine.drain():
            if state is None:
                self._kept.pop((trigger, key), None)
            else:
                self._kept[(trigger, key)] = state
        deadline = self._engine.next_deadline_us()
        assert deadline is None or deadline >= 0
        return outcome.firings, outcome.decisions

    def restart(self) -> None:
        before, self._engine = self._engine, self._new()
        self._engine.clock_us = before.clock_us
        for (trigger, key), state in self._kept.items():
            assert self._engine.restore(trigger, key, state), f"{trigger} is not known"
        # which ids were decided lately is read from the stream again, with the times
        self._engine._predecessors._seen.update(before._predecessors._seen)


def evaluator(data: bytes) -> None:
    """Rules and events: see the module."""
    draws = Draws(data)
    wait = timedelta(seconds=draws.pick((0, 4, 900)))
    cut = draws.number(0, 24)
    automations = _automations(draws)
    stimuli = _stream(draws)
    if not automations:
        return
    whole = _Run(automations, wait)
    first = [whole.step(*each) for each in stimuli]
    ids = [firing.id for firings, _ in first for firing in firings]
    assert len(ids) == len(set(ids)), "two firings share an id"
    for firings, _ in first:
        orjson.dumps(firings)
    again = _Run(automations, wait)
    second = []
    for number, each in enumerate(stimuli):
        if number == cut or cut == 24:
            again.restart()
        second.append(again.step(*each))
    assert first == second, "a restart changed what was decided"
