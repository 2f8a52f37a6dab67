"""Compiling actions when rules are loaded, and performing one attempt of one action.

`engine` calls `compile_action` for each action of a rule set (a refusal refuses the set) and `perform` for each task
that its execution loop takes; `engine.execution` retries, stores dead letters and publishes outcome events, with `retries` and `outcome_events`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import orjson
from pydantic import TypeAdapter

from whenthen.actions.attempts import ActionResult, Call, Handler
from whenthen.actions.automation_actions import AutomationHandler, NothingHandler
from whenthen.actions.deployment_actions import (
    DeploymentHandler,
    RunDeploymentHandler,
    ScheduleHandler,
    WorkPoolHandler,
)
from whenthen.actions.emit_event import EmitEventHandler
from whenthen.actions.fields import fields_of
from whenthen.actions.flow_runs.fetched_variables import FETCHED, fetch
from whenthen.actions.flow_runs.flow_run_actions import (
    CancelFlowRunHandler,
    ChangeFlowRunStateHandler,
    DeleteFlowRunHandler,
    ResumeFlowRunHandler,
    RetryFlowRunHandler,
    SuspendFlowRunHandler,
)
from whenthen.actions.http.call_webhook import CallWebhookHandler
from whenthen.actions.page_addresses import URL_OF
from whenthen.actions.ports import Ports
from whenthen.actions.send_notification import SendNotificationHandler
from whenthen.schemas.actions import Action, ActionBase
from whenthen.schemas.errors import (
    ActionError,
    FieldPath,
    InvalidInput,
    InvalidTemplate,
    NotFound,
    Refused,
    RenderError,
    WhenthenError,
)
from whenthen.schemas.events import Event
from whenthen.schemas.firings import ActionTask, Firing
from whenthen.schemas.times import format_duration

__all__ = ["CompiledAction", "compile_action", "encode_spec", "perform", "read_action", "spec_digest"]

_COMPILERS: Mapping[str, Callable[[Any], Handler]] = {
    "run-deployment": RunDeploymentHandler.compile,
    "pause-deployment": DeploymentHandler.compile,
    "resume-deployment": DeploymentHandler.compile,
    "pause-schedule": ScheduleHandler.compile,
    "resume-schedule": ScheduleHandler.compile,
    "pause-work-pool": WorkPoolHandler.compile,
    "resume-work-pool": WorkPoolHandler.compile,
    "retry-flow-run": RetryFlowRunHandler.compile,
    "cancel-flow-run": CancelFlowRunHandler.compile,
    "suspend-flow-run": SuspendFlowRunHandler.compile,
    "resume-flow-run": ResumeFlowRunHandler.compile,
    "change-flow-run-state": ChangeFlowRunStateHandler.compile,
    "delete-flow-run": DeleteFlowRunHandler.compile,
    "pause-automation": AutomationHandler.compile,
    "resume-automation": AutomationHandler.compile,
    "send-notification": SendNotificationHandler.compile,
    "call-webhook": CallWebhookHandler.compile,
    "emit-event": EmitEventHandler.compile,
    "do-nothing": NothingHandler.compile,
}

#: errors of the ports that another attempt does not change
_PERMANENT = (NotFound, InvalidInput, RenderError, Refused)

_ACTIONS: TypeAdapter[ActionBase] = TypeAdapter(Action)


@dataclass(frozen=True, slots=True)
class CompiledAction:
    """An action with everything decided that does not depend on an event. Immutable; share it between attempts."""

    action: ActionBase
    handler: Handler
    digest: str  #: of the spec; see `spec_digest`
    reads_events: bool  #: whether its templates may look at `events`, so that all contributing events are needed
    fetches: frozenset[str] = frozenset()  #: the variables of its templates that are fetched when it runs
    link_fields: tuple[
        FieldPath, ...
    ] = ()  #: those whose templates use `url_of`, which needs to know where the pages are

    @property
    def type(self) -> str:
        """`run-deployment`, ..."""
        return str(self.action.type)  # type: ignore[attr-defined]

    def emitted(
        self,
        task: ActionTask,
        *,
        event: dict[str, Any] | None,
        events: Sequence[dict[str, Any]],
        now: datetime,
    ) -> Event | None:
        """The event that an `emit-event` publishes for a task; None for other actions. Nothing is published.

        Raises:
            RenderError, InvalidEvent: it can not be made of the firing.
        """
        if not isinstance(self.handler, EmitEventHandler):
            return None
        nothing = cast(Ports, None)  # making an event touches nothing outside
        call = Call(task=task, firing=task.firing, event=event, events=list(events), ports=nothing, now=now)
        return self.handler.event_of(call)


def encode_spec(action: ActionBase) -> bytes:
    """The spec of an action: its long form as JSON, as it goes into a task."""
    return orjson.dumps(action.model_dump(mode="json"))


def spec_digest(spec: bytes) -> str:
    """24 hexadecimal digits by which two specs are known to be the same, in any process."""
    return hashlib.blake2b(spec, digest_size=12).hexdigest()


def read_action(data: Mapping[str, Any]) -> ActionBase:
    """The action of `ActionTask.action`. Raises pydantic's `ValidationError` when it is none."""
    return _ACTIONS.validate_python(dict(data))


