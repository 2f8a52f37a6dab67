"""Replays events through rules in virtual time: the server's evaluator, without a server. Pure.

A line is an event, `{"tick": "<RFC 3339>"}`, `{"rules": 3, "at": "<RFC 3339>"}`, from which on other rules hold, `{"pause": {"automation": "x", "paused": true}, "at": "<RFC 3339>"}`, from which on an automation is paused or is not,
or `{"skip": {...}}`, a message of `EVENTS` by which the server said that one of its shards
passed over an event; such lines come later than their event, so they are collected before (`skips_of`). The clock is the latest time that any line named, so it never goes back; deadlines
that it passes come before the event that moved it. Of an event that a server stored, this is `stored`, the time of its stream, else `received`. Nothing depends on the wall clock, and an event without id gets one from
its line, so one input always has one output.

Called by `whenthen replay` and `rules.replay_diff`. Meaning: docs/testing.md.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import orjson

from whenthen.rules.prefect_import.prefect_events import prefect_event
from whenthen.schemas.automations import Automation, PauseChange
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.events import Event, EventLimits, read_event
from whenthen.schemas.firings import Decision, Firing
from whenthen.schemas.times import (
    format_time,
    from_us,
    parse_time,
    to_us,
)
from whenthen.schemas.trace_context import valid_trace
from whenthen.sources import event_of_cloudevent, is_cloudevent, trace_of_cloudevent
from whenthen.triggers import CompiledAutomation, Evaluation, Evaluator, RuleSet, shard_of

__all__ = ["FORMATS", "ReplayRun", "RuleSource", "Skipped", "end_of", "printed_firing", "replay", "skips_of"]

FORMATS = ("native", "cloudevents", "prefect")
_LONGEST_JUMP = timedelta(days=3653)
_LAST_YEAR = 2500
_MOST_SHARDS = 256
#: fields of a marker as the server stores it; a line that a person writes is {"rules": number, "at": time}
_STORED_MARKER = {"revision", "digest"}
#: what a stored event has beside what is written by hand
_STORED = ("received", "source", "lineage", "trace", "seq", "stored")
#: of Prefect's, which its triggers never see
_UNSEEN = "prefect.log.write"


class RuleSource(Protocol):
    """Anything that has automations: a loaded set of rules."""

    @property
    def automations(self) -> Iterable[Automation]: ...


class _Kind:
    """How the lines of one format are read, and what the system behind them does with events."""

    def __init__(self, name: str) -> None:
        prefect = name == "prefect"
        self.name = name
        self.limits = EventLimits(name_chars=1024, labels=512) if prefect else EventLimits()
        #: how long an event waits for the one that it follows
        self.follows_wait = timedelta(minutes=15) if prefect else timedelta(minutes=2)
        #: within what span an id that comes again is the same event
        self.same_us = (30 if prefect else 2) * 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class Skipped:
    """An event that one of `shards` shards passed over."""

    event: str  #: its id
    shard: int
    shards: int


def skips_of(lines: Iterable[bytes | str]) -> list[Skipped]:
    """The skips among the lines, for `replay`.

    Raises:
        InvalidInput: a skip lacks what it is to say; the message starts with the number of its line.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        text = line if isinstance(line, bytes) else line.encode(errors="surrogatepass")
        if b'"skip"' not in text:
            continue
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError:
            continue  # `replay` says so
        if not _is_skip(data):
            continue
        fields = data["skip"]
        event, shard, shards = (fields.get(name) for name in ("event", "shard", "shards"))
        if not isinstance(shard, int) or not isinstance(shards, int) or not 0 <= shard < shards <= _MOST_SHARDS:
            raise InvalidInput(
                f"line {number}: a skip has a shard from 0 and the number of shards, up to {_MOST_SHARDS}"
            )
        if event is not None:  # else a tick, which only moves the clock
            found.append(Skipped(str(event), shard, shards))
    if len({skip.shards for skip in found}) > 1:
        raise InvalidInput(
            "the skips are of servers with different numbers of shards; replay one server's events at a time"
        )
    return found


