"""Why an automation fired for an event, or did not: from the record, and from the events that are kept.

The reason is on record when its row was kept; the windows and the clauses are computed from the log, with the rules of the revision
that was in force there, beginning where nothing from before matters. It makes no difference which process evaluates, or whether
one does. What retention removed is said.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.stream_reader import Received, StreamReader
from whenthen.engine.bus.streams import ENGINE, EVENTS
from whenthen.engine.bus.subjects import RULE_MARKERS, filters_for, marker_number, short_token, tick_subject
from whenthen.engine.decisions import DecisionReader
from whenthen.engine.hangs import skip_subject
from whenthen.engine.http import answer_models as answers
from whenthen.engine.http import why_models
from whenthen.engine.process.queries.decision_items import decision_item, row_of_decision
from whenthen.engine.process.queries.event_queries import EventQueries
from whenthen.engine.process.revisions.compiled_revisions import CompiledRevisions
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.rule_sets import RevisionDamaged, RevisionNotUnderstood
from whenthen.rules.recorded import WhyAnswer, WhyReplay, main_decision
from whenthen.schemas.decision_records import DecisionRow
from whenthen.schemas.errors import InvalidInput, NotFound
from whenthen.schemas.events import decode_event
from whenthen.schemas.firings import Decision, Reason
from whenthen.schemas.times import format_time, from_us, parse_time, to_us
from whenthen.triggers import CompiledAutomation, RuleSet
from whenthen.triggers.explaining import WindowView, key_values, memory_us

__all__ = ["WhyQuery"]

MOST_EVENTS = 50_000  #: that are evaluated again for one answer
SLICE_S = 0.005  #: of evaluating without letting others go on
READ_S = 20.0  #: for reading all of them
LEAST_LOOK_US = 60_000_000  #: before the event
_NOT_EVALUATED, _NOT_IN_RULES, _NOT_EXPECTED = "not_evaluated", "not_in_rules", "not_expected"


@dataclass(frozen=True, slots=True)
class _Log:
    """What is known of the log before anything is replayed."""

    first: int  #: position that is kept
    first_us: int  #: its time
    markers: Sequence[tuple[int, int]]  #: position and revision, ascending
    skipped: frozenset[int]  #: positions that the shard passed over

    def revision_at(self, position: int) -> int:
        """The revision that the last marker up to a position names; 0 when none is kept."""
        return max((number for seq, number in self.markers if seq <= position), default=0)


class WhyQuery:
    """Answers `GET /api/why`."""

    def __init__(
        self,
        bus: Bus,
        rule_registry: RuleRegistry,
        revisions: CompiledRevisions,
        events: EventQueries,
        *,
        max_depth: int,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._bus = bus
        self._rule_registry = rule_registry
        self._revisions = revisions
        self._events = events
        self._max_depth = max_depth
        self._wall_us = wall_us
        self._record = DecisionReader(bus)

    async def why(
        self, automation: str, *, event: str | None = None, key: Mapping[str, str] | None = None, at: str | None = None
    ) -> why_models.WhyReport:
        """Why an automation fired for an event, or for a key at a moment, or did not.

        Raises:
            InvalidInput: neither an event nor a key with a moment, or a time that is none.
            NotFound: no such automation, or the event is not kept; the message says what is.
            BusUnavailable: NATS does not answer.
        """
        shard = self._rule_registry.shard_of(automation)
        log = await self._look(shard)
        if event is not None:
            return await self._of_event(shard, log, automation, event)
        if at is None:
            raise InvalidInput("give an event, or `at`, a time, and the key if the trigger has one", path=("event",))
        try:
            at_us = to_us(parse_time(at))
        except ValueError as error:
            raise InvalidInput(str(error), path=("at",)) from None
        return await self._of_moment(shard, log, automation, dict(key or {}), at_us)

    async def record(
        self, *, firing: str | None = None, automation: str | None = None, event: str | None = None
    ) -> why_models.RecordedTestItem:
        """A test of rules made of what led to a firing, or to the decision that there was none.

        Raises:
            InvalidInput: neither a firing, nor an automation and an event.
            NotFound: it is not kept.
        """
        key: dict[str, str] | None = None
        at_us = target = 0
        if firing is not None:
            found = await self._firing(firing)
            automation = found["automation"]
            target = found["seq"]
            at_us = to_us(parse_time(found["at"]))
            key = {name: str(value) for name, value in found["key"].items()}
        elif automation is not None and event is not None:
            target = (await self._events.get_event(event)).seq
        else:
            raise InvalidInput("give a firing, or an automation and an event", path=("firing",))
        shard = self._rule_registry.shard_of(automation)
        log = await self._look(shard)
        notes: list[str] = []
        end = target or await self._position_at(at_us)
        number = log.revision_at(end) or (await self._record.offset(shard)).rules
        compiled = await self._compiled(number, automation, notes)
        if compiled is None:
            raise NotFound(f"{automation} was not in the rules of revision {number}, which were in force then")
        if target and target < log.first:
            raise NotFound(
                f"the event at position {target} is not kept any more; events are kept from {_time(log.first_us)} on "
                "(retain_events)"
            )
        answer, replay = await self._replayed(shard, log, compiled, target, notes, end=end, at_us=at_us, key=key)
        if replay is None:
            raise NotFound(f"{notes[-1]}, so no test can be made")
        if not answer.exact:
            notes.append(self._inexact(log))
        made = replay.recorded_test(max(at_us, await self._time_of(target)) if target else at_us)
        if firing is not None and not any("step" in each or not target for each in made.test.get("fires", ())):
            notes.append(
                "evaluated again it does not fire: events before it are not kept any more, or it was resumed meanwhile"
            )
        return why_models.RecordedTestItem(
            test=made.test, passes=not made.failures, notes=[*notes, *made.failures], rules=number
        )

    async def _firing(self, firing: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        request = {"seq": 1, "next_by_subj": f"engine.firing.*.{short_token(firing)}", "batch": 1}
        await self._bus.client.read_stored(
            ENGINE, request, lambda each: found.append(orjson.loads(each.data)) if each.data else None
        )
        if not found or found[0]["id"] != firing:
            raise NotFound(f"the firing {firing[:80]!r} is not kept; `whenthen firings -o wide` lists them")
        return found[0]

    # -- an event

    async def _of_event(self, shard: int, log: _Log, automation: str, event_id: str) -> why_models.WhyReport:
        try:
            stored = await self._events.get_event(event_id)
        except NotFound:
            return await self._from_rows(shard, log, automation, event_id)
        recorded = await self._record.at(shard, automation, stored.seq)
        notes: list[str] = []
        number = recorded.rules or log.revision_at(stored.seq) or (await self._record.offset(shard)).rules
        compiled = await self._compiled(number, automation, notes)
        rows = recorded.rows
        answer = WhyAnswer()
        if compiled is not None and stored.seq not in log.skipped:
            answer, _ = await self._replayed(shard, log, compiled, stored.seq, notes)
        decision = main_decision(answer.decisions)
        row = _main_row(rows)
        if row is None and decision is not None:
            row = row_of_decision(decision, rules=number)
        reason = row.reason if row is not None else _NOT_EXPECTED
        if not recorded.evaluated:
            reason = _NOT_EVALUATED
            notes.append("the shard has not evaluated this position yet; below is what it will decide as it looks now")
        elif stored.seq in log.skipped:
            reason = "set_aside"
            notes.append("the shard passed this event over, as processes hung on it")
        elif compiled is None and row is None:
            reason = _NOT_IN_RULES
        if rows and decision is not None and row is not None and decision.reason != row.reason and answer.exact:
            notes.append(
                f"on record is {row.reason}; evaluated again it is {decision.reason.value}: the automation was paused or set aside, "
                "or an event before it was held for its predecessor"
            )
        if not answer.exact and compiled is not None:
            notes.append(self._inexact(log))
        missing = answer.missing
        if row is not None and decision is not None and row.reason != decision.reason:
            missing = [row.detail] if row.detail and row.reason != Reason.FIRED else []
        items = [decision_item(each) for each in rows] or [
            decision_item(row_of_decision(each, rules=number)) for each in answer.decisions
        ]
        return self._report(
            automation,
            event=stored.id,
            seq=stored.seq,
            row=row,
            reason=reason,
            rules=number,
            on_record=bool(rows),
            compiled=compiled,
            answer=answer,
            missing=missing,
            items=items,
            notes=notes,
        )

    async def _from_rows(self, shard: int, log: _Log, automation: str, event_id: str) -> why_models.WhyReport:
        """An event that is kept no more: its row may be."""
        kept = await self._record.kept(shard, automation)
        rows = [row for row in kept.newest(automation) if row.event == event_id]
        if not rows:
            raise NotFound(
                f"the event {event_id[:200]!r} is not kept, nor a decision of {automation} about it; events are kept from position "
                f"{log.first} on, stored at {_time(log.first_us)} (retain_events)"
            )
        row = _main_row(rows)
        assert row is not None
        return self._report(
            automation,
            event=event_id,
            seq=row.seq,
            row=row,
            reason=row.reason,
            rules=row.rules,
            on_record=True,
            compiled=None,
            answer=WhyAnswer(),
            missing=[row.detail] if row.detail and row.reason != Reason.FIRED else [],
            items=[decision_item(each) for each in rows],
            notes=[
                "the event itself is not kept any more (retain_events), so its clauses and windows can not be shown; events are "
                f"kept from {_time(log.first_us)} on"
            ],
        )

    # -- a moment

    async def _of_moment(
        self, shard: int, log: _Log, automation: str, key: dict[str, str], at_us: int
    ) -> why_models.WhyReport:
        if at_us > self._wall_us():
            raise InvalidInput("lies in the future", path=("at",))
        notes: list[str] = []
        end = await self._position_at(at_us)
        offset = await self._record.offset(shard)
        number = log.revision_at(end) or offset.rules
        compiled = await self._compiled(number, automation, notes)
        answer = WhyAnswer()
        if compiled is None:
            reason = _NOT_IN_RULES
        else:
            if unknown := key.keys() - {each for leaf in compiled.leaves for each in leaf.keys.expressions}:
                wanted = sorted({each for leaf in compiled.leaves for each in leaf.keys.expressions})
                raise InvalidInput(
                    f"the trigger has no key {sorted(unknown)[0]!r}; it has {', '.join(wanted) or 'none'}",
                    path=("key",),
                )
            answer, _ = await self._replayed(shard, log, compiled, 0, notes, end=end, at_us=at_us, key=key)
            if not answer.exact:
                notes.append(self._inexact(log))
            reason = answer.decisions[-1].reason.value if answer.decisions else _NOT_EXPECTED
        last = answer.decisions[-1] if answer.decisions else None
        row = row_of_decision(last, rules=number) if last is not None else None
        if last is None and compiled is not None:
            notes.append("no event of this key came before in what is kept")
        return self._report(
            automation,
            event=None,
            seq=0,
            row=row,
            reason=reason,
            rules=number,
            on_record=False,
            compiled=compiled,
            answer=answer,
            missing=answer.missing or ([last.detail] if last is not None and last.detail else []),
            items=[decision_item(row_of_decision(each, rules=number)) for each in reversed(answer.decisions)],
            notes=notes,
        )

    # -- evaluating again

    async def _replayed(
        self,
        shard: int,
        log: _Log,
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
        target_us = await self._time_of(target) if target else at_us
        look_us = LEAST_LOOK_US if memory is None else max(2 * memory, LEAST_LOOK_US)
        best: WhyAnswer | None = None
        best_replay: WhyReplay | None = None
        while True:
            start = log.first if memory is None else await self._position_at(target_us - look_us, log.first)
            start = max(start, log.first)
            revision = log.revision_at(start) or log.revision_at(end or target)
            begins_with = await self._compiled(revision, compiled.name, []) if revision else compiled
            replay = WhyReplay(
                begins_with or compiled,
                target=target,
                key=key,
                begins_whole=start <= 1 or memory == 0,
                start_us=await self._time_of(start),
                max_depth=self._max_depth,
            )
            whole = await self._feed(replay, shard, log, start, end or target, at_us)
            if whole and target and not replay.found and (event := await self._bus.event_at(target)) is not None:
                replay.event(event, target_us)  # no subject that the rule reads has it
            answer = replay.answer()
            if whole:
                best, best_replay = answer, replay
            if answer.exact and whole:
                return answer, replay
            if not whole:
                if best is not None or look_us <= LEAST_LOOK_US or memory is None:
                    break
                look_us //= 4
                continue
            if start <= log.first or replay.events * 4 > MOST_EVENTS:
                break
            look_us *= 4
        if best is None:
            notes.append(f"more than {MOST_EVENTS} events would have to be evaluated again, so windows are not shown")
            best = WhyAnswer(exact=False)
        return best, best_replay

    async def _feed(self, replay: WhyReplay, shard: int, log: _Log, start: int, end: int, at_us: int) -> bool:
        """Read the log from `start` to `end` into the replay; whether that was possible within the limits."""
        patterns = RuleSet([replay.automation]).patterns()
        filters = [*filters_for(patterns), tick_subject(shard), RULE_MARKERS]
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

    async def _take(self, replay: WhyReplay, log: _Log, message: Received) -> None:
        if message.seq in log.skipped:
            return
        if (number := marker_number(message.subject)) is not None:
            try:
                compiled = (await self._revisions.find(number)).automations.get(replay.automation.name)
            except (RevisionDamaged, RevisionNotUnderstood):
                return  # as the shard does
            replay.replace(compiled, message.time_us)
        elif message.subject.startswith("events."):
            try:
                event = decode_event(message.data, message.seq)
            except Exception:  # noqa: BLE001  # the shard passes over it, too, whatever it is
                return
            replay.event(event, message.time_us)
        else:
            replay.moment(message.time_us)

    # -- the log

    async def _look(self, shard: int) -> _Log:
        """What the log holds beside events."""
        info = await self._bus.client.api(f"STREAM.INFO.{EVENTS}")
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
        return _Log(first, await self._time_of(first), markers, frozenset(skipped))

    async def _time_of(self, position: int) -> int:
        """When the first message at or after a position was stored; now when there is none."""
        found: list[int] = []
        request = {"seq": max(1, position), "next_by_subj": ">", "batch": 1}
        await self._bus.client.read_stored(EVENTS, request, lambda each: found.append(_stored_us(each)))
        return found[0] if found else self._wall_us()

    async def _position_at(self, at_us: int, default: int = 0) -> int:
        """The last position that was stored before a moment; `default` when all were stored later."""
        found: list[int] = []
        request = {"start_time": format_time(from_us(max(0, at_us))), "next_by_subj": ">", "batch": 1}
        await self._bus.client.read_stored(
            EVENTS, request, lambda each: found.append(int(each.headers["Nats-Sequence"]) - 1)
        )
        if not found:
            info = await self._bus.client.api(f"STREAM.INFO.{EVENTS}")
            found.append(int(info["state"]["last_seq"]))
        return max(found[0], default)

    async def _compiled(self, number: int, automation: str, notes: list[str]) -> CompiledAutomation | None:
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

    def _inexact(self, log: _Log) -> str:
        return (
            "what came before could matter and is not all there, so windows and reasons that are not on record may differ; "
            f"events are kept from {_time(log.first_us)} on (retain_events)"
        )

    def _report(
        self,
        automation: str,
        *,
        event: str | None,
        seq: int,
        row: DecisionRow | None,
        reason: str,
        rules: int,
        on_record: bool,
        compiled: CompiledAutomation | None,
        answer: WhyAnswer,
        missing: list[str],
        items: list[answers.DecisionItem],
        notes: list[str],
    ) -> why_models.WhyReport:
        fired = reason == Reason.FIRED and row is not None and row.firing is not None
        how = "on record" if on_record else f"computed now, with the rules of revision {rules}"
        return why_models.WhyReport(
            automation=automation,
            event=event,
            seq=seq,
            at=_time(row.at_us) if row is not None else None,
            key=key_values(compiled, row.path, row.key) if compiled is not None and row is not None else {},
            reason=reason,
            fired=fired,
            firing=row.firing if row is not None else None,
            rules=rules,
            source="record" if on_record else "computed",
            answer=f"{_sentence(automation, reason, fired, missing, row)} ({how})",
            missing=missing,
            decisions=items,
            clauses=answer.clauses.as_json() if answer.clauses is not None else None,
            before=[_window(compiled, view) for view in answer.before] if compiled is not None else [],
            after=[_window(compiled, view) for view in answer.after] if compiled is not None else [],
            notes=notes,
        )


def _main_row(rows: Sequence[DecisionRow]) -> DecisionRow | None:
    """The row that tells most: of what is on record as of what is computed."""
    decisions: list[Decision] = []
    by_decision: dict[int, DecisionRow] = {}
    for row in rows:
        reason = Reason(row.reason) if row.reason in set(Reason) else Reason.BELOW_THRESHOLD
        decision = Decision(
            automation=row.automation, reason=reason, at_us=row.at_us, path=row.path, firing=row.firing, key=row.key
        )
        decisions.append(decision)
        by_decision[id(decision)] = row
    found = main_decision(decisions)
    return by_decision[id(found)] if found is not None else None


def _sentence(automation: str, reason: str, fired: bool, missing: Sequence[str], row: DecisionRow | None) -> str:
    if fired and row is not None:
        return f"{automation} fired: {row.firing}"
    if reason == _NOT_IN_RULES:
        return f"{automation} was not in the rules that were in force"
    if reason == _NOT_EVALUATED:
        return f"{automation} has not been evaluated for it yet"
    why = "; ".join(missing) or (row.detail if row is not None else "")
    return f"{automation} did not fire: {reason}" + (f": {why}" if why else "")


def _window(automation: CompiledAutomation, view: WindowView) -> why_models.WindowItem:
    return why_models.WindowItem(
        path=view.path,
        key=key_values(automation, view.path, view.key),
        kind=view.kind,
        count=view.count,
        needed=view.needed,
        events=[why_models.EventReference(id=ref.id, seq=ref.seq, at=_time(ref.time_us)) for ref in view.events],
        opened=[_time(us) for us in view.opened_us],
        ends=_time(view.ends_us) if view.ends_us else None,
        quiet_until=_time(view.quiet_until_us) if view.quiet_until_us else None,
        parts=list(view.parts),
    )


def _stored_us(message: Delivery) -> int:
    text = message.headers["Nats-Time-Stamp"]
    return to_us(datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00"))


def _time(us: int) -> str:
    return format_time(from_us(us))
