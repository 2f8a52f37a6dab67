"""What is answered about variables, artifacts and named limits, and what is asked for with a body."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from whenthen.engine.http.answers import HttpError
from whenthen.engine.http.models.answer_base import AnswerModel
from whenthen.engine.http.models.request_models import read_fields

__all__ = [
    "ArtifactItem",
    "LeaseAnswer",
    "LeaseRequest",
    "NamedLimitItem",
    "Unset",
    "VariableItem",
    "VariableRequest",
    "read_lease_request",
    "read_variable_request",
]


class VariableItem(AnswerModel):
    """A variable."""

    name: str
    value: Any
    tags: list[str]
    changed: str
    by: str
    """Who set it last: `run:<id>`, or `api`."""


class Unset(AnswerModel):
    """That a variable was forgotten."""

    name: str
    unset: bool
    """Whether there was one."""


class ArtifactItem(AnswerModel):
    """What a run has to show."""

    id: str
    key: str
    """Artifacts of one key are versions of one thing; empty without one."""
    type: str
    """markdown, table (JSON as text), progress (a number up to 100), image (an address), or another word of the run's code."""
    description: str
    data: Any
    metadata: dict[str, str]
    run: str
    deployment: str
    task_run: str
    """Empty where the flow itself made it."""
    created: str
    updated: str
    seq: int
    """Its place; `before` of the next page."""


class NamedLimitItem(AnswerModel):
    """A limit of the rules."""

    name: str
    description: str
    slots: int
    per_second: float | None
    taken: float
    """How many slots are taken now."""
    holders: list[str]
    """Runs, or leases, that have slots."""


class LeaseAnswer(AnswerModel):
    """Slots that were asked for."""

    lease: str | None = None
    """Absent when there is none now."""
    until: str | None = None
    wait_s: float | None = None
    """After which to ask again, when there is none now."""
    in_process: bool | None = None
    """True when the rules do not have one of the limits."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class VariableRequest(_Body):
    value: Any
    tags: list[str] = Field(default_factory=list)
    overwrite: bool = False


class LeaseRequest(_Body):
    names: list[str]
    occupy: int = 1
    mode: Literal["concurrency", "rate_limit"] = "concurrency"
    lease_s: float = 300.0


_VARIABLE = {
    "value": "what it is to be, as JSON; null is a value, too",
    "tags": "a list of texts",
    "overwrite": "true: an existing one is replaced",
}
_LEASE = {
    "names": "a list of names of limits",
    "occupy": "how many slots of each",
    "mode": "concurrency or rate_limit",
    "lease_s": "seconds after which the slots come free, unless it is renewed",
}


def read_variable_request(data: Any) -> VariableRequest:
    """
    Raises:
        HttpError: 400, with the field at fault.
    """
    return read_fields(VariableRequest, data, _VARIABLE, '{"value": "eu", "overwrite": true}')


def read_lease_request(data: Any) -> LeaseRequest:
    """
    Raises:
        HttpError: 400, with the field at fault.
    """
    return read_fields(LeaseRequest, data, _LEASE, '{"names": ["database"], "occupy": 1}')


def no_body() -> Any:
    """
    Raises:
        HttpError: always: the route has one.
    """
    raise HttpError(400, "invalid_request", "the request has no body")