def _is_skip(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("skip"), dict) and "event" not in data


def replay(
    rules: RuleSource | Sequence[Automation],
    lines: Iterable[bytes | str],
    *,
    until: str | datetime | None = None,
    format: str = "native",
    decisions: bool = False,
    skips: Sequence[Skipped] = (),
    revisions: Mapping[int, RuleSource] | None = None,
    markers: bool = True,
) -> Iterator[dict[str, Any]]:
    """Firings, and with `decisions` also every decision, as JSON-like mappings in the order in which they happen.

    `until` moves the clock on after the last line. `skips` are events that automations of some shards did not see. `revisions` are the
    rules that lines may put in force, by number; one of a lower number than that in force changes nothing. Without `markers` such lines
    only move the clock.

    Raises:
        InvalidInput: a line is no event and no tick, or its time is out of range; the message starts with its number.
    """
    end = end_of(until)
    automations: Iterable[Automation] = getattr(rules, "automations", None) or ()
    if isinstance(rules, (list, tuple)):
        automations = rules
    run = ReplayRun(
        automations,
        format,
        decisions=decisions,
        skips=skips,
        revisions=(revisions or {}) if markers else None,
        digest=getattr(rules, "revision", ""),
    )
    return _all(run, lines, end)


def _all(run: ReplayRun, lines: Iterable[bytes | str], end: datetime | None) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        for outcome in run.step(number, line):
            yield from _printed(outcome)
    for outcome in run.go_on_to(end):
        yield from _printed(outcome)


