"""What happened, as a test of rules: the events that led to a firing, or to the decision that there was none."""

from __future__ import annotations

from typing import Any

from whenthen.engine.bus.connection import Bus
from whenthen.engine.decisions import DecisionReader
from whenthen.engine.http import why_models
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.queries.event_queries import EventQueries
from whenthen.engine.process.queries.firing_queries import find_firing
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.engine.process.why.log_replay import LogReplay
from whenthen.engine.process.why.why_query import disagreement
from whenthen.schemas.errors import InvalidInput, NotFound
from whenthen.schemas.firings import Reason
from whenthen.schemas.times import format_us, parse_time, to_us

__all__ = ["RecordQuery"]


class RecordQuery:
    """Answers `GET /api/record`."""

    def __init__(
        self, bus: Bus, rule_registry: RuleRegistry, replay: LogReplay, events: EventQueries, ids: IdPrefixes
    ) -> None:
        self._bus = bus
        self._rule_registry = rule_registry
        self._log = replay
        self._events = events
        self._ids = ids
        self._record = DecisionReader(bus)

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
            target = (await self._events.kept_event(event))["seq"]
        else:
            raise InvalidInput("give a firing, or an automation and an event", path=("firing",))
        shard = self._rule_registry.shard_of(automation)
        log = await self._log.look(shard)
        notes: list[str] = []
        end = target or await self._log.position_at(at_us)
        number = log.revision_at(end) or (await self._record.offset(shard)).rules
        compiled = await self._log.compiled(number, automation, notes)
        if compiled is None:
            raise NotFound(f"{automation} was not in the rules of revision {number}, which were in force then")
        if target and target < log.first:
            raise NotFound(
                f"the event at position {target} is not kept any more; events are kept from {format_us(log.first_us)} on "
                "(retain_events)"
            )
        if target in log.skipped:
            raise NotFound(
                f"the shard passed the event at position {target} over, as processes hung on it; no test can be made of it"
            )
        answer, replay = await self._log.replayed(shard, log, compiled, target, notes, end=end, at_us=at_us, key=key)
        if replay is None:
            raise NotFound(f"{notes[-1]}, so no test can be made")
        if not answer.exact:
            notes.append(self._log.inexact(log))
        if firing is None:
            notes += disagreement((await self._record.at(shard, automation, target)).rows, answer)
        made = replay.recorded_test(max(at_us, await self._log.time_of(target)) if target else at_us)
        if firing is not None and not any("step" in each or not target for each in made.test.get("fires", ())):
            notes.append(
                "evaluated again it does not fire: events before it are not kept any more, or it was resumed meanwhile"
            )
        if answer.decision is not None and answer.decision.reason is Reason.PAUSED:
            notes.append("it was paused or disabled, and a test of rules knows no pauses")
        return why_models.RecordedTestItem(
            test=made.test, passes=not made.failures, notes=[*notes, *made.failures], rules=number
        )

    async def _firing(self, text: str) -> dict[str, Any]:
        not_kept = f"the firing {text[:80]!r} is not kept; `whenthen firings` lists those that are"
        try:
            firing = await self._ids.firing(text)
        except NotFound:
            raise NotFound(not_kept) from None
        found = await find_firing(self._bus.client, firing)
        if found is None:
            raise NotFound(not_kept)
        return found
