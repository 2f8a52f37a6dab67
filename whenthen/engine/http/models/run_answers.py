"""What is answered about deployments, their runs, and the actions of firings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from whenthen.engine.http.models.answer_base import AnswerModel, Labels, Trace
from whenthen.schemas.deployments import RunState

__all__ = [
    "ActionState",
    "ActionTry",
    "BackfillState",
    "DeadLetterCount",
    "DeploymentDetail",
    "DeploymentSummary",
    "FlowRunDetail",
    "LogItem",
    "LogPage",
    "Redriven",
    "ScheduleState",
    "TaskRunItem",
    "TaskRunList",
    "WorkPoolState",
    "WorkerState",
]


class ScheduleState(AnswerModel):
    name: str
    when: str
    """The cron expression, the rule, or the interval."""
    timezone: str
    paused: bool
    next: str | None


class UpcomingRun(AnswerModel):
    schedule: str
    at: str


class BackfillState(AnswerModel):
    """Runs of a schedule for times of the past."""

    deployment: str
    schedule: str
    parameters: dict[str, Any]
    count: int
    """How many times there are, each of which is to have a run."""
    times: list[str]
    """The first of them, at most 20."""
    last: str | None
    started: int | None = None
    """How many runs are new; absent where nothing was started."""
    there_before: int | None = None
    """How many times had their run already; absent where nothing was started."""


class ConcurrencyState(AnswerModel):
    limit: int
    key: str = ""
    """The parameter for whose values the limit holds by themselves; absent without one."""
    on_limit: str


class DeploymentTriggerState(AnswerModel):
    name: str
    enabled: bool
    parameters: dict[str, Any] | str
    """Of the runs that it starts; values may be templates."""


class WorkerState(AnswerModel):
    """A worker that is at work."""

    name: str
    pool: str
    since: str
    """When it started."""
    seen: str
    """When it last said that it is there."""
    lost: bool
    """Whether that is so long ago that it counts as dead."""
    running: int
    concurrency: int
    """The most runs at once."""
    version: str


class WorkPoolState(AnswerModel):
    """A work pool as the rules have it, and how it stands."""

    name: str
    description: str
    type: str
    limit: int | None
    """How many runs may be active at once."""
    paused: bool
    active: list[str]
    """Ids of the runs that have the slots of its limit; empty without a limit."""
    deployments: list[str]
    """At most the first 100."""
    workers: list[WorkerState]


class DeploymentSummary(AnswerModel):
    name: str
    runs: str | None
    """The command or the entry point."""
    work_pool: str
    schedules: list[ScheduleState]
    tags: list[str]
    description: str


class CodeState(AnswerModel):
    """Where the code of a deployment is: a folder on the worker's machine, or a repository that is cloned for each run."""

    folder: str = ""
    git: str = ""
    ref: str = ""
    """Of the repository; absent for its default branch."""
    token: str = ""
    """Where the token of the repository is read, `env:NAME` or `file:/path`; absent without one."""
    submodules: bool = False


class DeploymentDetail(DeploymentSummary):
    """A deployment as the rules have it, and how it stands."""

    command: list[str] = []
    """Absent where there is an entry point."""
    entrypoint: str = ""
    """Absent where there is a command."""
    python: str = ""
    """The interpreter of an entry point; absent for the worker's own."""
    preload: list[str] | None = None
    """Modules that interpreters import which wait for its runs; absent where none are named."""
    code: CodeState | None = None
    """Where its code is; absent where that is the rules folder."""
    version: str = ""
    """Of its code."""
    parameters: dict[str, Any]
    secret_parameters: dict[str, str] = {}
    """Where each is read when a run starts, `env:NAME` or `file:/path`; absent without any."""
    concurrency_limit: int = 0
    """Absent without one."""
    concurrency: ConcurrencyState | None = None
    """Absent without one."""
    working_dir: str = ""
    """Absent without one."""
    image: str | None = None
    """Of its containers in a work pool of `type: docker`; absent for the pool's."""
    env: dict[str, str]
    timeout: str = ""
    """Such as 90s; absent without one."""
    retries: int
    retry_delay: str
    expect_completion: str = ""
    """By when a run of the day should have completed; absent without it."""
    expect_within: str = ""
    """How long after its start each run should have ended, such as 2h; absent without it."""
    upcoming: list[UpcomingRun] = []
    """The next runs of its schedules, at most 10; none of what is paused."""
    triggers: list[DeploymentTriggerState] = []
    """What starts it: each is the automation `<deployment>:<name>`."""
    task_run_events: bool = False
    """Whether each state of a task run is an event."""
    parameter_schema: dict[str, Any] = {}
    """JSON Schema of the parameters of its function, read from the function's syntax; absent where that can not be known."""


