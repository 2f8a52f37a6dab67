"""Which events come back of a firing's actions: what they emit, and those of the outcomes that a test gives them.

Made by the code that makes them in a server, so names, ids, lineage and payload are the same. Called by `playing`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from whenthen.actions import (
    EVENT_FIELDS,
    VARIABLES,
    ActionResult,
    CompiledAction,
    actions_of,
    compile_action,
    outcome_events,
    variables_of,
)
from whenthen.actions.secrets import Redactor
from whenthen.runs.run_states import flow_run_event
from whenthen.schemas.actions import ActionBase, RunDeployment
from whenthen.schemas.deployments import TERMINAL, FlowRun, RunState
from whenthen.schemas.errors import ActionError, InvalidInput, RenderError
from whenthen.schemas.events import Event
from whenthen.schemas.firings import ActionTask, Firing
from whenthen.schemas.ruletests import ActionOutcome
from whenthen.schemas.times import format_time
from whenthen.templates import compile_value
from whenthen.triggers import RuleSet

__all__ = ["FollowedActions", "Made", "render_action"]

PUBLIC_URL = "https://public-url.example"  #: where the pages are in tests


@dataclass(slots=True)
class Made:
    """What comes back of a firing. `problems` says what could not be made, and why."""

    events: list[tuple[timedelta, Event]] = field(default_factory=list)  #: each with how long after the firing it comes
    problems: list[str] = field(default_factory=list)


def render_action(action: ActionBase, firing: Firing, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """An action in long form with every template rendered; `events` are the contributing ones.

    Raises:
        RenderError: a value is missing; the message names the field.
    """
    event = firing.seen_event
    variables = variables_of(firing, list(events), lambda: PUBLIC_URL)
    spec = action.model_dump(mode="json", exclude={"retry", "timeout"}, exclude_none=True)
    compiled = compile_value(spec, known=VARIABLES | variables.keys(), known_steps=VARIABLES | EVENT_FIELDS)
    rendered: dict[str, Any] = compiled.render({"event": event, **variables}, {**(event or {}), **variables})
    return rendered


class FollowedActions:
    def __init__(self, rules: RuleSet, outcomes: Sequence[ActionOutcome]) -> None:
        self._rules = rules
        self._outcomes = outcomes
        self._compiled: dict[int, CompiledAction] = {}
        self._redactor = Redactor()

    def of(self, firing: Firing, events: Sequence[dict[str, Any]], *, now: datetime) -> Made:
        """The events of a firing at `now`; `events` are the contributing ones."""
        made = Made()
        for index, action in enumerate(actions_of(self._rules.actions(firing.automation), firing)):
            compiled = self._compile(action)
            spec = {"type": compiled.type}
            task = ActionTask(key=f"{firing.id}.{index}", index=index, firing=firing, action=spec)
            outcome = self._outcome(firing.automation, compiled.type)
            try:
                event = compiled.emitted(task, event=firing.seen_event, events=events, now=now)
                if event is not None:
                    made.events.append((timedelta(0), event))
                if outcome is not None:
                    made.events += self._come_of(outcome, task, action, events, now)
            except (RenderError, InvalidInput) as error:
                made.problems.append(f"nothing came of {firing.automation}: {error.below('actions', index)}")
        return made

    def _compile(self, action: ActionBase) -> CompiledAction:
        compiled = self._compiled.get(id(action))
        if compiled is None:
            compiled = self._compiled[id(action)] = compile_action(action)
        return compiled

    def _outcome(self, automation: str, kind: str) -> ActionOutcome | None:
        for outcome in self._outcomes:
            if outcome.automation == automation and outcome.action in (None, kind):
                return outcome
        return None

    def _come_of(
        self,
        outcome: ActionOutcome,
        task: ActionTask,
        action: ActionBase,
        events: Sequence[dict[str, Any]],
        now: datetime,
    ) -> Iterator[tuple[timedelta, Event]]:
        """The events of an action's outcome."""
        at, took, redactor = now + outcome.after, outcome.after, self._redactor
        if outcome.outcome == "failed":
            error = ActionError("failed, as the test says", retryable=False, reason=outcome.reason)
            yield (
                took,
                outcome_events.failed_event(task, error, now=at, duration=took, redactor=redactor, retry_in=None),
            )
            return
        yield took, outcome_events.executed_event(task, ActionResult(), now=at, duration=took, redactor=redactor)
        if outcome.run is not None and isinstance(action, RunDeployment):
            spec = render_action(action, task.firing, events)
            yield took, flow_run_event(_run(spec, task, outcome.run, now, at), 1, at)


def _run(spec: dict[str, Any], task: ActionTask, state: RunState, created: datetime, changed: datetime) -> FlowRun:
    """The run that the action created, in a state."""
    first, last = format_time(created), format_time(changed)
    firing = task.firing
    return FlowRun(
        id=hashlib.blake2b(task.key.encode(), digest_size=16).hexdigest(),
        deployment=spec.get("deployment") or (firing.seen_event or {}).get("resource", {}).get("deployment", ""),
        work_pool="default",
        state=state,
        parameters=spec["parameters"],
        key=task.key,
        created=first,
        scheduled_for=first,
        changed=last,
        started=first,
        ended=last if state in TERMINAL else None,
        attempt=1,
        lineage={"depth": firing.depth, "firing": firing.id, "automations": list(firing.automations)},
        trace=firing.current_trace,
        triggered_by=f"automation:{firing.automation}",
    )
