"""Work pools, where runs wait for workers, and the workers; and what rules give a name for the code of all runs: limits and secrets. Execution:
`whenthen.runs`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from whenthen.schemas.base import MAX_NAME_CHARS, DeploymentName, Model, Name, SecretRef

__all__ = [
    "NamedLimit",
    "NamedSecret",
    "WorkPool",
    "WorkerRecord",
    "is_served_pool",
    "same_name",
    "served_pool",
]

_CODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SERVED = "served:"


def served_pool(deployment: str) -> str:
    """The pool of a deployment that a script serves: of it alone, so that its runs wait for that script, whatever machine it comes back on."""
    name = _SERVED + deployment.replace("/", ".")
    if len(name) <= MAX_NAME_CHARS and "." not in deployment:
        return name
    # the name of a pool has no slash, so that a digest tells `a/b.c` from `a.b/c`
    digest = hashlib.blake2b(deployment.encode(), digest_size=8).hexdigest()
    return f"{name[: MAX_NAME_CHARS - len(digest) - 1].rstrip()}-{digest}"


def is_served_pool(name: str) -> bool:
    """Whether only workers that name this pool work in it: the code of its runs is where its script is."""
    return name.startswith(_SERVED)


class WorkPool(Model):
    """A place where runs wait, and the workers that take them from it."""

    name: Name
    description: str = Field(default="", max_length=20_000)
    type: Literal["process", "docker"] = "process"
    """How a run is executed, on the machine of the worker: `process`, in a process group of its own, or `docker`, in a container."""
    image: str | None = Field(default=None, min_length=1, max_length=1000)
    """Of a container, unless a deployment has its own."""
    docker_options: list[str] = Field(default_factory=list, max_length=100)
    """Further words of `docker run`, such as --network=host."""
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

    @model_validator(mode="after")
    def _of_containers(self) -> WorkPool:
        if self.type != "docker" and (self.image or self.docker_options):
            raise ValueError("`image` and `docker_options` are of a pool of `type: docker`")
        if self.image is not None and self.image.startswith("-"):
            raise ValueError(f"{self.image[:80]!r} is no image; write one such as python:3.12-slim")
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


def same_name(name: str) -> str:
    """What names have in common that are one: as in the environment, letters are capitals, and all but letters and digits is `_`."""
    return re.sub("[^A-Za-z0-9]", "_", name).upper()


def _check_code_name(value: str) -> str:
    if _CODE_NAME.fullmatch(value) is None:
        raise ValueError(f"{value!r} has other characters than letters, digits, dashes, dots and underscores")
    return value


CodeName = Annotated[Name, AfterValidator(_check_code_name)]


class NamedLimit(Model):
    """Slots that the code of runs shares, in `concurrency(name)` and `rate_limit(name)`."""

    name: CodeName
    description: str = Field(default="", max_length=20_000)
    slots: int = Field(ge=1, le=100_000)
    """How many there are, for all runs of all workers together."""
    per_second: float | None = Field(default=None, gt=0, le=1_000_000)
    """How many come free each second by themselves, as `rate_limit` needs it; left out, slots come free when they are given back."""


class NamedSecret(Model):
    """A secret that the code of runs reads with `Secret.load(name)`."""

    name: CodeName
    description: str = Field(default="", max_length=20_000)
    value: SecretRef
    """Where it is, on the machine of the worker: `env:NAME` or `file:/path`."""
    deployments: list[DeploymentName] | None = Field(default=None, max_length=1000)
    """Whose runs may read it; left out, those of every deployment."""