class RunPauseState(AnswerModel):
    """For what a run waits that is Paused or Suspended."""

    key: str = ""
    """Which of its pauses it is; empty where somebody suspended it."""
    since: str
    until: str | None
    """Until when it can be resumed."""
    input_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    """JSON Schema of the input that it is to be resumed with; absent where it takes none."""
    description: str = ""


class FlowRunDetail(AnswerModel):
    """One execution of a deployment. Times are RFC 3339."""

    id: str
    deployment: str
    work_pool: str
    state: RunState
    parameters: dict[str, Any]
    key: str
    """The idempotency key: one key is one run."""
    created: str
    scheduled_for: str
    changed: str
    """When the state was entered."""
    started: str | None
    ended: str | None
    attempt: int
    message: str
    """Why it is in this state."""
    exit_code: int | None
    worker: str | None
    tags: list[str]
    lineage: dict[str, Any] | None
    """Of the firing that started it."""
    trace: Trace | None
    """That the run is part of: of its firing, or of the request that started it."""
    related: list[Labels]
    triggered_by: str | None
    not_before: str | None
    """A retry waits until then."""
    retries: int
    retry_delay_s: float
    result: Any
    pause: RunPauseState | None = None
    """For what it waits; absent unless it is Paused or Suspended."""
    inputs: dict[str, Any] | None = None
    """What it was given at its pauses, by their keys; absent without any."""
    resumed: str | None = None
    """The idempotency key of who resumed it last; absent or null before."""
    begun: str | None = None
    """When its first attempt started."""
    suspensions: int = 0
    """How many of its attempts ended for a suspension, which use up no retry."""


class LogItem(AnswerModel):
    at: str
    stream: str
    """stdout, stderr, log for what the run logged, or system for what the worker says about it."""
    text: str
    attempt: int
    level: int = 0
    """Of a line that was logged, as Python's `logging` numbers them: 20 is INFO. Absent without one."""
    name: str = ""
    """Of the task run that logged it; absent without one."""


class LogPage(AnswerModel):
    lines: list[LogItem]
    next: int
    """`after` of the next page: a place, which stays what it is when older lines expire."""
    more: bool = False
    """Whether lines follow that are there already."""
    done: bool
    """Whether the run has ended and this is its last page."""


class TaskRunStateItem(AnswerModel):
    name: str
    at: str
    message: str


class TaskRunItem(AnswerModel):
    """A run of a task, or of a flow, within a run of a deployment."""

    id: str
    kind: Literal["task", "flow", ""]
    name: str
    of: str
    """The task or flow."""
    parent: str
    """The id of the run in which it was started; empty without one."""
    attempt: int
    """Of the run of the deployment."""
    state: str
    """The name of its state, such as Retrying or Cached."""
    type: str
    """The type of that, such as RUNNING or COMPLETED."""
    message: str
    tries: int
    tags: list[str]
    created: str
    started: str | None
    ended: str | None
    states: list[TaskRunStateItem]
    """Those that it was in, at most the last 50."""


class TaskRunList(AnswerModel):
    task_runs: list[TaskRunItem]
    total: int
    """How many the run has. Of one attempt 20,000 are kept."""


class ActionTry(AnswerModel):
    """How one try of an action ended."""

    attempt: int
    state: Literal["retrying", "executed", "dead", "dropped"]
    at: str
    error: str = ""


class ActionState(AnswerModel):
    """How an action stands."""

    key: str
    automation: str
    type: str | None
    outcome: Literal["waiting", "retrying", "executed", "dead", "dropped"]
    attempt: int
    at: str
    firing: str
    seq: int
    """Its position in the stream; `before` of the next page."""
    error: str = ""
    """Absent while it waits for its first try."""
    reason: str = ""
    """A stable word; of dead letters alone."""
    result: Any = None
    """Absent until it was tried."""
    next_at: str | None = None
    """When the next try is due; absent until it was tried."""
    tries: list[ActionTry] = Field(default_factory=list)
    """Those that ended, the first one first. Absent in lists, and while no process with the role history answers."""


class DeadLetterCount(AnswerModel):
    count: int = Field(ge=0)


class Redriven(AnswerModel):
    key: str
    outcome: str
    attempts: int = Field(ge=0)
    """How often it was tried before."""
