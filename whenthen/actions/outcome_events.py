"""What became of an action, as an event. Pure.

Called by the execution loop of `engine` after each attempt that ends an action.
The ids are made of the idempotency key: publishing an outcome again is publishing the same event. Outcomes carry the
lineage of the firing, so a rule that fires on its own outcome ends at the depth limit.
Meaning of the fields: docs/actions.md, "Outcomes".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from whenthen.actions.attempts import ActionResult, action_trace, automation_id, lineage, links
from whenthen.actions.secrets import Redactor
from whenthen.schemas.errors import ActionError
from whenthen.schemas.events import Event, new_event
from whenthen.schemas.firings import ActionTask

__all__ = ["EXECUTED", "FAILED", "action_trace", "executed_event", "failed_event"]

EXECUTED = "automation.action.executed"
FAILED = "automation.action.failed"
#: of a failure's message
MESSAGE_CHARS = 2000


def executed_event(
    task: ActionTask, result: ActionResult, *, now: datetime, duration: timedelta, redactor: Redactor
) -> Event:
    """The action is done. One id for a key: an action is executed once, however often it is reported."""
    payload = {"details": redactor.value(result.details)}
    return _event(EXECUTED, task, f"{task.key}.executed", payload, now, duration, result.related, redactor)


def failed_event(
    task: ActionTask,
    error: ActionError,
    *,
    now: datetime,
    duration: timedelta,
    redactor: Redactor,
    retry_in: timedelta | None,
) -> Event:
    """Try number `task.attempt` failed; `retry_in` is None when it was the last one and the action is a dead letter."""
    message = redactor.text(str(error))
    payload: dict[str, Any] = {
        "reason": error.reason,
        "message": message if len(message) <= MESSAGE_CHARS else message[: MESSAGE_CHARS - 1] + "…",
        "retryable": error.retryable,
        "final": retry_in is None,
        "retry_in_s": None if retry_in is None else round(retry_in.total_seconds(), 3),
    }
    if error.sent is not None:
        payload["sent"] = error.sent
    return _event(FAILED, task, f"{task.key}.failed.{task.attempt}", payload, now, duration, (), redactor)


def _event(
    name: str,
    task: ActionTask,
    id: str,
    payload: dict[str, Any],
    now: datetime,
    duration: timedelta,
    related: tuple[dict[str, str], ...],
    redactor: Redactor,
) -> Event:
    firing = task.firing
    return new_event(
        name,
        id=id,
        resource={"id": automation_id(firing.automation), "name": firing.automation, "action": task.action["type"]},
        related=[*links(firing, firing.event), *(redactor.value(item) for item in related)],
        payload={
            "action": task.action["type"],
            "index": task.index,
            "attempt": task.attempt,
            "key": task.key,
            "duration_ms": round(duration.total_seconds() * 1000, 3),
            **payload,
        },
        source="whenthen",
        lineage=lineage(firing),
        trace=action_trace(task),
        now=now,
    )
