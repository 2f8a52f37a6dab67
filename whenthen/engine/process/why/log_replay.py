"""The log evaluated again: one automation's part of `EVENTS`, from where nothing before matters up to a position.

Called by the queries about why something was decided. Bounded by `MOST_EVENTS` and `READ_S`.
`engine.http.long_queries`, through which all of them come, bounds how many run at one time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import orjson

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.request_client import stream_info
from whenthen.engine.bus.stream_reader import Received, StreamReader
from whenthen.engine.bus.streams import EVENTS
from whenthen.engine.bus.subjects import RULE_MARKERS, filters_for, marker_number, pause_subject, tick_subject
from whenthen.engine.hangs import skip_subject
from whenthen.engine.process.pausing.pause_log import NatsPauseLog
from whenthen.engine.process.revisions.compiled_revisions import CompiledRevisions
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.rule_sets import RevisionDamaged, RevisionNotUnderstood
from whenthen.rules.recorded import WhyAnswer, WhyReplay
from whenthen.schemas.automations import PauseChange
from whenthen.schemas.events import decode_event
from whenthen.schemas.times import format_us, parse_us
from whenthen.triggers import CompiledAutomation, RuleSet
from whenthen.triggers.explaining import memory_us

__all__ = ["KeptLog", "LogReplay"]

MOST_EVENTS = 50_000  #: that are evaluated again for one answer
SLICE_S = 0.005  #: of evaluating without letting others go on
READ_S = 20.0  #: for reading all of them
LEAST_LOOK_US = 60_000_000  #: before the event


@dataclass(frozen=True, slots=True)
class KeptLog:
    """What is known of the log before anything is replayed."""

    first: int  #: position that is kept
    first_us: int  #: its time
    markers: Sequence[tuple[int, int]]  #: position and revision, ascending
    skipped: frozenset[int]  #: positions that the shard passed over

    def revision_at(self, position: int) -> int:
        """The revision that the last marker up to a position names; 0 when none is kept."""
        return max((number for seq, number in self.markers if seq <= position), default=0)


class LogReplay:
    """Reads the log for one process."""

    def __init__(
        self,
        bus: Bus,
        rule_registry: RuleRegistry,
        revisions: CompiledRevisions,
        *,
        max_depth: int,
        paused_now: Callable[[], list[PauseChange]],
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._bus = bus
        self._rule_registry = rule_registry
        self._revisions = revisions
        self._max_depth = max_depth
        self._pauses = NatsPauseLog(bus)
        self._paused_now = paused_now
        self.wall_us = wall_us

    async def replayed(
        self,
        shard: int,
        log: KeptLog,
        compiled: CompiledAutomation,
        target: int,
        notes: list[str],
        *,
        end: int = 0,
        at_us: int = 0,
        key: Mapping[str, str] | None = None,
    ) -> tuple[WhyAnswer, WhyReplay | None]:
        """Evaluate again up to a position, from where nothing before matters, or from as early as there is time for."""
        memory = memory_us(compiled)
        target_us = await self.time_of(target) if target else at_us
        look_us = LEAST_LOOK_US if memory is None else max(2 * memory, LEAST_LOOK_US)
        best: WhyAnswer | None = None
        best_replay: WhyReplay | None = None
        from_first = memory is None
        while True:
            start = log.first if from_first else await self.position_at(target_us - look_us, log.first)
            start = max(start, log.first)
            revision = log.revision_at(start) or log.revision_at(end or target)
            begins_with = await self.compiled(revision, compiled.name, []) if revision else compiled
            replay = WhyReplay(
                begins_with or compiled,
                absent=begins_with is None,
                target=target,
                key=key,
                begins_whole=start <= 1 or memory == 0,
                start_us=await self.time_of(start),
                max_depth=self._max_depth,
            )
            now = [change for change in self._paused_now() if change.automation == compiled.name]
            for change in await self._pauses.standing(start - 1, now, compiled.name):
                replay.pause(change, 0)
            patterns = RuleSet([compiled]).patterns() + RuleSet([replay.automation]).patterns()
            whole = await self._feed(replay, shard, log, start, end or target, at_us, patterns)
            if whole and target and not replay.found and (event := await self._bus.event_at(target)) is not None:
                replay.event(event, target_us)  # no subject that the rule reads has it
            answer = replay.answer()
            if whole:
                best, best_replay = answer, replay
            if answer.exact and whole:
                return answer, replay
            if not whole:
                if from_first:  # too much; from as early as there is time for
                    from_first, look_us = False, max(target_us - log.first_us, LEAST_LOOK_US)
                if best is not None or look_us <= LEAST_LOOK_US:
                    break
                look_us = max(look_us // 4, LEAST_LOOK_US)
                continue
            if start <= log.first or replay.events * 4 > MOST_EVENTS:
                break
            look_us *= 4
        if best is None:
            notes.append(f"more than {MOST_EVENTS} events would have to be evaluated again, so windows are not shown")
            best = WhyAnswer(exact=False)
        return best, best_replay

    async def _feed(
        self,
        replay: WhyReplay,
        shard: int,
        log: KeptLog,
        start: int,
        end: int,
        at_us: int,
        patterns: Sequence[str],
    ) -> bool:
        """Read the log from `start` to `end` into the replay; whether that was possible within the limits."""
        filters = [*filters_for(patterns), tick_subject(shard), RULE_MARKERS, pause_subject(replay.automation.name)]
        reader = StreamReader(self._bus.client, EVENTS)
        await reader.read({"deliver_policy": "all", "filter_subjects": filters}, after=start - 1)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READ_S
        slice_end = loop.time() + SLICE_S
        try:
            while True:
                message = reader.take()
                if message is None:
                    if reader.caught_up:
                        break
                    reader.raise_trouble(patient=True)
                    if loop.time() > deadline:
                        return False
                    await reader.wait(0.5)
                    continue
                if message.seq > end:
                    break
                if replay.events >= MOST_EVENTS or loop.time() > deadline:
                    return False
                await self._take(replay, log, message)
                if loop.time() > slice_end:
                    await asyncio.sleep(0)
                    slice_end = loop.time() + SLICE_S
        finally:
            await reader.stop()
        if at_us:
            replay.moment(at_us)
        return True

    async def _take(self, replay: WhyReplay, log: KeptLog, message: Received) -> None:
        if message.seq in log.skipped:
            return
        if (number := marker_number(message.subject)) is not None:
            try:
                compiled = (await self._revisions.find(number)).automations.get(replay.automation.name)
            except (RevisionDamaged, RevisionNotUnderstood):
                return  # as the shard does
            replay.replace(compiled, message.time_us)
        elif message.subject.startswith("pauses."):
            with suppress(ValueError):
                replay.pause(PauseChange.decode(message.data), message.time_us)
        elif message.subject.startswith("events."):
            try:
                event = decode_event(message.data, message.seq)
            except Exception:  # noqa: BLE001  # the shard passes over it, too, whatever it is
                return
            replay.event(event, message.time_us)
        else:
            replay.moment(message.time_us)

    async def look(self, shard: int) -> KeptLog:
        """What the log holds beside events."""
        info = await stream_info(self._bus.client, EVENTS)
        first = int(info["state"]["first_seq"])
        markers: list[tuple[int, int]] = []
        skipped: set[int] = set()

        def marker(message: Delivery) -> None:
            number = marker_number(message.headers["Nats-Subject"])
            if number is not None:
                markers.append((int(message.headers["Nats-Sequence"]), number))

        def skip(message: Delivery) -> None:
            skipped.add(int(orjson.loads(message.data)["skip"]["position"]))

        client = self._bus.client
        await client.read_stored(EVENTS, {"seq": 1, "next_by_subj": RULE_MARKERS, "batch": 10_000}, marker)
        await client.read_stored(EVENTS, {"seq": 1, "next_by_subj": skip_subject(shard), "batch": 10_000}, skip)
        return KeptLog(first, await self.time_of(first), markers, frozenset(skipped))

    async def time_of(self, position: int) -> int:
        """When the first message at or after a position was stored; now when there is none."""
        found: list[int] = []
        request = {"seq": max(1, position), "next_by_subj": ">", "batch": 1}
        await self._bus.client.read_stored(
            EVENTS, request, lambda each: found.append(parse_us(each.headers["Nats-Time-Stamp"]))
        )
        return found[0] if found else self.wall_us()

    async def position_at(self, at_us: int, default: int = 0) -> int:
        """The last position that was stored before a moment; `default` when all were stored later."""
        found: list[int] = []
        request = {"start_time": format_us(max(0, at_us)), "next_by_subj": ">", "batch": 1}
        await self._bus.client.read_stored(
            EVENTS, request, lambda each: found.append(int(each.headers["Nats-Sequence"]) - 1)
        )
        if not found:
            info = await stream_info(self._bus.client, EVENTS)
            found.append(int(info["state"]["last_seq"]))
        return max(found[0], default)

    async def compiled(self, number: int, automation: str, notes: list[str]) -> CompiledAutomation | None:
        """The automation in a revision; None when it is not in it. Without a revision, as it is in force now."""
        in_force = self._rule_registry.now
        if not number:
            notes.append("the revision of the rules is not known any more; the one that is in force now is used")
            return in_force.automations.get(automation)
        try:
            found = (await self._revisions.find(number)).automations.get(automation)
        except (RevisionDamaged, RevisionNotUnderstood) as error:
            notes.append(f"revision {number} of the rules can not be read ({error}); the one in force now is used")
            return in_force.automations.get(automation)
        if found is None and automation not in in_force.automations:
            self._rule_registry.automation(automation)  # raises, with near names
        return found

    def inexact(self, log: KeptLog) -> str:
        return (
            "what came before could matter and is not all there, so windows and reasons that are not on record may differ; "
            f"events are kept from {format_us(log.first_us)} on (retain_events)"
        )
