"""The states of a flow run: the transitions between them, what each changes, and its event. Pure.

Everything that changes a run goes through `transition`; every transition is one revision in the store, and
`engine.flow_runs` publishes `flow_run_event` of each revision. Meaning: docs/deployments.md, "States".
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from whenthen.runs.pauses.pause_records import shown_pause
from whenthen.schemas.base import known_fields
from whenthen.schemas.deployments import (
    TERMINAL,
    Deployment,
    FlowRun,
    RunState,
)
from whenthen.schemas.errors import Conflict
from whenthen.schemas.events import Event, EventLimits, new_event
from whenthen.schemas.times import format_time, parse_us

__all__ = [
    "ALLOWED",
    "display_name",
    "due_at",
    "finish_attempt",
    "flow_run_event",
    "max_attempts",
    "new_run",
    "run_from_record",
    "run_id_of",
    "shown_run",
    "transition",
]

_S = RunState
_STOPPED = {_S.SUSPENDED, _S.CANCELLED, _S.FAILED}

#: from each state, the states a run may enter next; terminal states have none
ALLOWED: dict[RunState, frozenset[RunState]] = {
    _S.SCHEDULED: frozenset({_S.LATE, _S.PENDING, *_STOPPED}),
    _S.LATE: frozenset({_S.PENDING, *_STOPPED}),
    _S.RETRYING: frozenset({_S.PENDING, *_STOPPED}),
    _S.PENDING: frozenset(
        {
            *(_S.RUNNING, _S.SCHEDULED, _S.RETRYING, _S.SUSPENDED),
            *(_S.CANCELLING, _S.CANCELLED, _S.FAILED, _S.CRASHED),
        }
    ),
    _S.RUNNING: frozenset(
        {
            *(_S.COMPLETED, _S.FAILED, _S.TIMED_OUT, _S.CRASHED, _S.RETRYING, _S.CANCELLED),
            *(_S.CANCELLING, _S.PAUSED, _S.SUSPENDED, _S.SCHEDULED),
        }
    ),
    _S.PAUSED: frozenset(
        {
            *(_S.COMPLETED, _S.FAILED, _S.TIMED_OUT, _S.CRASHED, _S.RETRYING, _S.CANCELLED),
            *(_S.CANCELLING, _S.RUNNING, _S.SUSPENDED, _S.SCHEDULED),
        }
    ),
    _S.SUSPENDED: frozenset({_S.SCHEDULED, _S.CANCELLED, _S.FAILED}),
    _S.CANCELLING: frozenset({_S.CANCELLED}),
    **{state: frozenset() for state in TERMINAL},
}

#: fixed when the run is created
_FIXED = frozenset({"id", "deployment", "work_pool", "parameters", "key", "created", "state", "changed"})
_NAMESPACE = uuid.UUID("9c3f2b6e-5a2f-5a0e-9f0b-6c1d7d0e4a11")
_RETRIED = frozenset({_S.FAILED, _S.CRASHED, _S.TIMED_OUT})
_MESSAGE_CHARS = 4_000
_MAX_RELATED = 200


def run_id_of(key: str) -> str:
    """The run's id for an idempotency key: the same on every machine, 32 hexadecimal digits."""
    return uuid.uuid5(_NAMESPACE, key).hex


def new_run(
    deployment: Deployment,
    *,
    key: str,
    parameters: dict[str, Any],
    now: datetime,
    scheduled_for: datetime | None = None,
    late: bool = False,
    lineage: dict[str, Any] | None = None,
    trace: dict[str, str] | None = None,
    related: tuple[dict[str, str], ...] = (),
    triggered_by: str | None = None,
) -> FlowRun:
    """The first revision of a run: Scheduled, or Late when its time was missed. `parameters` win over the defaults."""
    return FlowRun(
        id=run_id_of(key),
        deployment=deployment.name,
        work_pool=deployment.work_pool,
        state=RunState.LATE if late else RunState.SCHEDULED,
        parameters={**deployment.parameters, **parameters},
        key=key,
        created=format_time(now),
        scheduled_for=format_time(scheduled_for or now),
        changed=format_time(now),
        tags=tuple(deployment.tags),
        lineage=lineage,
        trace=trace,
        related=related,
        triggered_by=triggered_by,
        retries=deployment.retries,
        retry_delay_s=deployment.retry_delay.total_seconds(),
        message="its time was missed" if late else "",
    )


def transition(run: FlowRun, to: RunState, now: datetime, **changes: Any) -> FlowRun:
    """The run in its next state. `changes` are fields of `FlowRun`; the others follow from the state.

    Entering Running increments `attempt`, unless from Paused, where the process goes on; a terminal state sets `ended`; a message and a
    pause last for one state. A run that is suspended while it is active has one attempt more. `changed` never decreases, even when `now`
    comes from a clock that lags.

    Raises:
        Conflict: there is no such transition; names both states.
        ValueError: a change of a field that is fixed for the life of the run.
    """
    if fixed := sorted(_FIXED & changes.keys()):
        raise ValueError(f"{', '.join(fixed)} of a flow run can not change")
    if to not in ALLOWED[run.state]:
        reason = "it has ended" if run.state in TERMINAL else f"from there it goes to {_listed(ALLOWED[run.state])}"
        raise Conflict(f"flow run {run.id} is {run.state} and can not become {to}: {reason}")
    at = max(format_time(now), run.changed)
    derived: dict[str, Any] = {"message": "", "not_before": None, "pause": None}
    if to is RunState.RUNNING and run.state is not RunState.PAUSED:
        derived |= {"started": at, "ended": None, "exit_code": None, "attempt": run.attempt + 1}
        derived["begun"] = run.begun or at
    elif to is RunState.SUSPENDED:
        derived |= {"worker": None, "suspensions": run.suspensions + (run.state in (RunState.RUNNING, RunState.PAUSED))}
    elif to in TERMINAL:
        derived |= {"ended": at}
    elif to in (RunState.SCHEDULED, RunState.RETRYING):
        derived |= {"worker": None}
    derived |= changes
    derived["message"] = str(derived["message"])[:_MESSAGE_CHARS]
    return replace(run, state=to, changed=at, **derived)


