"""What must have come of the stream: its messages, ticks included, through the pure evaluator at the times that the server
gave them, without a crash, with the rules that its markers name.

Reads events with JetStream's direct get alone, none of the engine's readers. Every message is fed to every shard, also those that
the shard's own filter would not have let through; that must make no difference.
"""

from __future__ import annotations

import calendar
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from whenthen.actions.firing_actions import actions_of
from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.records import encode_firing
from whenthen.engine.bus.streams import EVENTS
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.rule_sets import RevisionStore
from whenthen.rules import Rules, compile_files
from whenthen.schemas.automations import PauseChange
from whenthen.schemas.events import decode_event
from whenthen.triggers.evaluator import Evaluation as Decided
from whenthen.triggers.evaluator import Evaluator
from whenthen.triggers.rule_set import RuleSet

__all__ = ["Oracle", "Stored", "read_stream", "stored_us"]

_BATCH = 5000
_TIME = re.compile(r"(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)(?:\.(\d{1,9}))?Z")


@dataclass(frozen=True, slots=True)
class Stored:
    """One message of a stream."""

    seq: int
    time_us: int
    subject: str
    data: bytes


def stored_us(text: str) -> int:
    """The server's RFC 3339 time with nanoseconds, in microseconds; what is below is cut."""
    found = _TIME.fullmatch(text)
    assert found is not None, text
    whole = calendar.timegm(tuple(int(part) for part in found.groups()[:6]))
    return whole * 1_000_000 + int((found[7] or "").ljust(9, "0")) // 1000


async def read_stream(bus: Bus, stream: str, subjects: str = ">", *, after: int = 0) -> AsyncIterator[Stored]:
    """Everything in `stream` behind position `after`, in order."""
    more = True
    while more:
        found: list[Stored] = []

        def receive(message: Delivery, found: list[Stored] = found) -> None:
            headers = message.headers
            seq, time_us = int(headers["Nats-Sequence"]), stored_us(headers["Nats-Time-Stamp"])
            found.append(Stored(seq, time_us, headers["Nats-Subject"], message.data))

        request = {"seq": after + 1, "next_by_subj": subjects, "batch": _BATCH, "max_bytes": 16 << 20}
        more = await bus.client.read_stored(stream, request, receive)
        for message in found:
            after = message.seq
            yield message