class ReplayRun:
    """One set of rules, line by line. `revisions` are as in `replay`; None passes over markers.

    Held are the windows of the rules and the ids of the last minutes, however many lines come.
    """

    def __init__(
        self,
        automations: Iterable[Automation],
        format: str = "native",
        *,
        decisions: bool,
        skips: Sequence[Skipped] = (),
        revisions: Mapping[int, RuleSource] | None = None,
        digest: str = "",
    ) -> None:
        if format not in FORMATS:
            raise InvalidInput(f"format {format!r} is not known; it is one of {', '.join(FORMATS)}")
        kind = _Kind(format)
        self.event: Event | None = None  #: of the last line, if it was one
        self._digest = digest  #: of the files of the rules that are in force first
        self._revisions = revisions
        self._number = 0  #: the revision in force; 0 before the first
        self._kind = kind
        #: by id of an event, the shards that passed it over
        self._skips: dict[str, set[int]] = {}
        for skip in skips:
            self._skips.setdefault(skip.event, set()).add(skip.shard)
        # as on the server, where the shards matter; one for all where they make no difference
        self._shards = skips[0].shards if skips else 1
        self._evaluators = [
            Evaluator(part, follows_wait=kind.follows_wait, record=decisions) for part in self._parts(automations)
        ]
        self._clock_us = 0
        self._seen: OrderedDict[str, int] = OrderedDict()  #: id to when it was decided, oldest first

    @property
    def clock_us(self) -> int:
        return self._clock_us

    def step(self, number: int, line: bytes | str) -> list[Evaluation]:
        """Take the line with this number, from 1.

        Raises:
            InvalidInput: see `replay`.
        """
        self.event = None
        if not line.strip():
            return []
        try:
            return self._line(number, line)
        except InvalidInput as error:
            raise InvalidInput(f"line {number}: {error}") from None

    def go_on_to(self, end: datetime | None) -> list[Evaluation]:
        """Move the clock on after the last line."""
        self.event = None
        if end is None or to_us(end) <= self._clock_us:
            return []
        self._move(end)
        return self._advance()

    def automation(self, name: str) -> CompiledAutomation | None:
        """An automation as it is in force."""
        return next(
            (found for each in self._evaluators if (found := each.rules.automations.get(name)) is not None), None
        )

    def _parts(self, automations: Iterable[Automation]) -> list[RuleSet]:
        parts: list[list[Automation]] = [[] for _ in range(self._shards)]
        for automation in automations:
            parts[shard_of(automation.name, self._shards)].append(automation)
        return [RuleSet.compile(part) for part in parts]

    def _advance(self) -> list[Evaluation]:
        return [evaluator.advance(self._clock_us) for evaluator in self._evaluators]

    def _line(self, number: int, line: bytes | str) -> list[Evaluation]:
        try:
            data = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"not JSON: {error}; a line is one event or one tick") from None
        if isinstance(data, dict) and "tick" in data and "event" not in data:
            self._move(_time("tick", data["tick"]))
            return self._advance()
        if _is_skip(data):
            return []
        if isinstance(data, dict) and "pause" in data and "event" not in data:
            return self._pause(data)
        if isinstance(data, dict) and "event" not in data:
            if "rules" in data:
                return self._marker(data)
            if data.keys() == _STORED_MARKER:
                if self._revisions is None or (
                    data["digest"] == self._digest and data["revision"] not in self._revisions
                ):
                    return self._advance()  # of the very rules that the replay was given
                return self._marker({"rules": data["revision"]})
        event = self.event = self._event(number, data)
        if self._kind.name == "prefect" and event.name == _UNSEEN:
            return self._advance()
        now_us = self._clock_us
        before = self._seen.get(event.id)
        if before is not None and now_us - before < self._kind.same_us:
            return self._advance()
        passed_over = self._skips.get(event.id, ())
        outcomes = [
            evaluator.process(event, now_us)
            for shard, evaluator in enumerate(self._evaluators)
            if shard not in passed_over
        ]
        if not any(evaluator.holds(event.id) for evaluator in self._evaluators):
            self._note(event.id)
        return outcomes

    def _marker(self, data: dict[str, Any]) -> list[Evaluation]:
        """Put other rules in force. What is due before is decided by the ones so far."""
        number = data["rules"]
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise InvalidInput("the number of a revision, from 1", path=("rules",))
        if data.get("at") is not None:
            self._move(_time("at", data["at"]))
        outcomes = self._advance()
        if self._revisions is not None and number > self._number:
            if number not in self._revisions:
                raise InvalidInput(
                    f"the rules of revision {number} are not given; add --revision-rules {number}=PATH", path=("rules",)
                )
            self._number = number
            parts = self._parts(self._revisions[number].automations)
            for evaluator, part in zip(self._evaluators, parts, strict=True):
                evaluator.replace_rules(part)
        return outcomes

    def _pause(self, data: dict[str, Any]) -> list[Evaluation]:
        """Pause or resume an automation. What is due before is decided as it stood."""
        try:
            change = PauseChange.of(data["pause"])
        except ValueError as error:
            raise InvalidInput(str(error), path=("pause",)) from None
        if data.get("at") is not None:
            self._move(_time("at", data["at"]))
        outcomes = self._advance()
        for evaluator in self._evaluators:
            evaluator.take_pause(change)
        return outcomes

    def _note(self, event_id: str) -> None:
        seen = self._seen
        seen.pop(event_id, None)
        seen[event_id] = self._clock_us
        horizon = self._clock_us - self._kind.same_us
        while seen[next(iter(seen))] <= horizon:
            seen.popitem(last=False)

    def _event(self, number: int, data: Any) -> Event:
        data, stored = self._native(data)
        if isinstance(data, dict) and data.get("id") is None:
            text = orjson.dumps([number, data], option=orjson.OPT_SORT_KEYS)
            data = {**data, "id": "line-" + hashlib.blake2b(text, digest_size=12).hexdigest()}
        received = stored.get("received")
        came = _time("received", received) if received is not None else None
        if stored.get("stored") is not None:
            self._move(_time("stored", stored["stored"]))
        elif came is not None:
            self._move(came)
        elif isinstance(data, dict) and data.get("occurred") is not None:
            self._move(_time("occurred", data["occurred"]))
        elif not self._clock_us:
            raise InvalidInput(
                "missing, and no line before it gave a time; add it, or begin with a tick", path=("occurred",)
            )
        now = from_us(self._clock_us)
        lineage = stored.get("lineage")
        event = read_event(
            data,
            now=now,
            source=str(stored.get("source", "replay")),
            lineage=_lineage(lineage) if lineage is not None else None,
            trace=valid_trace(stored.get("trace")),
            limits=self._kind.limits,
        )
        if came is not None:
            event.data["received"] = format_time(came)
        return event

    def _native(self, data: Any) -> tuple[Any, dict[str, Any]]:
        """The event as `read_event` takes it, and what it has beside that."""
        if self._kind.name == "prefect":
            return prefect_event(data), {}
        if self._kind.name == "cloudevents" or is_cloudevent(data):
            return event_of_cloudevent(data), {"trace": trace_of_cloudevent(data)}
        if not isinstance(data, dict):
            return data, {}
        stored = {name: data[name] for name in _STORED if data.get(name) is not None}
        return {name: value for name, value in data.items() if name not in _STORED}, stored

    def _move(self, moment: datetime) -> None:
        us = to_us(moment)
        if self._clock_us and us - self._clock_us > _LONGEST_JUMP // timedelta(microseconds=1):
            raise InvalidInput(
                f"{moment.isoformat()} lies more than 10 years after {from_us(self._clock_us).isoformat()}; check the time"
            )
        self._clock_us = max(self._clock_us, us)