def compile_action(action: ActionBase) -> CompiledAction:
    """Check and compile the templates of an action.

    Raises:
        InvalidTemplate: a template does not compile, names an unknown variable, or may decide where a request goes;
            `path` leads to the field, such as `("parameters", "path")`.
    """
    kind: str = action.type  # type: ignore[attr-defined]
    compiler = _COMPILERS.get(kind)
    if compiler is None:
        raise InvalidTemplate(f"no action {kind!r}; there are {', '.join(_COMPILERS)}", path=("type",))
    handler = compiler(action)
    fields = list(fields_of(handler))
    reads_events = any(field.value.reads("events") for field in fields)
    fetches = frozenset(name for name in FETCHED if any(field.value.reads(name) for field in fields))
    links = tuple(field.path for field in fields if field.value.reads(URL_OF))
    return CompiledAction(action, handler, spec_digest(encode_spec(action)), reads_events, fetches, links)


async def perform(
    task: ActionTask,
    compiled: CompiledAction,
    *,
    firing: Firing,
    event: dict[str, Any] | None,
    events: Sequence[dict[str, Any]],
    ports: Ports,
    now: datetime,
) -> ActionResult:
    """Try an action once, for at most its `timeout`.

    `event` and `events` are the wire forms of the triggering event and of all contributing ones, oldest first.
    At least once: an attempt whose end was not recorded is repeated with the same `task.key`, which receivers can tell by.

    Raises:
        ActionError: it did not work. `retryable`, `reason` and `retry_after` say how to go on; the message is redacted.
    """
    call = Call(task=task, firing=firing, event=event, events=list(events), ports=ports, now=now)
    try:
        result = await _attempt(call, compiled)
    except ActionError as error:
        error.sent = call.record.shown(ports.redactor)
        raise
    return dataclasses.replace(result, sent=call.record.shown(ports.redactor))


async def _attempt(call: Call, compiled: CompiledAction) -> ActionResult:
    limit = compiled.action.timeout
    redact = call.ports.redactor.text
    try:
        async with asyncio.timeout(limit.total_seconds()):
            if compiled.fetches:
                fetched = await fetch(compiled.fetches, call.event, call.ports.orchestrator)
                call = dataclasses.replace(call, fetched=fetched)
            return await compiled.handler.run(call)
    except ActionError as error:
        raise ActionError(
            redact(error.detail),
            path=_redacted(error.path, redact),
            retryable=error.retryable,
            reason=error.reason,
            retry_after=error.retry_after,
        ) from None
    except WhenthenError as error:
        raise ActionError(
            redact(error.detail),
            path=_redacted(error.path, redact),
            retryable=not isinstance(error, _PERMANENT),
            reason=error.reason,
        ) from None
    except TimeoutError:
        message = f"not done within {format_duration(limit)}; raise the action's `timeout` if it needs longer"
        raise ActionError(message, reason="timeout") from None
    except Exception as error:
        # the edge of the room: what a port or a library raises against its contract must not end the execution loop
        raise ActionError(redact(f"{type(error).__name__}: {error}"), reason="unexpected") from error


def _redacted(path: FieldPath, redact: Callable[[str], str]) -> FieldPath:
    return tuple(redact(step) if isinstance(step, str) else step for step in path)
