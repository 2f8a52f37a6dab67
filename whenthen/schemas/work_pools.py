"""Work pools, where runs wait for workers, and the workers. Execution: `whenthen.runs`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from whenthen.schemas.base import Model, Name

__all__ = ["WorkPool", "WorkerRecord"]


class WorkPool(Model):
    """A place where runs wait, and the workers that take them from it."""

    name: Name
    description: str = Field(default="", max_length=20_000)
    type: Literal["process"] = "process"
    """How a run is executed: in a process group of its own, on the machine of the worker."""
    limit: int | None = Field(default=None, ge=1, le=10_000)
    """How many runs may be active at once, whatever their deployments; further ones wait."""
    paused: bool = False
    """Whether it starts out paused; pausing and resuming at run time wins over this."""
    queues: list[Name] = Field(default_factory=list, max_length=20)
    """Other pools whose runs its workers take, too, in this order: those of the first as long as it has any, its own last. Each keeps its own
    `limit` and pause, and its runs count for the limit of this pool, too."""

    @model_validator(mode="after")
    def _other_pools(self) -> WorkPool:
        if self.name in self.queues or len(set(self.queues)) != len(self.queues):
            raise ValueError("`queues` are other pools, each named once")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A worker, as it says of itself every few seconds."""

    name: str
    pool: str
    since: str  #: RFC 3339, when it started
    concurrency: int  #: the most runs at once
    running: int = 0  #: at the moment
    version: str = ""  #: of whenthen
    seen: str = ""  #: RFC 3339, when it last said so, by the clock of the store
