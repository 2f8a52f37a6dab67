"""What the HTTP API asks of a running process: the implementation of `http.ports.Api` over the wiring's parts.

Thin: it looks things up and shapes them for people and programs. Lists of events, firings and actions are read from the
streams, so every process of a cluster gives the same; decisions are those of the shards that this process evaluates.
"""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import orjson

from whenthen.engine.bus import ENGINE, EVENTS, Ack, Bus, StoredMessage, escape_token, newest
from whenthen.engine.execution import DeadLetters
from whenthen.engine.http import Json, Page
from whenthen.engine.metrics import Metrics
from whenthen.engine.process.id_prefixes import IdPrefixes
from whenthen.engine.process.observation import Observation
from whenthen.engine.process.pauses import AutomationPauses
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.runs import BuiltInOrchestrator, Stores, is_paused
from whenthen.schemas import (
    TERMINAL,
    Automation,
    Decision,
    Deployment,
    Event,
    FlowRun,
    InvalidInput,
    NotFound,
    Reason,
    RunState,
    format_time,
    from_us,
    next_after,
)
from whenthen.sources import Request, Translation, event_of_cloudevent
from whenthen.triggers import why_not

__all__ = ["ServerApi"]

_SINCE = 50_000  #: acknowledged ids whose positions are remembered, so that an event is found by its id at once


