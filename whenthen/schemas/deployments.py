"""Deployments and flow runs: what can be run, and one execution of it. Execution: `whenthen.runs`."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from whenthen.schemas.base import MAX_NAME_CHARS, DeploymentName, Model, Name, ObjectPath, OneOrMany, SecretRef
from whenthen.schemas.calendar import check_timetable
from whenthen.schemas.code_places import CodePlace
from whenthen.schemas.entry_points import MODULE, entry_point
from whenthen.schemas.inline_code import code_words
from whenthen.schemas.times import Duration
from whenthen.schemas.triggers import Trigger

__all__ = [
    "ACTIVE",
    "HALTED",
    "MAX_PARAMETER_BYTES",
    "MOST_CATCH_UP",
    "PLACEHOLDER",
    "TERMINAL",
    "WAITING",
    "CatchUp",
    "Concurrency",
    "Deployment",
    "DeploymentTrigger",
    "ExpectedCompletion",
    "FlowRun",
    "OnLimit",
    "RunState",
    "Schedule",
    "is_run_id",
]

MAX_PARAMETER_BYTES = 256 * 1024  #: of a run: it and its events must fit into one NATS message
MOST_CATCH_UP = timedelta(days=30)  #: of a schedule
#: `{{ name }}` in a word of a command
PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)

#: `$.parameters.customer`, `$.parameters.order.customer`
_KEY = re.compile(r"\$\.parameters(\.[^\W\d][\w-]*)+")
#: `06:00`, `06:00 Europe/Paris`
_DAILY = re.compile(r"(\d{1,2}):(\d{2})(?:\s+(\S+))?")
_RUN_ID = re.compile(r"[0-9a-f]{32}")


def _module_name(value: str) -> str:
    if not MODULE.fullmatch(value):
        raise ValueError(f"{value[:80]!r} is no name of a module; write one such as pandas or package.module")
    return value


ModuleName = Annotated[str, Field(max_length=200), AfterValidator(_module_name)]


def is_run_id(text: str) -> bool:
    """Whether this can be the id of a flow run. An id becomes a part of NATS subjects, where `>` and `*` mean all runs."""
    return _RUN_ID.fullmatch(text) is not None


class CatchUp(StrEnum):
    """Which times of a schedule that passed while no scheduler ran get a run."""

    NONE = "none"
    LAST = "last"  #: the latest
    ALL = "all"


class Schedule(Model):
    """When a deployment runs by itself."""

    name: Name = "default"
    cron: str | None = Field(default=None, max_length=256)
    """Five fields, minute to weekday, or @hourly, @daily, @weekly, @monthly, @yearly."""
    interval: Duration | None = None
    """Time between runs; whole days follow the clock on the wall, shorter ones elapsed time."""
    anchor: datetime | None = None
    """An interval or rrule counts from here; without an offset it is local to `timezone`."""
    rrule: str | None = Field(default=None, max_length=4096)
    """An RFC 5545 rule, such as FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=18;BYMINUTE=0;BYSECOND=0."""
    timezone: str = Field(default="UTC", max_length=64)
    """An IANA name, such as Europe/Berlin."""
    active: bool = True
    """Whether it starts out running; pausing and resuming at run time wins over this."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Parameters of its runs; they win over the deployment's defaults."""
    catch_up: CatchUp = CatchUp.LAST
    """Which of the times that passed while no scheduler ran get a run: `none`, the `last` one, or `all`, at most 1,000."""
    catch_up_within: Duration = timedelta(hours=1)
    """How old a time may be that is made up for; at most 30 days."""

    @field_validator("catch_up", mode="before")
    @classmethod
    def _known_word(cls, value: Any) -> Any:
        return CatchUp(value) if isinstance(value, str) and value in set(CatchUp) else value

    @field_validator("catch_up_within")
    @classmethod
    def _bounded(cls, value: timedelta) -> timedelta:
        if value > MOST_CATCH_UP:
            raise ValueError(f"at most {MOST_CATCH_UP.days} days; older times are for `whenthen deployments backfill`")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Schedule:
        given = [name for name in ("cron", "interval", "rrule") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a schedule is one of cron, interval or rrule; found {', '.join(given) or 'none'}")
        check_timetable(self)
        return self


class DeploymentTrigger(Model):
    """When a deployment is started by what happens: an automation that belongs to it, called `<deployment>:<name>`, with a point for a slash."""

    name: Name = "default"
    enabled: bool = True
    trigger: Trigger
    parameters: dict[str, Any] | ObjectPath = Field(default_factory=dict)
    """Of the run, as in `run-deployment`: values, or one path that gives them all; `$.` starts JSONPath and keeps the type, `{{ }}` is
    Jinja and gives text."""
    delay: Duration = timedelta(0)
    """From the firing to the run."""


class OnLimit(StrEnum):
    """What becomes of a run that would be one too many."""

    QUEUE = "queue"  #: it waits
    CANCEL_NEW = "cancel-new"  #: it is cancelled
    CANCEL_RUNNING = "cancel-running"  #: the oldest that has a slot is cancelled, and it waits for that


class Concurrency(Model):
    """How many runs of a deployment may be active at once."""

    limit: int = Field(default=1, ge=1, le=10_000)
    key: str | None = Field(default=None, max_length=1000)
    """A parameter, such as `$.parameters.customer`: the limit holds for each of its values by itself."""
    on_limit: OnLimit = OnLimit.QUEUE
    """What becomes of a further run: `queue` (it waits), `cancel-new`, or `cancel-running` (of the oldest, for its sake)."""

    @field_validator("on_limit", mode="before")
    @classmethod
    def _known_word(cls, value: Any) -> Any:
        return OnLimit(value) if isinstance(value, str) and value in set(OnLimit) else value

    @field_validator("key")
    @classmethod
    def _names_a_parameter(cls, value: str | None) -> str | None:
        if value is not None and not _KEY.fullmatch(value):
            raise ValueError(f"{value[:80]!r} names no parameter of a run; write one such as $.parameters.customer")
        return value

    def key_of(self, parameters: dict[str, Any]) -> str:
        """What stands for the value of the key among these parameters, 16 characters; none without a key. One that is left out is a
        value of its own, the same as null."""
        if self.key is None:
            return ""
        found: Any = parameters
        for name in self.key.split(".")[2:]:
            found = found.get(name) if isinstance(found, dict) else None
        data = orjson.dumps(found, option=orjson.OPT_SORT_KEYS, default=str)
        return hashlib.blake2b(data, digest_size=8).hexdigest()


class ExpectedCompletion(Model):
    """By when runs of a deployment should have completed."""

    by: str | None = Field(default=None, max_length=100)
    """A time of the day by which one should have, such as `06:00 Europe/Paris`."""
    within: Duration | None = None
    """How long after its start each run should have ended."""

    @model_validator(mode="after")
    def _something(self) -> ExpectedCompletion:
        if self.by is None and not self.within:
            raise ValueError("nothing is expected; write `by: 06:00 Europe/Paris`, or `within: 2h`")
        _ = self.times  # raises
        return self

    @property
    def times(self) -> Schedule | None:
        """The times of `by`, one a day."""
        if self.by is None:
            return None
        found = _DAILY.fullmatch(self.by.strip())
        if found is None or int(found[1]) > 23 or int(found[2]) > 59:
            raise ValueError(f"expect_completion {self.by!r} is no time of the day; write 06:00, or 06:00 Europe/Paris")
        return Schedule(name="expected", cron=f"{int(found[2])} {int(found[1])} * * *", timezone=found[3] or "UTC")


def _split_command(value: Any) -> Any:
    if isinstance(value, str):
        _check_placeholders(value)
        # the spaces inside `{{ name }}` do not end a word
        value = PLACEHOLDER.sub(lambda found: "{{" + found[1].strip() + "}}", value)
        try:
            return shlex.split(value)
        except ValueError as error:
            raise ValueError(f"the command can not be split into words: {error}") from None
    return value


class Deployment(Model):
    """Something that can be run: a command, or a function of a Python file."""

    name: DeploymentName
    """Unique; `name`, or `flow/name`."""
    description: str = Field(default="", max_length=20_000)
    command: Annotated[list[str], BeforeValidator(_split_command), OneOrMany()] | None = Field(
        default=None, max_length=1000
    )
    """Words of the command, no shell; `{{ name }}` in a word is the parameter of that name."""
    entrypoint: str | None = Field(default=None, max_length=4096)
    """`path/to/file.py:function`, relative to the rules folder, or `package.module:function`; called with the parameters."""
    python: str | None = Field(default=None, min_length=1, max_length=4096)
    """The interpreter of an `entrypoint`: a path such as .venv/bin/python from the rules folder, or a program in PATH."""
    preload: list[ModuleName] | None = Field(default=None, max_length=100)
    """Modules that interpreters import which wait for runs of an `entrypoint`, besides those that earlier runs have imported; an empty list:
    none waits."""
    code: CodePlace | None = None
    """Where the code is, when it is not in the rules folder: `{folder: /srv/etl}` or `{git: https://host/owner/name.git, ref: main}`."""
    version: str = Field(default="", max_length=200)
    """Of its code, for people."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Defaults; a run's own parameters win."""
    secret_parameters: dict[str, SecretRef] = Field(default_factory=dict, max_length=100)
    """Further parameters, read where the run starts from `env:NAME` or `file:/path`; kept in no run, and masked in its log."""
    schedules: list[Schedule] = Field(default_factory=list, max_length=100)
    triggers: list[DeploymentTrigger] = Field(default_factory=list, max_length=100)
    """What starts it besides: automations that belong to it."""
    tags: list[str] = Field(default_factory=list, max_length=100)
    work_pool: Name = "default"
    concurrency_limit: int | None = Field(default=None, ge=1, le=10_000)
    """How many runs may be active at once; further ones wait. Short for `concurrency` with that limit."""
    concurrency: Concurrency | None = None
    """How many runs may be active at once, of all or for each value of a parameter, and what becomes of further ones."""
    working_dir: str | None = None
    """Relative to the rules folder."""
    image: str | None = Field(default=None, min_length=1, max_length=1000, pattern="^[^-]")
    """Of its runs' containers, in a work pool of `type: docker`; left out, that of the pool."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables; values may be references (`env:NAME`, `file:/path`)."""
    timeout: Duration | None = None
    """Of one try; then the run's processes are stopped and it is TimedOut."""
    retries: int = Field(default=0, ge=0, le=100)
    """Further attempts after a failure, a time-out or a crash."""
    retry_delay: Duration = timedelta(seconds=10)
    expect_completion: Annotated[str, Field(max_length=100)] | ExpectedCompletion | None = None
    """By when a run of the day should have completed, such as `06:00 Europe/Paris`, or `{by: ..., within: 2h}`, where `within` is counted from
    the start of each run; the event `deployment.late` says that none did."""
    task_run_events: bool = False
    """Whether each state of a task run is an event, `task-run.<State>`."""

    @model_validator(mode="after")
    def _one_kind(self) -> Deployment:
        if (self.command is None) == (self.entrypoint is None):
            raise ValueError("a deployment has either a `command` or an `entrypoint` (file.py:function)")
        if self.command is not None and not self.command:
            raise ValueError("the command is empty")
        for word in self.command or []:
            if "\x00" in word:
                raise ValueError(f"the word {word!r} of the command has a null character")
            _check_placeholders(word)
        if self.command is not None:
            _check_code(self.command)
        if self.entrypoint is not None:
            entry_point(self.entrypoint)
        elif self.python is not None:
            raise ValueError("`python` is the interpreter of an `entrypoint`; a command names its own program")
        elif self.preload is not None:
            raise ValueError("`preload` names modules for the function of an `entrypoint`; a command imports its own")
        if twice := sorted(self.secret_parameters.keys() & self.parameters.keys())[:1]:
            raise ValueError(f"{twice[0]!r} stands in `parameters` and in `secret_parameters`; leave one out")
        _ = self.expectation  # raises
        if self.concurrency_limit is not None and self.concurrency is not None:
            raise ValueError("`concurrency_limit` and `concurrency` say the same thing; write one of them")
        named = [trigger.name for trigger in self.triggers]
        if len(set(named)) != len(named):
            raise ValueError("triggers of one deployment need different names: add `name:`")
        if self.triggers and ("{{" in self.name or "{%" in self.name or self.name.startswith("$")):
            raise ValueError(f"the name {self.name!r} reads as a template, so no trigger can start it; rename it")
        if longest := [name for name in named if len(f"{self.name}:{name}") > MAX_NAME_CHARS]:
            raise ValueError(
                f"the automation of trigger {longest[0]!r} would have a name of more than {MAX_NAME_CHARS} characters, "
                "`<deployment>:<trigger>`; shorten one of them"
            )
        names = [schedule.name for schedule in self.schedules]
        if len(set(names)) != len(names):
            raise ValueError("schedules of one deployment need different names: add `name:`")
        for schedule in self.schedules:
            _check_size(
                {**self.parameters, **schedule.parameters}, f"schedule {schedule.name!r}: the parameters of its runs"
            )
        _check_size(self.parameters, "`parameters`")
        return self

    @property
    def expectation(self) -> ExpectedCompletion | None:
        """By when runs should have completed, however that is written."""
        written = self.expect_completion
        return ExpectedCompletion(by=written) if isinstance(written, str) else written

    @property
    def limits(self) -> Concurrency | None:
        """How many of its runs may be active at once, however that is written."""
        return self.concurrency or (
            None if self.concurrency_limit is None else Concurrency(limit=self.concurrency_limit)
        )


def _check_size(parameters: dict[str, Any], what: str) -> None:
    size = len(orjson.dumps(parameters, default=str))
    if size > MAX_PARAMETER_BYTES:
        raise ValueError(
            f"{what} are {size} bytes as JSON; at most {MAX_PARAMETER_BYTES} are allowed; refer to large data"
        )


def _check_placeholders(text: str) -> None:
    for found in PLACEHOLDER.finditer(text):
        if not re.fullmatch(r"\s*[^\W\d]\w*\s*", found[1]):
            raise ValueError(
                f"{found[0][:80]!r} in the command is not a parameter; write {{{{ name }}}}, and any expression in the "
                "`parameters` of the action"
            )


def _check_code(words: list[str]) -> None:
    for index, program, remedy in code_words(words):
        found = PLACEHOLDER.search(words[index])
        if found is not None:
            name = found[1].strip()
            advice = remedy.format(name=name.upper(), found=f"{{{{ {name} }}}}")
            raise ValueError(
                f"word {index + 1} of the command, {words[index][:80]!r}, is read as code by {program[:80]!r}, and {found[0]} "
                f"in it would be, too, whatever its value holds; {advice}"
            )


class RunState(StrEnum):
    """States of a flow run. The event of a transition is `flow-run.<state>`."""

    SCHEDULED = "Scheduled"
    LATE = "Late"
    PENDING = "Pending"
    RUNNING = "Running"
    RETRYING = "Retrying"
    PAUSED = "Paused"
    SUSPENDED = "Suspended"
    CANCELLING = "Cancelling"
    CANCELLED = "Cancelled"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CRASHED = "Crashed"
    TIMED_OUT = "TimedOut"


TERMINAL = frozenset({RunState.CANCELLED, RunState.COMPLETED, RunState.FAILED, RunState.CRASHED, RunState.TIMED_OUT})
#: a worker has them, or should have
ACTIVE = frozenset({RunState.PENDING, RunState.RUNNING, RunState.PAUSED, RunState.CANCELLING})
#: they wait for a person
HALTED = frozenset({RunState.PAUSED, RunState.SUSPENDED})
#: they wait in the queue for a worker
WAITING = frozenset({RunState.SCHEDULED, RunState.LATE, RunState.RETRYING})


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """One execution of a deployment. Times are RFC 3339 text, so that the record is its own wire form."""

    id: str  #: derived from the idempotency key, so that one key is one run
    deployment: str
    work_pool: str
    state: RunState
    parameters: dict[str, Any]
    key: str  #: the idempotency key: `<firing>.<index>`, `schedule/<name>/<time>`, or a caller's
    created: str
    scheduled_for: str
    changed: str  #: when the state was entered
    started: str | None = None
    ended: str | None = None
    attempt: int = 0  #: 1 for the first try
    message: str = ""  #: why it is in this state, for people
    exit_code: int | None = None
    worker: str | None = None
    tags: tuple[str, ...] = ()
    lineage: dict[str, Any] | None = None  #: of the firing that started it
    trace: dict[str, str] | None = None  #: that the run is part of; see `schemas.trace_context`
    related: tuple[dict[str, str], ...] = field(default=())
    triggered_by: str | None = None  #: `automation:<name>`, `schedule:<name>`, or `api`
    not_before: str | None = None  #: a retry waits until then
    retries: int = 0  #: of the deployment when the run was created
    retry_delay_s: float = 0.0
    result: Any = None  #: what the function returned, when it is JSON and small
    pause: dict[str, Any] | None = None  #: for what a halted run waits: see `runs.pauses.pause_records`
    inputs: dict[str, Any] | None = (
        None  #: what it was given at its pauses, by their keys; a pause that is over has one
    )
    resumed: str | None = None  #: the idempotency key of who resumed it last
    begun: str | None = None  #: when its first attempt started
    suspensions: int = 0  #: how many attempts ended for one, which use up no retry

    @property
    def link(self) -> str:
        """The page about it, as a path below that of the pages."""
        return f"/run?id={self.id}"