def end_of(value: str | datetime | None) -> datetime | None:
    """The moment up to which a replay goes on. Raises `InvalidInput`."""
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidInput(f"{value.isoformat()} has no time zone", path=("until",))
        return value.astimezone(UTC)
    return _time("until", value)


def _time(field: str, value: Any) -> datetime:
    if not isinstance(value, str):
        raise InvalidInput("an RFC 3339 time as text, such as 2026-01-31T08:00:00Z", path=(field,))
    try:
        moment = parse_time(value)
    except ValueError as error:
        raise InvalidInput(str(error), path=(field,)) from None
    if not 1970 <= moment.year <= _LAST_YEAR:
        raise InvalidInput(f"{value} is not between the years 1970 and {_LAST_YEAR}", path=(field,))
    return moment


def _lineage(value: Any) -> dict[str, Any]:
    """What an event says of the firings that led to it, checked."""
    names = value.get("automations", []) if isinstance(value, dict) else None
    depth = value.get("depth", 0) if isinstance(value, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidInput("a list of names of automations", path=("lineage", "automations"))
    if not isinstance(depth, int) or isinstance(depth, bool) or not 0 <= depth <= 1_000_000:
        raise InvalidInput("how many firings led to the event, a number from 0", path=("lineage", "depth"))
    return {**value, "depth": depth, "automations": names}


def _printed(outcome: Evaluation) -> Iterator[dict[str, Any]]:
    for decision in outcome.decisions:
        yield _decision(decision)
    for firing in outcome.firings:
        yield printed_firing(firing)


def printed_firing(firing: Firing) -> dict[str, Any]:
    """A firing as it is printed."""
    return {
        "automation": firing.automation,
        "firing": firing.id,
        "at": firing.at,
        "key": firing.key,
        "event": None if firing.event is None else firing.event["id"],
        "events": [ref.id for ref in firing.refs],
        "state": firing.state.value,
        **({"total": firing.total} if firing.total > len(firing.refs) else {}),
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "automation": decision.automation,
        "decision": decision.reason.value,
        "at": format_time(from_us(decision.at_us)),
        "trigger": decision.path,
        "key": decision.key,
        "event": decision.event,
        "detail": decision.detail,
        "firing": decision.firing,
    }
