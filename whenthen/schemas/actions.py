"""Actions as they are written. Execution: `whenthen.actions`.

Short forms: `- do-nothing`, and `- run-deployment: loader` for `{type: run-deployment, deployment: loader}`; the field that the
short form fills is the model's `primary`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Union
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from whenthen.schemas.base import REFERENCE, Model, Name, ObjectPath, OneOrMany, SecretRef, as_list
from whenthen.schemas.times import Duration

__all__ = [
    "ACTIONS",
    "Action",
    "ActionBase",
    "CallWebhook",
    "CancelFlowRun",
    "ChangeFlowRunState",
    "DeleteFlowRun",
    "DoNothing",
    "EmitEvent",
    "PauseAutomation",
    "PauseDeployment",
    "PauseSchedule",
    "PauseWorkPool",
    "ProxyUrl",
    "ResumeAutomation",
    "ResumeDeployment",
    "ResumeFlowRun",
    "ResumeSchedule",
    "ResumeWorkPool",
    "Retry",
    "RetryFlowRun",
    "RunDeployment",
    "SendNotification",
    "SuspendFlowRun",
    "Tls",
]


class Retry(Model):
    """How often and how soon a failed try is repeated: delay * 2^n, at most max_delay, plus or minus jitter."""

    retries: int = Field(default=4, ge=0, le=99)
    """Further attempts after the first."""
    attempts: int | None = Field(default=None, ge=1, le=100, exclude=True)
    """Of earlier versions: all attempts, the first included. Write `retries`, which is one less."""
    delay: Duration = timedelta(seconds=1)
    max_delay: Duration = timedelta(minutes=5)
    jitter: float = Field(default=0.2, ge=0, le=1)
    """Share of the delay by which it varies."""

    @model_validator(mode="before")
    @classmethod
    def _count_retries(cls, value: Any) -> Any:
        attempts = value.get("attempts") if isinstance(value, dict) else None
        if isinstance(attempts, int) and 1 <= attempts <= 100 and "retries" not in value:
            return {**value, "retries": attempts - 1}
        return value

    @model_validator(mode="after")
    def _one_count(self) -> Retry:
        if self.attempts is not None and self.attempts != self.retries + 1:
            raise ValueError(
                f"`retries: {self.retries}` and `attempts: {self.attempts}` differ: `attempts` counts the first one, too; "
                "leave it out"
            )
        return self

    @property
    def most_attempts(self) -> int:
        """All attempts, the first included."""
        return self.retries + 1


class ActionBase(Model):
    """What all actions have."""

    primary: ClassVar[str | None] = None  #: the field that the short form fills

    retry: Retry = Retry()
    timeout: Duration = timedelta(seconds=30)
    """Of one try."""


class RunDeployment(ActionBase):
    """Start a run of a deployment, exactly once for each firing."""

    primary: ClassVar[str | None] = "deployment"
    type: Literal["run-deployment"]
    deployment: str | None = Field(default=None, max_length=4096)
    """Its name (may be a template). Left out: the deployment that the event is about."""
    parameters: dict[str, Any] | ObjectPath = Field(default_factory=dict)
    """Values, or one path that gives them all; `$.` starts JSONPath and keeps the type, `{{ }}` is Jinja and gives text."""
    delay: Duration = timedelta(0)
    """Start this long after the firing."""


class PauseDeployment(ActionBase):
    """Pause all schedules of a deployment."""

    primary: ClassVar[str | None] = "deployment"
    type: Literal["pause-deployment"]
    deployment: str | None = Field(default=None, max_length=4096)
    """Its name (may be a template). Left out: the deployment that the event is about."""


class ResumeDeployment(ActionBase):
    """Resume all schedules of a deployment."""

    primary: ClassVar[str | None] = "deployment"
    type: Literal["resume-deployment"]
    deployment: str | None = Field(default=None, max_length=4096)
    """Its name (may be a template). Left out: the deployment that the event is about."""


class PauseSchedule(ActionBase):
    """Pause one schedule of a deployment."""

    primary: ClassVar[str | None] = "schedule"
    type: Literal["pause-schedule"]
    deployment: str | None = Field(default=None, max_length=4096)
    schedule: str = Field(min_length=1, max_length=4096)
    """The schedule's name."""


