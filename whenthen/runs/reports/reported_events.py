"""Events of a run: those that its code emits, and those of its task runs. Pure. Both carry the lineage and the trace of the run.

A worker puts what was told into a queue (`told_event`, `told_move`), and whoever may publish events makes them of it (`event_of_told`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from whenthen.runs.reports.task_runs import TaskRunMove, move_of_record, record_of_move
from whenthen.runs.run_states import display_name
from whenthen.schemas.deployments import FlowRun
from whenthen.schemas.events import FIELDS, Event, check_outside, new_event, read_event

__all__ = ["event_of_report", "event_of_told", "told_event", "told_move"]

_LABELS: Final = {"prefect.resource.id": "id", "prefect.resource.name": "name", "prefect.resource.role": "role"}


def told_event(fields: dict[str, Any]) -> dict[str, Any]:
    """What a run emitted, as it waits in the queue."""
    return {"event": fields}


def told_move(move: TaskRunMove) -> dict[str, Any]:
    """A move of a task run, as it waits in the queue."""
    return {"move": record_of_move(move, known=False)}


def event_of_told(told: dict[str, Any], run: FlowRun, now: datetime) -> Event:
    """The event of what waited in the queue.

    Raises:
        InvalidEvent, ReservedName, KeyError, TypeError, ValueError: it is none.
    """
    if "move" in told:
        return event_of_task_run(move_of_record(told["move"]), run, now)
    return event_of_report(told["event"], run, now)


def event_of_report(fields: dict[str, Any], run: FlowRun, now: datetime) -> Event:
    """The event that code of `run` emitted; the run is a related resource of it.

    Raises:
        InvalidEvent: it is none. ReservedName: it passes for one of the engine's own.
    """
    related = fields.get("related")
    given = {name: value for name, value in fields.items() if name in FIELDS and value is not None}
    if "resource" in given:
        given["resource"] = _short(given["resource"])
    given["related"] = [*map(_short, related if isinstance(related, list) else []), _of_run(run)]
    event = read_event(given, now=now, source="flow-runs", lineage=run.lineage, trace=run.trace)
    check_outside(event, reserved_names=False)
    return event


def event_of_task_run(move: TaskRunMove, run: FlowRun, now: datetime) -> Event:
    """`task-run.<State>`. The same move gives the same id, so that it is one event however often it is told.

    Raises:
        InvalidEvent: a name is too long, or has control characters.
    """
    occurred = datetime.fromisoformat(move.at)
    return new_event(
        f"task-run.{move.state_name}",
        id=f"{move.id}-{move.n}",
        resource={
            "id": f"whenthen.task-run.{move.id}",
            "name": move.name,
            "task": move.of,
            "state": move.state_name,
            "type": move.state,
            "deployment": run.deployment,
        },
        related=[
            _of_run(run),
            {"id": f"whenthen.deployment.{run.deployment}", "role": "deployment", "name": run.deployment},
        ],
        payload={
            "id": move.id,
            "state": move.state_name,
            "type": move.state,
            "message": move.message,
            "tries": move.tries,
            "tags": list(move.tags),
            "flow_run": run.id,
            "attempt": move.attempt,
        },
        occurred=min(occurred, now + timedelta(minutes=1)),
        now=now,
        source="flow-runs",
        lineage=run.lineage,
        trace=run.trace,
    )


def _of_run(run: FlowRun) -> dict[str, str]:
    return {"id": f"whenthen.flow-run.{run.id}", "role": "flow-run", "name": display_name(run)}


def _short(labels: Any) -> Any:
    """Labels of Prefect's under their names here; a label that is there already stays."""
    if not isinstance(labels, dict):
        return labels
    renamed = {name: value for name, value in labels.items() if name not in _LABELS}
    return {**{_LABELS[name]: value for name, value in labels.items() if name in _LABELS}, **renamed}
