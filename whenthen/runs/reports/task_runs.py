"""Runs of tasks and flows within one run of a deployment: their moves, as they are reported and kept, and what the moves come to. Pure.

A move may be kept twice, and moves of one task run come in the order of their numbers within an attempt; `TaskRuns` takes both into account.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = [
    "FINAL_TYPES",
    "MAX_TASK_RUNS",
    "STATE_TYPES",
    "TaskRun",
    "TaskRunMove",
    "TaskRunPage",
    "TaskRunState",
    "TaskRuns",
    "move_of_record",
    "record_of_move",
]

MAX_TASK_RUNS: Final = 20_000  #: of one attempt that are kept; further ones are counted
MAX_STATES: Final = 50  #: of one task run that are shown, the last ones
FINAL_TYPES: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
STATE_TYPES: Final = FINAL_TYPES | {"SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRunMove:
    """A run of a task or flow has entered a state. What is empty is as it was in the moves before."""

    id: str  #: 32 hexadecimal digits
    n: int  #: grows with the moves of one process
    state: str  #: its type, such as RUNNING
    state_name: str
    at: str  #: RFC 3339
    message: str = ""
    tries: int = 0
    attempt: int = 1  #: of the run of the deployment
    kind: str = ""  #: task or flow
    name: str = ""
    of: str = ""  #: the task or flow
    parent: str = ""  #: the id of the run in which it was started
    tags: tuple[str, ...] = ()


def record_of_move(move: TaskRunMove, *, known: bool) -> dict[str, Any]:
    """A move as it is kept. What a `known` run is, is not said again."""
    record: dict[str, Any] = {
        "id": move.id,
        "n": move.n,
        "state": move.state,
        "state_name": move.state_name,
        "at": move.at,
        "tries": move.tries,
        "attempt": move.attempt,
        "name": move.name,
    }
    if move.message:
        record["message"] = move.message
    if not known:
        record |= {"kind": move.kind, "of": move.of, "parent": move.parent, "tags": list(move.tags)}
    return record


def move_of_record(record: dict[str, Any]) -> TaskRunMove:
    """A move as it was kept; fields of a later version are left out.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    return TaskRunMove(
        id=str(record["id"]),
        n=int(record["n"]),
        state=str(record["state"]),
        state_name=str(record["state_name"]),
        at=str(record["at"]),
        message=str(record.get("message", "")),
        tries=int(record.get("tries", 0)),
        attempt=int(record.get("attempt", 1)),
        kind=str(record.get("kind", "")),
        name=str(record.get("name", "")),
        of=str(record.get("of", "")),
        parent=str(record.get("parent", "")),
        tags=tuple(map(str, record.get("tags", ()))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRunState:
    """One state that a task run was in."""

    name: str
    at: str
    message: str = ""


@dataclass(slots=True, kw_only=True)
class TaskRun:
    """What the moves of one run of a task or flow come to."""

    id: str
    attempt: int
    kind: str
    name: str
    of: str
    parent: str
    tags: tuple[str, ...]
    created: str
    state: str
    state_name: str
    message: str = ""
    tries: int = 0
    started: str | None = None
    ended: str | None = None
    states: list[TaskRunState] = field(default_factory=list)  #: the last `MAX_STATES`


class TaskRuns:
    """The task runs of one run, in the order in which they were first heard of."""

    def __init__(self) -> None:
        self._runs: dict[tuple[int, str], TaskRun] = {}
        self._newest: dict[tuple[int, str], int] = {}

    def add(self, moves: Iterable[TaskRunMove]) -> None:
        for move in moves:
            key = move.attempt, move.id
            if move.n <= self._newest.get(key, 0):
                continue
            self._newest[key] = move.n
            run = self._runs.get(key)
            if run is None:
                run = self._runs[key] = TaskRun(
                    id=move.id,
                    attempt=move.attempt,
                    kind=move.kind,
                    name=move.name,
                    of=move.of,
                    parent=move.parent,
                    tags=move.tags,
                    created=move.at,
                    state=move.state,
                    state_name=move.state_name,
                )
            run.name = move.name or run.name
            run.state, run.state_name, run.message = move.state, move.state_name, move.message
            run.tries = max(run.tries, move.tries)
            if move.state == "RUNNING" and run.started is None:
                run.started = move.at
            run.ended = move.at if move.state in FINAL_TYPES else None
            run.states.append(TaskRunState(name=move.state_name, at=move.at, message=move.message))
            if len(run.states) > MAX_STATES:
                del run.states[0]

    def all(self) -> list[TaskRun]:
        return list(self._runs.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRunPage:
    """Some task runs of a run. `total` is how many are kept."""

    task_runs: list[TaskRun]
    total: int
