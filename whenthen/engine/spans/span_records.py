"""Spans as values, and what they are made of. Pure.

Their ids are made of what they are about (`schemas.trace_context.span_id`), so that two processes name the same one without asking each other, and what
is done twice, as after a crash, gives the same span twice. The way down: request, event, evaluation, firing, action, run. An event names the span
that it comes from in its trace (`parent`), a firing is below the evaluation of its event, an action below its firing, and a run below its action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from whenthen.schemas.deployments import FlowRun, RunState
from whenthen.schemas.events import Event
from whenthen.schemas.firings import ActionTask, Decision, Firing
from whenthen.schemas.times import parse_us
from whenthen.schemas.trace_context import child_trace, derived_trace, is_sampled, span_id, valid_trace

__all__ = ["SpanKind", "SpanRecord", "Spans", "action_spans", "evaluation_span", "firing_span", "run_span"]

MOST_NOTES = 32  #: decisions told in the span of an evaluation
MOST_CHARS = 500  #: of a text
Value = str | int | bool


class SpanKind(StrEnum):
    SERVER = "server"
    PRODUCER = "producer"
    CONSUMER = "consumer"
    CLIENT = "client"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRecord:
    """A span that has ended. Times are microseconds since 1970."""

    name: str
    trace: str  #: the trace's id
    id: str
    parent: str | None  #: the span that it is below; None begins a trace
    kind: SpanKind = SpanKind.INTERNAL
    start_us: int
    end_us: int
    attributes: Mapping[str, Value] = field(default_factory=dict)
    notes: Sequence[tuple[str, int, Mapping[str, Value]]] = ()  #: what happened in it: name, time, attributes
    error: str = ""  #: why it failed; empty when it did not


class Spans:
    """Takes spans, and does nothing with them. Never waits and never fails."""

    on = False  #: whether anybody wants them; when not, none is made

    def samples(self, trace_id: str) -> bool:
        """Whether the spans of a trace that begins here are wanted."""
        return False

    def record(self, span: SpanRecord) -> None:
        """Have a span exported."""

    async def close(self, within_s: float) -> None:
        """Export what is left, for at most so long."""


def evaluation_span(
    shard: int, event: Event, decisions: Sequence[Decision], *, start_us: int, end_us: int
) -> SpanRecord | None:
    """What a shard decided for an event; None of an event without a trace, or of one that is not sampled."""
    trace = valid_trace(event.data.get("trace"))
    if trace is None or not is_sampled(trace):
        return None
    notes = [(each.reason.value, end_us, _decision(each)) for each in decisions[:MOST_NOTES]]
    return SpanRecord(
        name=f"evaluate {event.name[:MOST_CHARS]}",
        trace=trace["id"],
        id=_evaluation_id(event.id, shard),
        parent=trace["parent"],
        kind=SpanKind.CONSUMER,
        start_us=start_us,
        end_us=end_us,
        attributes={
            "whenthen.event": event.id,
            "whenthen.event.name": event.name[:MOST_CHARS],
            "whenthen.shard": shard,
            "whenthen.position": event.seq,
            "whenthen.decisions": len(decisions),
        },
        notes=notes,
    )


def firing_span(shard: int, firing: Firing, *, end_us: int) -> SpanRecord | None:
    """A firing, from what it is about to its commit; None when it is not sampled."""
    trace = firing.current_trace
    if not is_sampled(trace):
        return None
    came = valid_trace(firing.trace)
    event_id = None if firing.event is None else firing.event["id"]
    start_us = min(parse_us(firing.at), end_us)
    received = None if firing.event is None else firing.event.get("received")
    if isinstance(received, str):  # an event may have occurred long before
        start_us = min(max(start_us, parse_us(received)), end_us)
    return SpanRecord(
        name=f"fire {firing.automation}",
        trace=trace["id"],
        id=span_id(firing.id),
        parent=_evaluation_id(event_id, shard) if came is not None and event_id is not None else None,
        start_us=start_us,
        end_us=end_us,
        attributes={
            "whenthen.automation": firing.automation,
            "whenthen.firing": firing.id,
            "whenthen.state": firing.state.value,
            "whenthen.events": firing.total,
            **({"whenthen.event": event_id} if event_id is not None else {}),
        },
    )


def action_spans(
    task: ActionTask, trace: Mapping[str, str], *, end_us: int, seconds: float, error: str = "", final: bool
) -> list[SpanRecord]:
    """An attempt of an action, and the action itself when that was the last one. `trace` is what the action sends on: its parent is the action."""
    if not is_sampled(trace):
        return []
    start_us = end_us - int(seconds * 1e6)
    attributes: dict[str, Value] = {
        "whenthen.automation": task.firing.automation,
        "whenthen.action": task.key,
        "whenthen.action.type": str(task.action["type"]),
        "whenthen.attempt": task.attempt,
    }
    spans = [
        SpanRecord(
            name=f"attempt {task.action['type']}",
            trace=trace["id"],
            id=span_id(f"{task.key}/{task.attempt}"),
            parent=trace["parent"],
            kind=SpanKind.CLIENT,
            start_us=start_us,
            end_us=end_us,
            attributes=attributes,
            error=error[:MOST_CHARS],
        )
    ]
    if final:
        spans.append(
            SpanRecord(
                name=f"action {task.action['type']}",
                trace=trace["id"],
                id=trace["parent"],
                parent=span_id(task.firing.id),
                start_us=start_us if task.attempt == 1 else min(start_us, max(parse_us(task.firing.at), 0)),
                end_us=end_us,
                attributes=attributes,
                error=error[:MOST_CHARS],
            )
        )
    return spans


def run_span(run: FlowRun) -> SpanRecord | None:
    """A flow run that has ended; None when it is not sampled."""
    came = valid_trace(run.trace)
    trace = came or derived_trace(run.id)
    if run.ended is None or not is_sampled(trace):
        return None
    return SpanRecord(
        name=f"run {run.deployment}",
        trace=trace["id"],
        id=child_trace(trace, run.id)["parent"],
        parent=None if came is None else came["parent"],
        kind=SpanKind.CONSUMER,
        start_us=parse_us(run.started or run.created),
        end_us=parse_us(run.ended),
        attributes={
            "whenthen.run": run.id,
            "whenthen.deployment": run.deployment,
            "whenthen.work_pool": run.work_pool,
            "whenthen.state": run.state.value,
            "whenthen.attempt": run.attempt,
        },
        error="" if run.state is RunState.COMPLETED else f"{run.state.value}: {run.message}"[:MOST_CHARS],
    )


def _evaluation_id(event_id: str, shard: int) -> str:
    return span_id(f"evaluation {shard} {event_id}")


def _decision(decision: Decision) -> dict[str, Any]:
    found = {"whenthen.automation": decision.automation, "whenthen.detail": decision.detail[:MOST_CHARS]}
    if decision.firing is not None:
        found["whenthen.firing"] = decision.firing
    return found