class ServerApi:
    """One process's answers."""

    def __init__(
        self,
        *,
        bus: Bus,
        rule_registry: RuleRegistry,
        stores: Stores,
        orchestrator: BuiltInOrchestrator,
        pauses: AutomationPauses,
        metrics: Metrics,
        observation: Observation,
        dead_letters: DeadLetters,
        reload: Callable[[], Awaitable[Json]],
        missing: Callable[[], list[str]],
        describe: Callable[[], Json],
        admit: Callable[[], None] | None = None,
    ) -> None:
        self._bus = bus
        self._rule_registry = rule_registry
        self._stores = stores
        self._orchestrator = orchestrator
        self._pauses = pauses
        self._metrics = metrics
        self._observation = observation
        self._dead = dead_letters
        self._reload = reload
        self._missing = missing
        self._describe = describe
        self._admit = admit
        self._positions: dict[str, int] = {}
        self._ids = IdPrefixes(bus.client)

    # -- in

    async def publish(self, event: Event) -> Ack:
        """Store one event; returns once JetStream acknowledged it."""
        if self._admit is not None:
            self._admit()
        ack = await self._bus.publish(event)
        self._positions[event.id] = ack.seq
        if len(self._positions) > _SINCE:
            for known in list(self._positions)[: _SINCE // 10]:
                del self._positions[known]
        return ack

    def translate(self, webhook: str, request: Request) -> Translation:
        """Verify a webhook's request and translate it."""
        return self._rule_registry.webhook(webhook).translate(request, datetime.now(UTC))

    def hook_names(self) -> Collection[str]:
        return self._rule_registry.now.webhooks

    def cloudevents(self, data: Any) -> list[Json]:
        """CloudEvents as native events, to be checked like others."""
        items = data if isinstance(data, list) else [data]
        return [event_of_cloudevent(item) for item in items]

    # -- the process

    def ready(self) -> list[str]:
        return self._missing()

    def metrics(self) -> bytes:
        return self._metrics.text()

    async def status(self) -> Json:
        return self._describe()

    async def reload_rules(self) -> Json:
        return await self._reload()

    # -- events

    async def list_events(self, page: Page) -> list[Json]:
        wanted = page.filters

        def pick(kept: StoredMessage) -> Json | None:
            event: Json = orjson.loads(kept.data)
            if "event" in wanted and not fnmatch.fnmatchcase(event["event"], wanted["event"]):
                return None
            if "source" in wanted and not fnmatch.fnmatchcase(event["source"], wanted["source"]):
                return None
            if "resource" in wanted and not fnmatch.fnmatchcase(event["resource"]["id"], wanted["resource"]):
                return None
            return {**event, "seq": kept.seq}

        return await newest(
            self._bus.client, EVENTS, "events.>", limit=page.limit, pick=pick, before=_before(page.before)
        )

    async def get_event(self, event_id: str) -> Json:
        if (seq := self._positions.get(event_id)) is not None:
            event = await self._bus.event_at(seq)
            if event is not None and event.id == event_id:
                return {**event.data, "seq": seq}
        return await self._ids.event(event_id)

    # -- automations

    async def list_automations(self) -> list[Json]:
        return [
            {
                "name": name,
                "state": self._state(compiled.model),
                "trigger": compiled.model.trigger.type,
                "actions": [str(action.type) for action in compiled.model.actions],
                "fired": self._observation.fired[name],
                "last_fired": self._observation.last_fired.get(name),
                "tags": compiled.model.tags,
                "description": compiled.model.description,
            }
            for name, compiled in self._rule_registry.now.automations.items()
        ]

    async def get_automation(self, name: str) -> Json:
        automation = self._rule_registry.automation(name)
        return {
            **automation.model_dump(mode="json", by_alias=True, exclude_none=True),
            "state": self._state(automation),
            "fired": self._observation.fired[name],
            "last_fired": self._observation.last_fired.get(name),
            "decisions": await self._told(name, self._observation.decisions.of(name)[:10]),
        }

    async def list_decisions(self, automation: str, page: Page) -> list[Json]:
        self._rule_registry.automation(automation)
        found = self._observation.decisions.of(automation)
        if "reason" in page.filters:
            found = [decision for decision in found if decision.reason == page.filters["reason"]]
        return await self._told(automation, found[: page.limit])

    async def _told(self, automation: str, decisions: Sequence[Decision]) -> list[Json]:
        """Decisions for people. Of a condition that was false the values are looked up now, in the stored event."""
        compiled = self._rule_registry.now.automations[automation]
        false = [decision for decision in decisions if decision.reason is Reason.CONDITION_FALSE and decision.seq]
        events = await asyncio.gather(*(self._bus.event_at(decision.seq) for decision in false))
        details: dict[int, str] = {}
        for decision, event in zip(false, events, strict=True):
            if event is not None and (why := why_not(compiled, event, decision.path)):
                details[id(decision)] = "; ".join(why)
        return [
            {
                "at": format_time(from_us(decision.at_us)),
                "reason": decision.reason.value,
                "event": decision.event,
                "path": decision.path,
                "key": decision.key,
                "detail": details.get(id(decision), decision.detail),
                "firing": decision.firing,
            }
            for decision in decisions
        ]

    async def list_firings(self, page: Page) -> list[Json]:
        automation = page.filters.get("automation")
        subject = f"engine.firing.{escape_token(automation)}.*" if automation else "engine.firing.>"

        def pick(kept: StoredMessage) -> Json | None:
            firing: Json = orjson.loads(kept.data)
            event = firing.get("event")
            return {
                "id": firing["id"],
                "automation": firing["automation"],
                "state": firing["state"],
                "at": firing["at"],
                "key": firing["key"],
                "event": event["id"] if event else None,
                "events": [ref[0] for ref in firing["refs"]],
                "seq": kept.seq,
            }

        return await newest(self._bus.client, ENGINE, subject, limit=page.limit, pick=pick, before=_before(page.before))

    async def pause_automation(self, name: str) -> Json:
        await self._pauses.pause(name)
        return {"name": name, "state": self._state(self._rule_registry.automation(name))}

    async def resume_automation(self, name: str) -> Json:
        await self._pauses.resume(name)
        return {"name": name, "state": self._state(self._rule_registry.automation(name))}

    def _state(self, automation: Automation) -> str:
        if not automation.enabled:
            return "disabled"
        return "paused" if automation.name in self._pauses.paused else "active"

    # -- deployments and runs

    async def list_deployments(self) -> list[Json]:
        flags = await self._stores.flags.all()
        now = datetime.now(UTC)
        return [_deployment(item, flags, now) for item in self._rule_registry.current().values()]

    async def get_deployment(self, name: str) -> Json:
        found = self._rule_registry.current().get(name)
        if found is None:
            raise NotFound(f"there is no deployment {name[:200]!r}")
        summary = _deployment(found, await self._stores.flags.all(), datetime.now(UTC))
        return {**found.model_dump(mode="json", exclude_none=True), **summary}

    async def pause_deployment(self, name: str, schedule: str | None) -> Json:
        if schedule is None:
            await self._orchestrator.pause_deployment(name)
        else:
            await self._orchestrator.pause_schedule(name, schedule)
        return await self.get_deployment(name)

    async def resume_deployment(self, name: str, schedule: str | None) -> Json:
        if schedule is None:
            await self._orchestrator.resume_deployment(name)
        else:
            await self._orchestrator.resume_schedule(name, schedule)
        return await self.get_deployment(name)

    async def run_deployment(self, name: str, parameters: Json, *, key: str | None, delay_s: float) -> Json:
        run = await self._orchestrator.run_deployment(
            name, parameters, key=key or f"api/{uuid4()}", delay=timedelta(seconds=delay_s), triggered_by="api"
        )
        return _run(run)

    async def list_runs(self, page: Page) -> list[Json]:
        states = None
        if "state" in page.filters:
            states = frozenset({_run_state(page.filters["state"])})
        runs = await self._orchestrator.list_flow_runs(
            deployment=page.filters.get("deployment"), states=states, limit=page.limit
        )
        pool = page.filters.get("work_pool")
        return [_run(run) for run in runs if pool is None or run.work_pool == pool]

    async def get_run(self, run_id: str) -> Json:
        return _run((await self._orchestrator.get_flow_run(await self._ids.run(run_id))).run)

    async def run_logs(self, run_id: str, *, after: int, limit: int) -> Json:
        run_id = await self._ids.run(run_id)
        run = (await self._orchestrator.get_flow_run(run_id)).run
        lines = await self._orchestrator.logs(run_id)
        shown = lines[after : after + limit]
        return {
            "lines": [asdict(line) for line in shown],
            "next": after + len(shown),
            "done": run.state in TERMINAL and after + len(shown) >= len(lines),
        }

    async def cancel_run(self, run_id: str) -> Json:
        run_id = await self._ids.run(run_id)
        await self._orchestrator.cancel_flow_run(run_id)
        return await self.get_run(run_id)

    # -- actions

    async def list_actions(self, page: Page) -> list[Json]:
        wanted = page.filters
        automation, kind, outcome = wanted.get("automation"), wanted.get("type"), wanted.get("outcome")
        if outcome == "dead":
            return await self._dead_letters(page)
        before = _before(page.before)
        found: dict[str, Json] = {}
        if outcome in (None, "waiting"):
            within = f"{escape_token(automation)}.>" if automation else ">"
            waiting = await newest(
                self._bus.client, ENGINE, f"engine.action.{within}", limit=page.limit, pick=_waiting, before=before
            )
            found = {item["key"]: item for item in waiting if kind in (None, item["type"])}
        if outcome != "waiting":
            for item in await self._dead.list_actions(
                limit=page.limit, before=before, automation=automation, kind=kind, outcome=outcome
            ):
                found[item["key"]] = {**found.get(item["key"], {}), **item}
        return sorted(found.values(), key=lambda item: -int(item["seq"]))[: page.limit]

    async def _dead_letters(self, page: Page) -> list[Json]:
        found = await self._dead.letters(automation=page.filters.get("automation"))
        items = [
            {
                "key": letter.key,
                "automation": letter.task.firing.automation,
                "type": letter.task.action.get("type"),
                "outcome": "dead",
                "attempt": letter.attempts,
                "at": letter.at,
                "error": letter.error,
                "reason": letter.reason,
                "firing": letter.task.firing.id,
                "seq": letter.revision,
            }
            for letter in found
        ]
        kind = page.filters.get("type")
        return [item for item in reversed(items) if kind is None or item["type"] == kind][: page.limit]

    async def redrive_action(self, key: str) -> Json:
        return await self._dead.redrive(await self._ids.dead_letter(key))


def _waiting(kept: StoredMessage) -> Json | None:
    """An action that no try has ended yet."""
    if not kept.data:
        return None
    task: Json = orjson.loads(kept.data)
    return {
        "key": task["key"],
        "automation": task["firing"]["automation"],
        "type": task["action"].get("type"),
        "outcome": "waiting",
        "attempt": 0,
        "at": kept.time,
        "firing": task["firing"]["id"],
        "seq": kept.seq,
    }


def _before(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal():
        raise InvalidInput(
            f"before: {text[:80]!r} is not a position; give the `seq` of the last item of the page before"
        )
    return int(text)


def _deployment(deployment: Deployment, flags: Mapping[str, Any], now: datetime) -> Json:
    schedules = []
    for schedule in deployment.schedules:
        paused = is_paused(deployment.name, schedule, dict(flags))
        following = None if paused else next_after(schedule, now)
        schedules.append(
            {
                "name": schedule.name,
                "when": schedule.cron or schedule.rrule or f"every {schedule.interval}",
                "timezone": schedule.timezone,
                "paused": paused,
                "next": None if following is None else format_time(following),
            }
        )
    return {
        "name": deployment.name,
        "runs": " ".join(deployment.command) if deployment.command else deployment.entrypoint,
        "work_pool": deployment.work_pool,
        "schedules": schedules,
        "tags": deployment.tags,
        "description": deployment.description,
    }


def _run(run: FlowRun) -> Json:
    data: Json = orjson.loads(orjson.dumps(run))
    return data


def _run_state(text: str) -> RunState:
    for state in RunState:
        if state.value.lower() == text.lower():
            return state
    raise InvalidInput(f"state: {text[:80]!r} is none of {', '.join(state.value for state in RunState)}")