@dataclass(slots=True)
class Oracle:
    """Follows the stream. `follow` again takes what came since."""

    rules: Rules  #: until the first marker, where the stream has none
    shards: int = 1
    number: int = 0  #: the revision in force
    swaps: int = 0  #: how often the rules changed
    firings: dict[str, dict[str, Any]] = field(default_factory=dict)  #: by id, as they are stored
    doubled: list[str] = field(default_factory=list)  #: ids that fired twice, which no id may
    actions: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)  #: by key: automation and action
    event_ids: Counter[str] = field(default_factory=Counter)
    seq: int = 0
    last_of_shard: dict[int, int] = field(default_factory=dict)  #: last position that a shard must have dealt with
    evaluators: list[Evaluator] = field(default_factory=list)
    clock_us: int = 0
    passed_over: set[tuple[int, int]] = field(default_factory=set)  #: shard and position of events that were set aside

    def __post_init__(self) -> None:
        self.evaluators = [Evaluator(part) for part in self._parts(self.rules)]

    async def follow(self, bus: Bus) -> None:
        """Take everything that the stream has by now. What was set aside is said behind the event."""
        async for message in read_stream(bus, EVENTS, "skips.*"):
            skip = orjson.loads(message.data)["skip"]
            one = (skip["shard"], skip["position"])
            if one not in self.passed_over and skip["position"] <= self.seq:
                self._begin_again()
            self.passed_over.add(one)
        if not self.seq:
            async for marker in read_stream(bus, EVENTS, "rules.*"):
                await self._swap(bus, int(marker.subject.partition(".")[2]))
                break
        async for message in read_stream(bus, EVENTS, after=self.seq):
            if message.subject.startswith("rules."):
                await self._pass_marker(bus, message)
            else:
                self._take(message)

    def _begin_again(self) -> None:
        """Forget what was taken: an event of it was set aside since."""
        for found in (self.firings, self.doubled, self.actions, self.event_ids, self.last_of_shard):
            found.clear()
        self.seq = self.clock_us = self.number = 0
        self.__post_init__()

    @property
    def decided(self) -> Counter[tuple[str, str]]:
        """How many decisions there were, by automation and reason."""
        found: Counter[tuple[str, str]] = Counter()
        for evaluator in self.evaluators:
            found.update({(name, reason.value): count for (name, reason), count in evaluator.counts.items()})
        return found

    def take(self, message: Stored) -> None:
        """One message, at its time."""
        self._take(message)

    def next_deadline_us(self) -> int | None:
        """When something is due that no message has brought yet. That windows of absent automations are forgotten in days is left out."""
        due = [0 if evaluator.unstarted else evaluator.store.next_deadline_us() for evaluator in self.evaluators]
        return min((moment for moment in due if moment is not None), default=None)

    def _parts(self, rules: Rules) -> Sequence[RuleSet]:
        return RuleRegistry(rules, shards=self.shards, resolve_secret=lambda reference: "unused").now.shards

    async def _pass_marker(self, bus: Bus, marker: Stored) -> None:
        """What is due before it belongs to the rules so far; one of a lower number says nothing."""
        self.seq = marker.seq
        self.clock_us = max(self.clock_us, marker.time_us)
        number = int(marker.subject.partition(".")[2])
        for shard, evaluator in enumerate(self.evaluators):
            self.last_of_shard[shard] = marker.seq
            if number > self.number:
                self._note(evaluator, evaluator.advance(self.clock_us), None)
        if number > self.number:
            await self._swap(bus, number)

    async def _swap(self, bus: Bus, number: int) -> None:
        store = RevisionStore(bus)
        revision = await store.revision(number)
        assert revision is not None, f"revision {number} is not stored"
        rules = compile_files(self.rules.base, await store.files(revision))
        for evaluator, part in zip(self.evaluators, self._parts(rules), strict=True):
            evaluator.replace_rules(part)
        self.number = number
        self.swaps += 1

    def _take(self, message: Stored) -> None:
        self.seq = message.seq
        self.clock_us = max(self.clock_us, message.time_us)
        kind, _, shard = message.subject.partition(".")
        if kind == "skips":
            return
        for number, evaluator in enumerate(self.evaluators):
            if (number, message.seq) in self.passed_over:
                continue
            if kind == "pauses":
                self._note(evaluator, evaluator.advance(self.clock_us), None)
                evaluator.take_pause(PauseChange.decode(message.data))
                self.last_of_shard[number] = message.seq
                continue
            if kind == "ticks":
                if int(shard) == number:
                    self._note(evaluator, evaluator.advance(self.clock_us), None)
                    self.last_of_shard[number] = message.seq
                continue
            event = decode_event(message.data, message.seq)
            self._note(evaluator, evaluator.process(event, self.clock_us), message)
            if any(True for _ in evaluator.rules.index.candidates(event)):
                self.last_of_shard[number] = message.seq
        if kind == "events":
            self.event_ids[orjson.loads(message.data)["id"]] += 1

    def _note(self, evaluator: Evaluator, decided: Decided, message: Stored | None) -> None:
        evaluator.drain()
        for firing in decided.firings:
            event = None
            if firing.event is not None:
                at_hand = message is not None and message.seq == firing.seq
                event = message.data if message is not None and at_hand else orjson.dumps(firing.event)
            if firing.id in self.firings:
                self.doubled.append(firing.id)
            self.firings[firing.id] = orjson.loads(orjson.dumps(encode_firing(firing, event)))
            for index, action in enumerate(actions_of(evaluator.rules.actions(firing.automation), firing)):
                self.actions[f"{firing.id}.{index}"] = (firing.automation, action.model_dump(mode="json"))
