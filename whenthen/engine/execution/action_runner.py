"""Between the execution loop and the actions: finds what a task asks for, loads its events, names its target.

Built by the wiring; the loop (`engine.execution.executor`) knows nothing of actions, the actions nothing of the loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import orjson
from pydantic import ValidationError

from whenthen.actions import (
    ActionResult,
    CompiledAction,
    compile_action,
    encode_spec,
    perform,
    read_action,
    spec_digest,
)
from whenthen.actions.outcome_events import action_trace, executed_event, failed_event
from whenthen.actions.ports import Ports
from whenthen.engine.bus.connection import Bus
from whenthen.engine.execution.executor import ExecutionObserver
from whenthen.engine.metrics import Metrics
from whenthen.engine.spans import Spans, action_spans
from whenthen.schemas.errors import ActionError, InvalidInput
from whenthen.schemas.events import Event
from whenthen.schemas.firings import ActionTask, Firing, Ref

__all__ = ["ActionMetrics", "ActionRunner"]

log = logging.getLogger(__name__)

MAX_KNOWN = 2000  #: actions kept with their specifications
UNKNOWN = "unknown_action"  #: the reason of an action that nobody published
_DIGEST = re.compile(r"[0-9a-f]{24}")
_EVENTS_AT_ONCE = 64


class ActionRunner:
    """Performs tasks through `ports`, and no action but those of the rules in force and those that were published.

    `find` gives the compiled action of the rules in force for a firing and an index, `published` the specification that has a
    digest (`SpecStore.find`).
    """

    def __init__(
        self,
        bus: Bus,
        ports: Ports,
        find: Callable[[Firing, int], CompiledAction | None],
        published: Callable[[str], Awaitable[bytes | None]],
    ) -> None:
        self._bus = bus
        self._ports = ports
        self._find = find
        self._published = published
        #: by digest, each with its specification
        self._known: OrderedDict[str, tuple[CompiledAction, dict[str, Any]]] = OrderedDict()

    async def resolve(self, task: ActionTask) -> ActionTask:
        """The task with the whole specification of its action, which it names by digest.

        The automation may have been changed or removed since: then it is the one that was published before the task was made. What
        a task itself says of its action is never performed.

        Raises:
            ActionError: no rule set that is known has had such an action. Another attempt does not help.
            BusUnavailable: it can not be looked up now.
        """
        digest = task.digest or _digest_today(task.action)
        if task.digest and task.action.keys() - {"type"} and spec_digest(orjson.dumps(task.action)) != digest:
            raise _unknown("the task spells out another action than the one it names")
        known = await self._look_up(task.firing, task.index, digest)
        return dataclasses.replace(task, action=known[1], digest=digest)

    async def perform(self, task: ActionTask) -> ActionResult:
        """One attempt of one task that is resolved.

        Raises:
            ActionError: it did not work; `retryable` says whether another attempt may help.
        """
        compiled, _ = await self._look_up(task.firing, task.index, task.digest)
        firing = task.firing
        events: list[dict[str, Any]] = []
        if compiled.reads_events:
            own = None if firing.event is None else firing.event["id"]
            others = [ref for ref in firing.refs if ref.id != own and not (ref.seq and ref.seq == firing.seq)]
            events = await self._events(others)
        event = firing.seen_event
        if event is not None:
            events.append(event)
        return await perform(
            task,
            compiled,
            firing=firing,
            event=event,
            events=events,
            ports=self._ports,
            now=datetime.now(UTC),
        )

    def describe(self, task: ActionTask, result: Any, duration: timedelta, retry_in: timedelta | None) -> Event:
        """The outcome event of an attempt."""
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

    async def _look_up(self, firing: Firing, index: int, digest: str) -> tuple[CompiledAction, dict[str, Any]]:
        """The action with a digest: one of the rules in force, or one that was published."""
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
            return known
        found = self._find(firing, index)
        if found is not None and found.digest == digest:
            return self._keep(digest, found, orjson.loads(encode_spec(found.action)))
        spec = await self._published(digest) if _DIGEST.fullmatch(digest) else None
        if spec is None:
            raise _unknown(f"no rule set that was published has an action {digest[:64]!r}")
        try:
            fields = orjson.loads(spec)
            compiled = compile_action(read_action(fields))
        except (InvalidInput, ValidationError, ValueError, TypeError) as error:
            # the rule was checked when it was loaded: another version of whenthen published it
            raise ActionError(f"this version can not perform the action: {error}", retryable=False) from None
        return self._keep(digest, compiled, fields)

    def _keep(
        self, digest: str, compiled: CompiledAction, fields: dict[str, Any]
    ) -> tuple[CompiledAction, dict[str, Any]]:
        known = self._known[digest] = (compiled, fields)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return known

    async def _events(self, refs: list[Ref]) -> list[dict[str, Any]]:
        """The contributing events that are still kept, oldest first."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(refs), _EVENTS_AT_ONCE):
            block = [ref for ref in refs[start : start + _EVENTS_AT_ONCE] if ref.seq]
            events = await asyncio.gather(*(self._bus.event_at(ref.seq) for ref in block))
            found += [event.data for event in events if event is not None]
        return found


def _digest_today(spelled_out: dict[str, Any]) -> str:
    """The digest by which an action is known that a task of the first format spells out.

    Fields may have got other names since then, so it is read and encoded as today's rules are.
    """
    try:
        return spec_digest(encode_spec(read_action(spelled_out)))
    except (ValidationError, ValueError, TypeError, RecursionError):
        return spec_digest(orjson.dumps(spelled_out))


def _unknown(why: str) -> ActionError:
    return ActionError(
        f"refused: {why}; it was not made by the rules here, or long before them",
        retryable=False,
        reason=UNKNOWN,
    )


def _ids(task: ActionTask) -> dict[str, str]:
    return {"firing": task.firing.id, "action": task.key, "trace": task.firing.current_trace["id"]}


class ActionMetrics(ExecutionObserver):
    """Counts attempts, logs how they ended, and records their spans."""

    def __init__(self, metrics: Metrics, spans: Spans | None = None) -> None:
        self._metrics = metrics
        self._spans = spans or Spans()

    def executed(self, task: ActionTask, seconds: float) -> None:
        kind = task.action["type"]
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: %s done", task.firing.automation, kind, extra=_ids(task))
        self._metrics.acted(task.firing.automation, str(task.action["type"]), "executed", seconds)
        self._record(task, seconds, final=True)

    def failed(self, task: ActionTask, error: ActionError, seconds: float, *, final: bool) -> None:
        outcome = "dead" if final else "failed"
        self._record(task, seconds, error=f"{error.reason}: {error}", final=final)
        log.warning(
            "%s: %s failed%s: %s",
            task.firing.automation,
            task.action["type"],
            " for good, it is a dead letter" if final else "",
            error,
            extra={**_ids(task), "attempt": task.attempt},
        )
        if error.reason == UNKNOWN:  # what such a task says of itself is no label
            self._metrics.refused_actions.inc()
        else:
            self._metrics.acted(task.firing.automation, str(task.action["type"]), outcome, seconds)

    def _record(self, task: ActionTask, seconds: float, *, error: str = "", final: bool) -> None:
        if not self._spans.on:
            return
        now_us = time.time_ns() // 1000
        for span in action_spans(task, action_trace(task), end_us=now_us, seconds=seconds, error=error, final=final):
            self._spans.record(span)
