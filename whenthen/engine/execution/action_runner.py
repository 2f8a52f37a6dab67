"""Between the execution loop and the actions: finds what a task asks for, loads its events, names its target.

Built by the wiring; the loop (`engine.execution.executor`) knows nothing of actions, the actions nothing of the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
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
    spec_digest,
)
from whenthen.engine.bus import Bus
from whenthen.engine.execution.executor import ExecutionObserver
from whenthen.engine.metrics import Metrics
from whenthen.schemas import ActionError, ActionTask, Event, Firing, InvalidInput, Ref

__all__ = ["ActionMetrics", "ActionRunner"]

log = logging.getLogger(__name__)

MAX_OTHER = 1000  #: compiled actions kept that the rules in force do not have
_EVENTS_AT_ONCE = 64


class ActionRunner:
    """Performs tasks through `ports`. `find` gives the compiled action of the rules in force for a firing and an index."""

    def __init__(self, bus: Bus, ports: Ports, find: Callable[[Firing, int], CompiledAction | None]) -> None:
        self._bus = bus
        self._ports = ports
        self._find = find
        self._other: OrderedDict[str, CompiledAction] = OrderedDict()  #: by digest; not in the rules in force

    async def perform(self, task: ActionTask) -> ActionResult:
        """One try of one task.

        Raises:
            ActionError: it did not work; `retryable` says whether another try may help.
        """
        compiled = self._compiled(task)
        firing = task.firing
        events: list[dict[str, Any]] = []
        if compiled.reads_events:
            own = None if firing.event is None else firing.event["id"]
            others = [ref for ref in firing.refs if ref.id != own and not (ref.seq and ref.seq == firing.seq)]
            events = await self._events(others)
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

    def _compiled(self, task: ActionTask) -> CompiledAction:
        """The rule set's compiled action when the task asks for the same; otherwise what the task's own spec says.

        They differ when the automation was changed or removed since, and then the task is performed as it was asked.
        """
        found = self._find(task.firing, task.index)
        # a task of an earlier version has no digest; the spec in it is in the same form
        digest = task.digest or spec_digest(orjson.dumps(task.action))
        if found is not None and found.digest == digest:
            return found
        return self._of_spec(task.action)

    def _of_spec(self, spec: dict[str, Any]) -> CompiledAction:
        digest = spec_digest(orjson.dumps(spec))
        found = self._other.get(digest)
        if found is not None:
            self._other.move_to_end(digest)
            return found
        try:
            found = compile_action(read_action(spec))
        except (InvalidInput, ValidationError) as error:
            # the rule was checked when it was loaded: another version of whenthen wrote the task
            raise ActionError(f"this version can not perform the action: {error}", retryable=False) from None
        self._other[digest] = found
        if len(self._other) > MAX_OTHER:
            self._other.popitem(last=False)
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