class ResumeSchedule(ActionBase):
    """Resume one schedule of a deployment."""

    primary: ClassVar[str | None] = "schedule"
    type: Literal["resume-schedule"]
    deployment: str | None = Field(default=None, max_length=4096)
    schedule: str = Field(min_length=1, max_length=4096)
    """The schedule's name."""


class PauseWorkPool(ActionBase):
    """Start no more runs of a work pool; those that are active go on."""

    primary: ClassVar[str | None] = "work_pool"
    type: Literal["pause-work-pool"]
    work_pool: str | None = Field(default=None, max_length=4096)
    """Its name (may be a template). Left out: the pool that the event is about."""


class ResumeWorkPool(ActionBase):
    """Start the runs that wait in a work pool."""

    primary: ClassVar[str | None] = "work_pool"
    type: Literal["resume-work-pool"]
    work_pool: str | None = Field(default=None, max_length=4096)
    """Its name (may be a template). Left out: the pool that the event is about."""


class CancelFlowRun(ActionBase):
    """Cancel a flow run."""

    primary: ClassVar[str | None] = "flow_run"
    type: Literal["cancel-flow-run"]
    flow_run: str | None = Field(default=None, max_length=4096)
    """Its id (may be a template). Left out: the run that the event is about."""


class RetryFlowRun(ActionBase):
    """Start a new run like one that has ended, exactly once for each firing."""

    primary: ClassVar[str | None] = "flow_run"
    type: Literal["retry-flow-run"]
    flow_run: str | None = Field(default=None, max_length=4096)
    """Its id (may be a template). Left out: the run that the event is about."""


class SuspendFlowRun(ActionBase):
    """Halt a flow run until it is resumed; its process is stopped."""

    primary: ClassVar[str | None] = "flow_run"
    type: Literal["suspend-flow-run"]
    flow_run: str | None = Field(default=None, max_length=4096)
    """Its id (may be a template). Left out: the run that the event is about."""
    lasts: Duration | None = Field(default=None, alias="for")
    """After which it fails. Left out: it waits for ever."""


class ResumeFlowRun(ActionBase):
    """Let a flow run go on that is paused or suspended, once for each firing."""

    primary: ClassVar[str | None] = "flow_run"
    type: Literal["resume-flow-run"]
    flow_run: str | None = Field(default=None, max_length=4096)
    """Its id (may be a template). Left out: the run that the event is about."""
    input: dict[str, Any] | ObjectPath | None = None
    """What it waits for: values, or one path that gives them all; `$.` starts JSONPath and keeps the type, `{{ }}` is Jinja and gives text."""


