"""Between the execution loop and the actions: compiles what a task asks for, loads its events, names its target.

Built by the wiring; the loop (`engine.execution.executor`) knows nothing of actions, the actions nothing of the loop.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import orjson
from pydantic import ValidationError

from whenthen.actions import (
    ActionResult,
    CompiledAction,
    Ports,
    compile_action,
    executed_event,
    failed_event,
    perform,
    read_action,
)
from whenthen.engine.bus import Bus
from whenthen.engine.execution.executor import ExecutionObserver
from whenthen.engine.metrics import Metrics
from whenthen.schemas import ActionError, ActionTask, Event, InvalidInput, Ref

__all__ = ["ActionMetrics", "ActionRunner"]

log = logging.getLogger(__name__)

_COMPILED = 10_000  #: compiled actions kept
_EVENTS_AT_ONCE = 64
#: an action whose JSON has none of these names no contributing event but the triggering one; a path may start with `$` alone, `$..`,
#: `$.*` or `$[`, and reach them without their name
_READS_EVENTS = re.compile(rb'events|"\$"|\$\.\.|\$\.?[\[*]')


class ActionRunner:
    """Performs tasks through `ports`."""

    def __init__(self, bus: Bus, ports: Ports) -> None:
        self._bus = bus
        self._ports = ports
        self._compiled: OrderedDict[bytes, tuple[CompiledAction, bool]] = OrderedDict()

    async def perform(self, task: ActionTask) -> ActionResult:
        """One try of one task.

        Raises:
            ActionError: it did not work; `retryable` says whether another try may help.
        """
        compiled, reads_events = self._compile(task.action)
        firing = task.firing
        events: list[dict[str, Any]] = []
        if reads_events:
            own = None if firing.event is None else firing.event["id"]
            events = await self._events([ref for ref in firing.refs if ref.id != own])
        if firing.event is not None:
            events.append(firing.event)
        return await perform(
            task,
            compiled,
            firing=firing,
            event=firing.event,
            events=events,
            ports=self._ports,
            now=datetime.now(UTC),
        )

    def describe(self, task: ActionTask, result: Any, duration: timedelta, retry_in: timedelta | None) -> Event:
        """The outcome event of a try."""
        now = datetime.now(UTC)
        redactor = self._ports.redactor
        if isinstance(result, ActionError):
            return failed_event(task, result, now=now, duration=duration, redactor=redactor, retry_in=retry_in)
        return executed_event(task, result, now=now, duration=duration, redactor=redactor)

    @staticmethod
    def target(task: ActionTask) -> str:
        """What the task calls: a host, a notifier, or the kind of action."""
        action = task.action
        kind = str(action.get("type"))
        if kind == "call-webhook":
            return f"{kind} {urlsplit(str(action.get('url'))).netloc}"
        if kind == "send-notification":
            return f"{kind} {action.get('notifier')}"
        return kind

    def _compile(self, spec: dict[str, Any]) -> tuple[CompiledAction, bool]:
        """The compiled action, and whether it may read all contributing events."""
        name = orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)
        found = self._compiled.get(name)
        if found is not None:
            self._compiled.move_to_end(name)
            return found
        try:
            found = compile_action(read_action(spec)), _READS_EVENTS.search(name) is not None
        except (InvalidInput, ValidationError) as error:
            # the rule was checked when it was loaded: another version of whenthen wrote the task
            raise ActionError(f"this version can not perform the action: {error}", retryable=False) from None
        self._compiled[name] = found
        if len(self._compiled) > _COMPILED:
            self._compiled.popitem(last=False)
        return found

    async def _events(self, refs: list[Ref]) -> list[dict[str, Any]]:
        """The contributing events that are still kept, oldest first."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(refs), _EVENTS_AT_ONCE):
            block = [ref for ref in refs[start : start + _EVENTS_AT_ONCE] if ref.seq]
            events = await asyncio.gather(*(self._bus.event_at(ref.seq) for ref in block))
            found += [event.data for event in events if event is not None]
        return found


class ActionMetrics(ExecutionObserver):
    """Counts tries and logs how they ended."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def executed(self, task: ActionTask, seconds: float) -> None:
        kind = task.action["type"]
        log.debug("%s: %s done", task.firing.automation, kind, extra={"firing": task.firing.id, "action": task.key})
        self._metrics.acted(task.firing.automation, str(task.action["type"]), "executed", seconds)

    def failed(self, task: ActionTask, error: ActionError, seconds: float, *, final: bool) -> None:
        outcome = "dead" if final else "failed"
        log.warning(
            "%s: %s failed%s: %s",
            task.firing.automation,
            task.action["type"],
            " for good, it is a dead letter" if final else "",
            error,
            extra={"firing": task.firing.id, "action": task.key, "attempt": task.attempt},
        )
        self._metrics.acted(task.firing.automation, str(task.action["type"]), outcome, seconds)
