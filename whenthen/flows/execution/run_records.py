"""What is known of one run of a flow or task: the objects that hooks get and that `runtime` reads."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, SafeUUID

from whenthen.flows.states.state import State, StateType

if TYPE_CHECKING:
    from whenthen.flows.futures.future import PrefectFuture

ADJECTIVES = (
    "amber", "azure", "brave", "brisk", "calm", "clever", "copper", "coral", "crisp", "dapper", "eager", "early",
    "fair", "fleet", "fond", "gentle", "golden", "hardy", "humble", "idle", "jade", "jolly", "keen", "kind", "light",
    "lively", "lucid", "lunar", "mellow", "merry", "mild", "misty", "modest", "neat", "noble", "olive", "pale",
    "placid", "plucky", "polite", "proud", "quick", "quiet", "rapid", "ready", "royal", "ruby", "rustic", "sage",
    "sandy", "sharp", "silver", "sleek", "smooth", "snug", "solar", "solid", "spry", "steady", "still", "sturdy",
    "sunny", "swift", "tidy", "tranquil", "true", "vivid", "warm", "wise", "witty", "young", "zesty",
)  # fmt: skip
NOUNS = (
    "alpaca", "antelope", "badger", "beaver", "bison", "bobcat", "buffalo", "camel", "caribou", "cheetah", "condor",
    "cormorant", "coyote", "crane", "cricket", "curlew", "dingo", "dolphin", "dormouse", "eagle", "egret", "falcon",
    "ferret", "finch", "fox", "gazelle", "gecko", "gibbon", "goose", "grouse", "hare", "hawk", "hedgehog", "heron",
    "ibex", "ibis", "jackal", "jay", "kestrel", "kiwi", "koala", "lark", "lemur", "leopard", "lizard", "llama",
    "lynx", "magpie", "marmot", "marten", "mink", "mole", "moose", "newt", "ocelot", "octopus", "orca", "oriole",
    "osprey", "otter", "owl", "panda", "pelican", "penguin", "plover", "puffin", "puma", "quail", "rabbit", "raven",
    "robin", "salmon", "seal", "shrew", "skylark", "sparrow", "squid", "stork", "swan", "tapir", "tern", "thrush",
    "tiger", "toad", "toucan", "trout", "turtle", "viper", "vole", "walrus", "weasel", "whale", "wolf", "wombat",
    "wren", "yak", "zebra",
)  # fmt: skip


class _Ids(random.Random):
    """Random numbers that no `random.seed` of the program makes equal; seeded by the system once a process."""

    def in_fork(self) -> None:
        self.seed(os.urandom(32))


_SET = object.__setattr__
_IDS = _Ids(os.urandom(32))
os.register_at_fork(after_in_child=_IDS.in_fork)


def new_id() -> UUID:
    """A random UUID (version 4)."""
    bits = _IDS.getrandbits(128)
    id = UUID.__new__(UUID)  # without the checks of the constructor, which take as long again
    _SET(id, "int", bits & ~(0xF000 << 64) & ~(0xC000 << 48) | (4 << 76) | (0x8000 << 48))
    _SET(id, "is_safe", SafeUUID.unknown)
    return id


def random_name() -> str:
    return f"{random.choice(ADJECTIVES)}-{random.choice(NOUNS)}"


NO_TIME = timedelta()
RUNNING = StateType.RUNNING


class Run:
    """What runs of flows and of tasks have in common."""

    __slots__ = (
        "created",
        "end_time",
        "id",
        "name",
        "parent",
        "run_count",
        "start_time",
        "state",
        "tags",
        "told_as",
        "total_run_time",
        "untold",
        "waiting_for",
    )

    def __init__(self, *, id: UUID, name: str, parent: Run | None, tags: Iterable[str], state: State[Any]) -> None:
        self.id = id
        self.name = name
        self.parent = parent  #: the run in which this one was started
        self.tags = tags if tags.__class__ is list else sorted(tags)
        self.state = state
        self.run_count = 0
        self.created = state.timestamp
        self.start_time: datetime | None = None
        self.end_time: datetime | None = None
        self.total_run_time = NO_TIME
        self.waiting_for: tuple[PrefectFuture[Any], ...] = ()  #: on what it waits just now
        self.untold: State[Any] | None = None  #: a state that the reporter hears of with the one that follows at once
        self.told_as: tuple[str, str] | None = None  #: a name, and what the reporter says that the run of it is

    @property
    def state_type(self) -> StateType:
        return self.state.type

    @property
    def state_name(self) -> str:
        return self.state.name

    @property
    def expected_start_time(self) -> datetime:
        return self.created

    def enter(self, state: State[Any]) -> None:
        """Put the run into `state`, and count what follows from it."""
        before = self.state
        if before.type is RUNNING:
            taken = state.timestamp - before.timestamp
            if taken > NO_TIME:
                self.total_run_time += taken
        if state.type is RUNNING:
            self.run_count += 1
            if self.start_time is None:
                self.start_time = state.timestamp
        elif self.start_time is not None and state.is_final():
            self.end_time = state.timestamp
        self.state = state

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id}, name={self.name!r}, state={self.state})"


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryRun:
    """The run of a deployment for which a flow is called."""

    id: UUID
    name: str
    deployment_id: UUID
    deployment_name: str
    attempt: int  #: of the run, from 1; each has a process of its own
    scheduled_for: datetime | None


#: that which the next flow to be called is; set by the process of a run, for the flow of its entry point
ENTRY: ContextVar[EntryRun | None] = ContextVar("whenthen.entry", default=None)


class FlowRun(Run):
    """One run of a flow."""

    __slots__ = (
        "deployment_id",
        "deployment_name",
        "flow_id",
        "flow_name",
        "flow_version",
        "job_variables",
        "parameters",
        "pauses",
        "scheduled_start_time",
    )

    def __init__(
        self, *, flow_name: str, flow_version: str | None, flow_id: UUID, parameters: dict[str, Any], **given: Any
    ) -> None:
        super().__init__(**given)
        self.flow_id = flow_id
        self.flow_name = flow_name
        self.flow_version = flow_version
        self.parameters = parameters
        self.scheduled_start_time = self.created
        self.deployment_id: UUID | None = None
        self.deployment_name: str | None = None
        self.job_variables: dict[str, Any] | None = None
        self.pauses = 0  #: that this try has come to, those of flows in it included
        entry = ENTRY.get()
        if entry is not None:
            ENTRY.set(None)
            self._become(entry)

    def _become(self, entry: EntryRun) -> None:
        """Be the run of a deployment, whose attempts before this one count as tries."""
        self.id, self.name = entry.id, entry.name
        self.deployment_id, self.deployment_name = entry.deployment_id, entry.deployment_name
        self.run_count = entry.attempt - 1
        if entry.scheduled_for is not None:
            self.scheduled_start_time = entry.scheduled_for

    def next_pause(self) -> str:
        """The key of a pause that is given none: its number within the outermost flow, which is the same in each try that goes the same way."""
        outermost: FlowRun = self
        above: Run | None = self.parent
        while above is not None:
            if isinstance(above, FlowRun):
                outermost = above
            above = above.parent
        outermost.pauses += 1
        return str(outermost.pauses)

    @property
    def parent_flow_run_id(self) -> UUID | None:
        above = self.parent
        while above is not None and not isinstance(above, FlowRun):
            above = above.parent
        return None if above is None else above.id

    @property
    def parent_task_run_id(self) -> UUID | None:
        """The task run in which it was started, if it was."""
        return self.parent.id if isinstance(self.parent, TaskRun) else None


class TaskRun(Run):
    """One run of a task."""

    __slots__ = ("flow_run_id", "flow_run_run_count", "task_inputs", "task_key", "task_name", "task_version")

    def __init__(
        self,
        *,
        task_name: str,
        task_key: str,
        task_version: str | None,
        flow_run_id: UUID | None,
        id: UUID,
        name: str,
        parent: Run | None,
        tags: Iterable[str],
        state: State[Any],
    ) -> None:
        Run.__init__(self, id=id, name=name, parent=parent, tags=tags, state=state)
        self.task_name = task_name
        self.task_key = task_key
        self.task_version = task_version
        self.flow_run_id = flow_run_id
        self.flow_run_run_count = 0
        self.task_inputs: dict[str, list[UUID]] = {}

    @property
    def dynamic_key(self) -> str:
        return self.id.hex
