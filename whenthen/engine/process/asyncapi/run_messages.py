"""The messages in the streams and buckets of flow runs, pauses, leases and hangs. `engine.flow_runs`, `engine.evaluation` and
`engine.hangs` write it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, RootModel

from whenthen.engine.process.asyncapi.event_messages import MessageModel

__all__ = [
    "ArtifactMessage",
    "FormatMessage",
    "HangRecord",
    "HeartbeatText",
    "HeldSlots",
    "LeaseRecord",
    "LogLines",
    "MemberBeat",
    "PauseFlag",
    "QueuedRun",
    "SlotLeaseMessage",
    "SlotRate",
    "TaskRunMoves",
    "ToldEventMessage",
    "VariableMessage",
    "WorkerMessage",
]

Line = Annotated[tuple[str, str, int, str], Field(description="time, stream (stdout, stderr, system), try, text")]


class QueuedRun(RootModel[str]):
    """The id of a flow run that waits for a worker."""


class LogLines(RootModel[list[Line]]):
    """Lines that a flow run wrote, in order."""


class TaskRunMoveItem(MessageModel):
    """A run of a task or flow has entered a state. What is absent is as the moves before say."""

    id: str
    n: int
    """Grows with the moves of one process; of two moves with one number the second is the first again."""
    state: str
    """Its type."""
    state_name: str
    at: str
    message: str = ""
    tries: int
    attempt: int
    """Of the run of the deployment."""
    name: str
    kind: str = ""
    of: str = ""
    parent: str = ""
    tags: list[str] = Field(default_factory=list)


class TaskRunMoves(RootModel[list[TaskRunMoveItem]]):
    """Moves of the task runs of a flow run, in order."""


class ToldEventMessage(MessageModel):
    """An event that waits for being published: one that the code of a run emitted, or that of a move of a task run."""

    run: str
    event: dict[str, Any] | None = None
    """Fields of an event, not checked yet."""
    move: TaskRunMoveItem | None = None


class HeartbeatText(RootModel[str]):
    """The worker that executes the run."""


class WorkerMessage(MessageModel):
    """A worker that is at work."""

    name: str
    pool: str
    since: str
    concurrency: int
    """The most runs at once."""
    running: int
    version: str
    """Of whenthen."""


class HeldSlots(RootModel[list[str]]):
    """The flow runs that hold the slots of a deployment or work pool with a limit, or attempts of them those of a named limit; behind a space
    the key, where each has slots of its own."""


class SlotRate(MessageModel):
    """How many slots of a limit that come free with time were taken at a moment."""

    taken: float
    at_s: float
    """Seconds since 1970."""


class SlotLeaseMessage(MessageModel):
    """Slots that a program beside the runs has for a time."""

    id: str
    names: list[str]
    occupy: int
    until: str
    lasts_s: float


class VariableMessage(MessageModel):
    """A variable."""

    name: str
    value: Any
    tags: list[str]
    changed: str
    by: str
    """Who set it last: `run:<id>`, or `api`."""


class ArtifactMessage(MessageModel):
    """What a run has to show, in its newest version."""

    id: str
    run: str
    deployment: str
    key: str
    type: str
    description: str
    data: Any
    metadata: dict[str, str]
    task_run: str
    created: str
    updated: str


class PauseFlag(MessageModel):
    """Whether an automation, deployment or schedule is paused, up to when a schedule was followed, or who is about to serve a pool."""

    key: str
    """`automation/<name>`, `deployment/<name>`, `work-pool/<name>`, `schedule/<deployment>/<name>`, `expected/<deployment>`, `position/<deployment>/<name>`,
    `served/<work pool>`."""
    paused: bool
    changed: str
    note: str
    until: str = ""
    """RFC 3339, of a pause that ends by itself."""
    reason: str = ""
    by: str = ""
    """Who paused it, or the program that is about to serve it."""


class LeaseRecord(MessageModel):
    """Which process evaluates a shard."""

    holder: str
    """Empty when it was given back."""
    beat: int


class MemberBeat(RootModel[str]):
    """A number that grows for as long as the process lives."""


class FormatMessage(MessageModel):
    """Which format the stored data has; every process compares it with its own."""

    format: int
    """Of the newest version that has run here."""
    lowest_reader: int
    """The lowest format that a process has to know to work here."""
    written_by: str
    """The version of whenthen that raised it."""


class HangRecord(MessageModel):
    """How often processes hung on one thing."""

    tries: int
    process: str
    """The last of them: machine and process id."""
    cause: Literal["hung", "crashed"]
    automation: str | None
    """The one that they hung at; null when that is not known, and of an action."""
