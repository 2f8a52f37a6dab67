"""Automations, their state, and why they fired or did not, as it is on record, whichever process evaluates."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from heapq import nsmallest
from itertools import islice
from typing import Any

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.streams import DECISIONS
from whenthen.engine.decisions import DecisionReader
from whenthen.engine.evaluation import FiredTotal
from whenthen.engine.http import Listing, Page, bounded
from whenthen.engine.http import answer_models as answers
from whenthen.engine.process.observation import Observation
from whenthen.engine.process.pauses import AutomationPauses
from whenthen.engine.process.queries.decision_items import decision_item, decision_page
from whenthen.engine.process.queries.lists.asked_list import AskedList, read_asked
from whenthen.engine.process.queries.lists.merged_lists import STOPPED, MergedLists, without_history
from whenthen.engine.process.queries.lists.whole_ids import WholeIds
from whenthen.engine.process.queries.shard_records import fired_records, set_aside_records
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.schemas.automations import Automation
from whenthen.schemas.decision_records import DecisionRow, KeptDecisions
from whenthen.schemas.errors import BusUnavailable
from whenthen.schemas.firings import Reason
from whenthen.schemas.list_filters import text_test
from whenthen.triggers.explaining import why_not

__all__ = ["AutomationQueries", "current_pauses"]

_DECIDED_BY = {name: name for name in ("reason", "event", "firing", "key")}
#: filters that are asked of the history
_FURTHER = ("since", "until", "event", "firing", "key", "text")
_TROUBLE_FIRST = {"set-aside": 0, "paused": 1, "active": 2}
_DECISIONS_SHOWN = 10  #: beside an automation


class AutomationQueries:
    def __init__(
        self,
        bus: Bus,
        rule_registry: RuleRegistry,
        pauses: AutomationPauses,
        observation: Observation,
        lists: MergedLists,
        whole: WholeIds,
    ) -> None:
        self._whole = whole
        self._bus = bus
        self._lists = lists
        self._rule_registry = rule_registry
        self._pauses = pauses
        self._observation = observation
        self._record = DecisionReader(bus)

    async def set_aside(self) -> dict[str, str]:
        """The automations that are set aside, and why: in the shards of this process as they are now, in all as they last stored it."""
        try:
            stored = await set_aside_records(self._bus.client)
        except BusUnavailable:  # what is known here is told even so
            stored = {}
        return {**stored, **self._observation.aside}

    async def _fired(self) -> Callable[[str], FiredTotal]:
        """How often an automation fired, and when last: in the shards of this process as it is, in others as they last stored it."""
        try:
            found = await fired_records(self._bus.client)
        except BusUnavailable:  # what is known here is told even so
            found = {}
        observed, never = self._observation, FiredTotal(0, "")

        def fired(name: str) -> FiredTotal:  # asked of those that are shown: there may be 10,000
            stored = found.get(name, never)
            return FiredTotal(
                max(observed.fired[name], stored.count), max(observed.last_fired.get(name, ""), stored.last)
            )

        return fired

    async def list_automations(self, after: str | None) -> Listing[answers.AutomationSummary]:
        summary = await self._summary()
        return bounded(list(self._rule_registry.now.automations), summary, after=after)

    async def find_automations(
        self, *, text: str, state: str, tag: str, skip: int, limit: int
    ) -> answers.FoundAutomations:
        aside, paused = await self.set_aside(), self._pauses.current()
        wanted = text.casefold()
        states: Counter[str] = Counter()
        found: list[tuple[int, str]] = []
        for name, compiled in self._rule_registry.now.automations.items():
            model = compiled.model
            its = _state(model, aside, paused)
            states[its] += 1
            if (
                (not state or its == state)
                and (not tag or tag in model.tags)
                and (not wanted or wanted in name.casefold() or wanted in model.description.casefold())
            ):
                found.append((_TROUBLE_FIRST.get(its, len(_TROUBLE_FIRST)), name))
        found.sort()
        summary = await self._summary()
        return answers.FoundAutomations(
            items=[summary(name) for _, name in found[skip : skip + limit]],
            found=len(found),
            total=states.total(),
            states=states,
        )

    async def automation_names(self, most: int) -> list[str]:
        return nsmallest(most, self._rule_registry.now.automations)

    async def _summary(self) -> Callable[[str], answers.AutomationSummary]:
        """What makes the summary of an automation of this name."""
        aside = await self.set_aside()
        fired = await self._fired()
        pauses = current_pauses(self._pauses)
        automations = self._rule_registry.now.automations

        def summary(name: str) -> answers.AutomationSummary:
            model = automations[name].model
            return answers.AutomationSummary(
                name=name,
                state=self._state(model, aside),
                pause=pauses.get(name),
                trigger=model.trigger.type,
                actions=[
                    str(action.type)
                    for actions in (model.actions, model.actions_on_trigger, model.actions_on_resolve)
                    for action in actions
                ],
                fired=fired(name).count,
                last_fired=fired(name).last or None,
                tags=model.tags,
                description=model.description,
            )

        return summary

    async def _kept(self, automation: str) -> KeptDecisions:
        self._rule_registry.automation(automation)
        return await self._record.kept(self._rule_registry.shard_of(automation), automation)

    async def get_automation(self, name: str) -> answers.AutomationDetail:
        automation = self._rule_registry.automation(name)
        fired = (await self._fired())(name)
        kept = await self._kept(name)
        return answers.AutomationDetail(
            **automation.model_dump(mode="json", by_alias=True, exclude_none=True),
            state=self._state(automation, await self.set_aside()),
            pause=current_pauses(self._pauses).get(name),
            fired=fired.count,
            last_fired=fired.last or None,
            decided=kept.counts,
            decisions=await self._items(name, list(islice(kept.newest(name), _DECISIONS_SHOWN))),
        )

    async def automation_state(self, name: str) -> answers.AutomationState:
        state = self._state(self._rule_registry.automation(name), await self.set_aside())
        return answers.AutomationState(name=name, state=state, pause=current_pauses(self._pauses).get(name))

    async def list_decisions(self, automation: str, page: Page) -> Listing[answers.DecisionItem]:
        """Of the record, which has the last ones of each reason; of the history where a filter is given that goes back further."""
        kept = await self._kept(automation)
        wanted = page.choice("reason", [reason.value for reason in Reason])
        if wanted is not None:
            page = page.with_filter("reason", wanted)
        if "firing" in page.filters:
            page = page.with_filter("firing", await self._whole.firing(page.filters["firing"]))
        asked = read_asked(
            "decisions",
            replace(page, before=None),
            columns=_DECIDED_BY,
            filters=_DECIDED_BY,
            now=self._lists.clock(),
        )
        chosen = list(filter(_asked_for(asked), kept.newest(automation)))
        notes: list[str] = []
        goes_on = page.before is not None and "." in page.before
        if goes_on or (page.before is None and any(name in page.filters for name in _FURTHER)):
            try:
                return await self._decided_before(automation, page, asked, chosen)
            except BusUnavailable as error:
                if goes_on:
                    raise
                notes = [without_history(error)]
        rows, following = decision_page(chosen, page)
        found = Listing(await self._items(automation, rows))
        found.following = None if following is None else {"before": following}
        found.notes = notes
        return found

    async def _decided_before(
        self, automation: str, page: Page, asked: AskedList, chosen: Sequence[DecisionRow]
    ) -> Listing[answers.DecisionItem]:
        """A page of the history; before the first one, what the record has and the history has not yet."""
        asked = replace(asked, equal={**asked.equal, "automation": automation})
        page_rows = await self._lists.history_rows(DECISIONS, asked, before=page.before)
        stored = page_rows["rows"]
        rows = [_row_of(row) for row in stored]
        following = page_rows["next"]
        if page.before is None:
            newest_us = max((row.at_us for row in rows), default=0)
            there = set(rows)
            new = [row for row in chosen if row.at_us >= newest_us and row not in there][: page.limit]
            room = page.limit - len(new)
            if len(rows) > room:
                first = stored[room]  # of the next page
                following = f"{first['pos']}.{first['row'] + 1}"
            rows = [*new, *rows[:room]]
        found = Listing(await self._items(automation, rows))
        found.following = None if following is None else {"before": following}
        if page_rows["next"] is not None and len(rows) < page.limit:
            found.notes = [STOPPED % page_rows["scanned"]]
        return found

    async def _items(self, automation: str, decisions: Sequence[DecisionRow]) -> list[answers.DecisionItem]:
        """Decisions for people. Of a condition that was false the values are looked up now, in the stored event."""
        compiled = self._rule_registry.now.automations[automation]
        false = [decision for decision in decisions if decision.reason == Reason.CONDITION_FALSE and decision.seq]
        events = await asyncio.gather(*(self._bus.event_at(decision.seq) for decision in false))
        details: dict[int, str] = {}
        for decision, event in zip(false, events, strict=True):
            if event is not None and (why := why_not(compiled, event, decision.path, now_us=decision.at_us)):
                details[id(decision)] = "; ".join(why)
        return [decision_item(decision, detail=details.get(id(decision), "")) for decision in decisions]

    def _state(self, automation: Automation, aside: Collection[str]) -> answers.State:
        return _state(automation, aside, self._pauses.current())


def _state(automation: Automation, aside: Collection[str], paused: Collection[str]) -> answers.State:
    if not automation.enabled:
        return "disabled"
    if automation.name in aside:
        return "set-aside"
    return "paused" if automation.name in paused else "active"


def _asked_for(asked: AskedList) -> Callable[[DecisionRow], bool]:
    has_text = text_test("decisions", asked.text) if asked.text else None

    def fits(row: DecisionRow) -> bool:
        given = {name: getattr(row, name) for name in asked.equal}
        return (
            given == asked.equal
            and (asked.since_us is None or row.at_us >= asked.since_us)
            and (asked.until_us is None or row.at_us < asked.until_us)
            and (has_text is None or has_text(asdict(row)))
        )

    return fits


def _row_of(row: Mapping[str, Any]) -> DecisionRow:
    """A row of the history."""
    return DecisionRow(
        automation=row["automation"],
        path=row["path"],
        reason=row["reason"],
        seq=row["seq"],
        event=row["event"] or None,
        at_us=row["decided_us"],
        key=row["key"],
        detail=row["detail"],
        firing=row["firing"] or None,
        rules=row["rules"],
    )


def current_pauses(pauses: AutomationPauses) -> dict[str, answers.Pause]:
    """The pauses that hold now, by automation."""
    return {
        name: answers.Pause(since=flag.changed, until=flag.until or None, reason=flag.reason, by=flag.by)
        for name, flag in pauses.current().items()
    }