class ChangeFlowRunState(ActionBase):
    """Put a flow run into a state; a worker that has it stops its processes."""

    primary: ClassVar[str | None] = "state"
    type: Literal["change-flow-run-state"]
    state: Literal["Cancelled", "Suspended", "Completed", "Failed", "Crashed"]
    flow_run: str | None = Field(default=None, max_length=4096)
    """Its id (may be a template). Left out: the run that the event is about."""
    message: str = Field(default="", max_length=4096)
    """Why, for who looks at it (may be a template)."""

    @field_validator("state", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.capitalize() if isinstance(value, str) else value


class DeleteFlowRun(ActionBase):
    """Forget a flow run that has ended, with its log."""

    primary: ClassVar[str | None] = "flow_run"
    type: Literal["delete-flow-run"]
    flow_run: str | None = Field(default=None, max_length=4096)
    """Its id (may be a template). Left out: the run that the event is about."""


class PauseAutomation(ActionBase):
    """Stop an automation from firing until it is resumed."""

    primary: ClassVar[str | None] = "automation"
    type: Literal["pause-automation"]
    automation: str | None = Field(default=None, max_length=4096)
    """Its name (may be a template). Left out: this automation."""
    lasts: Duration | None = Field(default=None, alias="for")
    """After which it is resumed. Left out: when somebody resumes it."""
    reason: str | None = Field(default=None, max_length=4096)
    """Why, for who looks at it (may be a template)."""

    @field_validator("lasts")
    @classmethod
    def _some_time(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and not value:
            raise ValueError("a pause of no time; write how long, such as 2h")
        return value


class ResumeAutomation(ActionBase):
    """Let a paused automation fire again."""

    primary: ClassVar[str | None] = "automation"
    type: Literal["resume-automation"]
    automation: str | None = Field(default=None, max_length=4096)
    """Its name (may be a template). Left out: this automation."""


class SendNotification(ActionBase):
    """Send a message through a notifier (Apprise: chat services, email, ...)."""

    primary: ClassVar[str | None] = "notifier"
    type: Literal["send-notification"]
    notifier: Name
    """The name of one of the `notifiers`."""
    subject: str = Field(default="{{ automation }}: {{ event.event if event else firing.state }}", max_length=20_000)
    body: str = Field(
        default="{{ automation }} fired at {{ firing.at }}{% if event %} for {{ event.event }} of {{ event.resource.id }}{% endif %}",
        max_length=200_000,
    )


def _check_proxy(value: str) -> str:
    if value == "none" or REFERENCE.fullmatch(value):
        return value
    try:
        split = urlsplit(value)
        fine = split.scheme == "http" and split.hostname and split.port is not None
    except ValueError:
        fine = False
    if not fine or "@" in value or split.path.strip("/") or split.query or split.fragment:
        raise ValueError(
            f"{value.rpartition('@')[2][:80]!r} is no proxy; write http://host:port, or env:NAME or file:/path "
            "for one with a user and a password, or none"
        )
    return value


#: `http://host:port`; a reference to it, which may have credentials; or `none`
ProxyUrl = Annotated[str, AfterValidator(_check_proxy), Field(max_length=4096)]


class Tls(Model):
    """Whom an action trusts and what it shows of itself over https. References to PEM, read for each try."""

    ca: SecretRef | None = None
    """The authorities to trust, in place of the public ones."""
    certificate: SecretRef | None = None
    """The client certificate, with its chain."""
    key: SecretRef | None = None
    """The key of `certificate`, without a passphrase; left out: it is in the same PEM."""

    @model_validator(mode="after")
    def _complete(self) -> Tls:
        if self.certificate is None and (self.key is not None or self.ca is None):
            raise ValueError(
                "a key without a certificate; name `certificate` too"
                if self.key
                else "is empty; name `ca`, `certificate`"
            )
        return self


class CallWebhook(ActionBase):
    """Send an HTTP request, with the firing's idempotency key."""

    primary: ClassVar[str | None] = "url"
    type: Literal["call-webhook"]
    url: str = Field(min_length=1, max_length=4096)
    """May have templates in path and query; the host comes from the rule alone unless it is in `allow_hosts`."""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, str] = Field(default_factory=dict)
    """Templates, or references such as `env:TOKEN` or `Bearer env:TOKEN`."""
    body: Any = None
    """JSON with templates; left out: the firing and its event. Text is sent as it renders."""
    secret: SecretRef | None = None
    """Sign with Standard Webhooks (`webhook-id`, `webhook-timestamp`, `webhook-signature`)."""
    allow_hosts: Annotated[list[str], BeforeValidator(as_list), OneOrMany()] = Field(default_factory=list)
    """What a template in the host may render to: `[scheme://]host[:port]`, globs in the host."""
    expect_status: Annotated[list[int], BeforeValidator(as_list), OneOrMany()] = Field(default_factory=list)
    """Statuses that count as success; default: any 2xx."""
    tls: Tls | None = None
    """In place of the settings' `action_ca`, `action_certificate`, `action_key`."""
    proxy: ProxyUrl | None = None
    """`http://host:port`, or a reference to it, in place of the settings' `action_proxy`; `none` for no proxy."""


class EmitEvent(ActionBase):
    """Publish an event; it carries the lineage of the firing."""

    primary: ClassVar[str | None] = "event"
    type: Literal["emit-event"]
    event: str = Field(min_length=1, max_length=4096)
    resource: dict[str, str] | ObjectPath | None = None
    """Templates, or one path that gives all labels; left out: the resource of the triggering event, or the automation."""
    related: list[dict[str, str]] = Field(default_factory=list)
    payload: Any = None


class DoNothing(ActionBase):
    """Fire and be counted; for trying a rule out."""

    type: Literal["do-nothing"]


ACTIONS: dict[str, type[ActionBase]] = {
    "run-deployment": RunDeployment,
    "pause-deployment": PauseDeployment,
    "resume-deployment": ResumeDeployment,
    "pause-schedule": PauseSchedule,
    "resume-schedule": ResumeSchedule,
    "pause-work-pool": PauseWorkPool,
    "resume-work-pool": ResumeWorkPool,
    "retry-flow-run": RetryFlowRun,
    "cancel-flow-run": CancelFlowRun,
    "suspend-flow-run": SuspendFlowRun,
    "resume-flow-run": ResumeFlowRun,
    "change-flow-run-state": ChangeFlowRunState,
    "delete-flow-run": DeleteFlowRun,
    "pause-automation": PauseAutomation,
    "resume-automation": ResumeAutomation,
    "send-notification": SendNotification,
    "call-webhook": CallWebhook,
    "emit-event": EmitEvent,
    "do-nothing": DoNothing,
}


def expand_short_form(value: Any) -> Any:
    """`"do-nothing"` and `{"run-deployment": "loader", ...}` in their long form; anything else as it is."""
    if isinstance(value, str):
        return {"type": value}
    if isinstance(value, dict) and "type" not in value:
        named = [key for key in value if key in ACTIONS]
        if len(named) == 1:
            rest = {key: item for key, item in value.items() if key != named[0]}
            primary = ACTIONS[named[0]].primary
            if primary and primary not in rest and value[named[0]] is not None:
                rest[primary] = value[named[0]]
            return {"type": named[0], **rest}
    return value


def _kind(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("type")
    return getattr(value, "type", None)


Action = Annotated[
    Annotated[
        Union[
            Annotated[RunDeployment, Tag("run-deployment")],
            Annotated[PauseDeployment, Tag("pause-deployment")],
            Annotated[ResumeDeployment, Tag("resume-deployment")],
            Annotated[PauseSchedule, Tag("pause-schedule")],
            Annotated[ResumeSchedule, Tag("resume-schedule")],
            Annotated[PauseWorkPool, Tag("pause-work-pool")],
            Annotated[ResumeWorkPool, Tag("resume-work-pool")],
            Annotated[RetryFlowRun, Tag("retry-flow-run")],
            Annotated[CancelFlowRun, Tag("cancel-flow-run")],
            Annotated[SuspendFlowRun, Tag("suspend-flow-run")],
            Annotated[ResumeFlowRun, Tag("resume-flow-run")],
            Annotated[ChangeFlowRunState, Tag("change-flow-run-state")],
            Annotated[DeleteFlowRun, Tag("delete-flow-run")],
            Annotated[PauseAutomation, Tag("pause-automation")],
            Annotated[ResumeAutomation, Tag("resume-automation")],
            Annotated[SendNotification, Tag("send-notification")],
            Annotated[CallWebhook, Tag("call-webhook")],
            Annotated[EmitEvent, Tag("emit-event")],
            Annotated[DoNothing, Tag("do-nothing")],
        ],
        Discriminator(_kind),
    ],
    BeforeValidator(expand_short_form),
]
