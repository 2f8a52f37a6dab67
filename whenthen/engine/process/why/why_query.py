"""Why an automation fired for an event, or did not: from the record, and from the events that are kept.

The reason is on record when its row was kept; the windows and the clauses are computed from the log, with the rules of the revision
that was in force there, beginning where nothing from before matters. It makes no difference which process evaluates, or whether
one does. What retention removed is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whenthen.engine.bus.connection import Bus
from whenthen.engine.decisions import DecisionReader
from whenthen.engine.http import answer_models as answers
from whenthen.engine.http import why_models
from whenthen.engine.process.queries.decision_items import decision_item, row_of_decision
from whenthen.engine.process.queries.event_queries import EventQueries
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.process.why.log_replay import KeptLog, LogReplay
from whenthen.rules.recorded import WhyAnswer, main_decision
from whenthen.schemas.decision_records import DecisionRow
from whenthen.schemas.errors import InvalidInput, NotFound, did_you_mean
from whenthen.schemas.firings import Reason
from whenthen.schemas.times import format_us, parse_time, to_us
from whenthen.triggers import CompiledAutomation, RuleSet
from whenthen.triggers.explaining import WindowView

__all__ = ["WhyQuery", "disagreement", "window_item"]

#: reasons that are decided before a key is looked at
_WITHOUT_KEY = frozenset(
    {
        Reason.LABEL_MISMATCH,
        Reason.CONDITION_FALSE,
        Reason.CONDITION_ERROR,
        Reason.MISSING_KEY,
        Reason.PAUSED,
        Reason.LOOP,
        Reason.HELD_FOR_PREDECESSOR,
    }
)
_NOT_EVALUATED, _NOT_IN_RULES, _NOT_EXPECTED = "not_evaluated", "not_in_rules", "not_expected"


class WhyQuery:
    """Answers `GET /api/why`."""

    def __init__(self, bus: Bus, rule_registry: RuleRegistry, replay: LogReplay, events: EventQueries) -> None:
        self._rule_registry = rule_registry
        self._log = replay
        self._events = events
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
        log = await self._log.look(shard)
        if event is not None:
            return await self._of_event(shard, log, automation, event)
        if at is None:
            raise InvalidInput("give an event, or `at`, a time, and the key if the trigger has one", path=("event",))
        try:
            at_us = to_us(parse_time(at))
        except ValueError as error:
            raise InvalidInput(str(error), path=("at",)) from None
        return await self._of_moment(shard, log, automation, dict(key or {}), at_us)

    # -- an event

    async def _of_event(self, shard: int, log: KeptLog, automation: str, event_id: str) -> why_models.WhyReport:
        try:
            stored = await self._events.kept_event(event_id)
        except NotFound:
            return await self._from_rows(shard, log, automation, event_id)
        recorded = await self._record.at(shard, automation, stored["seq"])
        notes: list[str] = []
        rows = recorded.rows
        row = main_decision(rows)
        # the batch over a position may have been decided behind a later marker, and a marker may name what could not be taken; revisions
        # only rise, so the lower number is the right one
        bounds = [bound for bound in (recorded.rules, log.revision_at(stored["seq"])) if bound]
        number = (row.rules if row is not None else 0) or min(bounds, default=0)
        number = number or (await self._record.offset(shard)).rules
        compiled = await self._log.compiled(number, automation, notes)
        answer = WhyAnswer()
        if compiled is not None and stored["seq"] not in log.skipped:
            answer, _ = await self._log.replayed(shard, log, compiled, stored["seq"], notes)
        decision = answer.decision
        if row is None and decision is not None:
            row = row_of_decision(decision, rules=number)
        reason = row.reason if row is not None else _NOT_EXPECTED
        # a shard reads what its rules look at: of the newest events there may be some that it never gets to
        if not recorded.evaluated and compiled is not None and RuleSet([compiled]).looks_at(stored["event"]):
            reason = _NOT_EVALUATED
            notes.append("the shard has not evaluated this position yet; below is what it will decide as it looks now")
        elif stored["seq"] in log.skipped:
            reason = "set_aside"
            notes.append("the shard passed this event over, as processes hung on it")
        elif compiled is None and row is None:
            reason = _NOT_IN_RULES
        notes += disagreement(rows, answer)
        if not answer.exact and compiled is not None:
            notes.append(self._log.inexact(log))
        missing = answer.missing
        if row is not None and decision is not None and row.reason != decision.reason:
            missing = [row.detail] if row.detail and row.reason != Reason.FIRED else []
        items = [decision_item(each) for each in rows] or [
            decision_item(row_of_decision(each, rules=number)) for each in answer.decisions
        ]
        return self._report(
            automation,
            event=stored["id"],
            seq=stored["seq"],
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

    async def _from_rows(self, shard: int, log: KeptLog, automation: str, event_id: str) -> why_models.WhyReport:
        """An event that is kept no more: its row may be."""
        kept = await self._record.kept(shard, automation)
        rows = [row for row in kept.newest(automation) if row.event == event_id]
        if not rows:
            if automation not in (known := self._rule_registry.now.automations):
                raise NotFound(
                    f"nothing is kept of the automation {automation[:80]!r} about an event {event_id[:200]!r}, and the rules have none "
                    f"of that name{did_you_mean(automation, known)}"
                )
            raise NotFound(
                f"the event {event_id[:200]!r} is not kept, nor a decision of {automation} about it; events are kept from position "
                f"{log.first} on, stored at {format_us(log.first_us)} (retain_events)"
            )
        row = main_decision(rows)
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
                f"kept from {format_us(log.first_us)} on"
            ],
        )

    # -- a moment

    async def _of_moment(
        self, shard: int, log: KeptLog, automation: str, key: dict[str, str], at_us: int
    ) -> why_models.WhyReport:
        if at_us > self._log.wall_us():
            raise InvalidInput("lies in the future", path=("at",))
        notes: list[str] = []
        end = await self._log.position_at(at_us)
        offset = await self._record.offset(shard)
        number = log.revision_at(end) or offset.rules
        compiled = await self._log.compiled(number, automation, notes)
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
            answer, _ = await self._log.replayed(shard, log, compiled, 0, notes, end=end, at_us=at_us, key=key)
            if not answer.exact:
                notes.append(self._log.inexact(log))
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
            at=format_us(row.at_us) if row is not None else None,
            key=compiled.key_of(row.path, row.key)
            if compiled is not None and row is not None and row.reason not in _WITHOUT_KEY
            else {},
            reason=reason,
            fired=fired,
            firing=row.firing if row is not None else None,
            rules=rules,
            source="record" if on_record else "computed",
            answer=f"{_sentence(automation, reason, fired, missing, row)} ({how})",
            missing=missing,
            decisions=items,
            clauses=answer.clauses.as_json() if answer.clauses is not None else None,
            before=[window_item(compiled, view) for view in answer.before] if compiled is not None else [],
            after=[window_item(compiled, view) for view in answer.after] if compiled is not None else [],
            notes=notes,
        )


def disagreement(rows: Sequence[DecisionRow], answer: WhyAnswer) -> list[str]:
    """What to say where rows on record have another reason than is computed."""
    row, decision = main_decision(rows), answer.decision
    if row is None or decision is None or not answer.exact or decision.reason == row.reason:
        return []
    return [
        f"on record is {row.reason}; evaluated again it is {decision.reason.value}: the automation was paused or set aside, "
        "or an event before it was held for its predecessor"
    ]


def _sentence(automation: str, reason: str, fired: bool, missing: Sequence[str], row: DecisionRow | None) -> str:
    if fired and row is not None:
        return f"{automation} fired: {row.firing}"
    if reason == _NOT_IN_RULES:
        return f"{automation} was not in the rules that were in force"
    if reason == _NOT_EVALUATED:
        return f"{automation} has not been evaluated for it yet"
    why = "; ".join(missing) or (row.detail if row is not None else "")
    return f"{automation} did not fire: {reason}" + (f": {why}" if why else "")


def window_item(automation: CompiledAutomation, view: WindowView) -> why_models.WindowItem:
    """A window for people."""
    return why_models.WindowItem(
        path=view.path,
        key=automation.key_of(view.path, view.key),
        kind=view.kind,
        count=view.count,
        needed=view.needed,
        events=[why_models.EventReference(id=ref.id, seq=ref.seq, at=format_us(ref.time_us)) for ref in view.events],
        opened=[format_us(us) for us in view.opened_us],
        ends=format_us(view.ends_us) if view.ends_us else None,
        quiet_until=format_us(view.quiet_until_us) if view.quiet_until_us else None,
        parts=list(view.parts),
    )