def finish_attempt(run: FlowRun, to: RunState, now: datetime, *, retry: bool = True, **changes: Any) -> FlowRun:
    """The run after an attempt that ended in `to`: in that state, or Retrying when it failed and attempts are left.

    A run that is being cancelled becomes Cancelled, however the attempt ended.
    """
    if run.state is RunState.CANCELLING:
        return transition(
            run, RunState.CANCELLED, now, **{**changes, "message": "cancelled", "result": None, "pause": None}
        )
    if (
        retry
        and run.state in (RunState.RUNNING, RunState.PAUSED)
        and to in _RETRIED
        and run.attempt < max_attempts(run)
    ):
        tried = f"try {run.attempt} of {max_attempts(run)}: {to}"
        said = changes.get("message")
        changes["message"] = f"{tried}: {said}" if said else tried
        changes["not_before"] = format_time(now + timedelta(seconds=run.retry_delay_s))
        return transition(run, RunState.RETRYING, now, **changes)
    return transition(run, to, now, **changes)


def due_at(run: FlowRun) -> datetime:
    """When a waiting run may start."""
    return datetime.fromisoformat(run.not_before or run.scheduled_for)


def max_attempts(run: FlowRun) -> int:
    """The most attempts of the run. Those that ended for a suspension come on top."""
    return run.retries + 1 + run.suspensions


def shown_run(run: FlowRun) -> dict[str, Any]:
    """A run as the API has it."""
    return {**asdict(run), "state": run.state.value}


def display_name(run: FlowRun) -> str:
    """The run's name for people."""
    return f"{run.deployment}-{run.id[:8]}"


def flow_run_event(run: FlowRun, version: int, now: datetime) -> Event:
    """The event of the transition that made revision `version`: `flow-run.<State>`.

    The same revision gives the same id, on any machine and at any time, so that publishing it twice is one event.
    """
    limits = EventLimits()
    flow = run.deployment.partition("/")[0]  # where a name has no slash, deployment and flow have the same one
    related = [
        {"id": f"whenthen.deployment.{run.deployment}", "role": "deployment", "name": run.deployment},
        {"id": f"whenthen.work-pool.{run.work_pool}", "role": "work-pool", "name": run.work_pool},
        {"id": f"whenthen.flow.{flow}", "role": "flow", "name": flow},
        *({"id": f"whenthen.tag.{tag}", "role": "tag", "name": tag} for tag in run.tags),
        *run.related,
    ]
    occurred = datetime.fromisoformat(run.changed)
    return new_event(
        f"flow-run.{run.state}",
        id=f"{run.id}-{version}",
        resource={
            "id": f"whenthen.flow-run.{run.id}",
            "name": display_name(run),
            "deployment": run.deployment,
            "flow": flow,
            "state": run.state.value,
        },
        related=[item for item in related if _is_resource(item, limits)][:_MAX_RELATED],
        payload={
            "id": run.id,
            "deployment": run.deployment,
            "work_pool": run.work_pool,
            "state": run.state.value,
            "message": run.message,
            "parameters": run.parameters,
            "attempt": run.attempt,
            "attempts": max_attempts(run),
            "exit_code": run.exit_code,
            "result": run.result,
            "created": run.created,
            "scheduled_for": run.scheduled_for,
            "started": run.started,
            "ended": run.ended,
            "duration": _duration_s(run),
            "lateness": _lateness_s(run),
            "succeeded": int(run.state is RunState.COMPLETED) if run.state in TERMINAL else None,
            "triggered_by": run.triggered_by,
            "worker": run.worker,
            **({} if run.pause is None else {"pause": shown_pause(run.pause)}),
        },
        occurred=min(occurred, now + timedelta(minutes=1)),
        now=now,
        source="flow-runs",
        lineage=run.lineage,
        trace=run.trace,
        limits=limits,
    )


def _lateness_s(run: FlowRun) -> float | None:
    """How much later than it was to start a run's first attempt started. What a backfill makes up for was not to start before."""
    if run.begun is None or (run.triggered_by or "").startswith("backfill:"):
        return None
    return max(parse_us(run.begun) - parse_us(run.scheduled_for), 0) / 1_000_000


def _duration_s(run: FlowRun) -> float | None:
    if run.started is None:
        return None
    return max(parse_us(run.ended or run.changed) - parse_us(run.started), 0) / 1_000_000


def _is_resource(labels: Any, limits: EventLimits) -> bool:
    return (
        isinstance(labels, dict)
        and bool(labels.get("id"))
        and len(labels) <= limits.labels
        and all(
            isinstance(text, str) and len(text) <= limits.label_chars and (text.isprintable() or not text)
            for text in labels.values()
        )
    )


def _listed(states: frozenset[RunState]) -> str:
    return ", ".join(state for state in RunState if state in states)


def run_from_record(record: dict[str, Any]) -> FlowRun:
    """A run from its JSON record; fields of a newer version are left out."""
    known = known_fields(FlowRun, record)
    known["state"] = RunState(known["state"])
    known["tags"] = tuple(known.get("tags") or ())
    known["related"] = tuple(known.get("related") or ())
    return FlowRun(**known)
