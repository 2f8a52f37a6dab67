"""What requests hold, as models: checked where nothing else checks them, and the schemas of the OpenAPI document.

`NewEvent` describes what `schemas.read_event` checks; the hot route does not go through a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from whenthen.engine.http.answers import HttpError
from whenthen.schemas.base import DocumentedModel
from whenthen.schemas.errors import InvalidInput, did_you_mean
from whenthen.schemas.events import EventLimits
from whenthen.schemas.times import Duration

__all__ = [
    "GivenDeployment",
    "HookRequest",
    "Listing",
    "NewEvent",
    "Page",
    "PauseRequest",
    "RegistrationRequest",
    "RequestModel",
    "ResumeRequest",
    "RollbackRequest",
    "RuleSetRequest",
    "RunRequest",
    "StateRequest",
    "SuspendRequest",
    "bounded",
    "read_fields",
    "read_hook_request",
    "read_key",
    "read_pause_request",
    "read_registration",
    "read_resume_request",
    "read_rollback",
    "read_rule_set",
    "read_run_request",
    "read_state_request",
    "read_suspend_request",
]

T = TypeVar("T", bound=BaseModel)

_LIMITS = EventLimits()
_YEAR_S = 31_536_000
LISTING_BYTES = 8 << 20  #: of the items of one answer, as JSON


class RequestModel(DocumentedModel):
    """The base of what requests hold. Read-only, and nothing else may be in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Resource(BaseModel):
    """Flat labels, all text; `id` names the resource."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str] = Field(init=False)

    id: str = Field(min_length=1)


class NewEvent(RequestModel):
    """One event."""

    id: str | None = Field(default=None, min_length=1, max_length=_LIMITS.id_chars)
    """One id is one event: what is sent again with it is recognised. Made up when it is missing."""
    event: str = Field(min_length=1, max_length=_LIMITS.name_chars, examples=["order.created"])
    """The dotted name."""
    occurred: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    """RFC 3339 with an offset; the arrival when it is missing."""
    resource: Resource
    related: list[Resource] | None = None
    payload: Any = None
    follows: str | None = None
    """The id of the event that came before this one."""


def _delay(value: float) -> float:
    if not 0 <= value <= _YEAR_S:
        raise ValueError("seconds, at most a year")
    return value


class RunRequest(RequestModel):
    """How a deployment is to be run."""

    parameters: dict[str, Any] = {}
    key: StrictStr | None = Field(default=None, min_length=1, max_length=512)
    """The idempotency key: two requests with one key give one run."""
    delay: Annotated[
        StrictInt | StrictFloat,
        AfterValidator(_delay),
        Field(json_schema_extra={"minimum": 0, "maximum": _YEAR_S}),
    ] = 0
    """Seconds until it may start."""


class PauseRequest(RequestModel):
    """How long an automation is to be paused, and why."""

    lasts: Annotated[Duration | None, Field(alias="for")] = None
    """After which it is resumed; left out: when somebody resumes it."""
    reason: StrictStr = Field(default="", max_length=1000)
    by: StrictStr = Field(default="", max_length=200)
    """Who asks for it."""


class ResumeRequest(RequestModel):
    """With what a run goes on."""

    input: Any = None
    """Of the type that the run waits for, as its `pause` has it."""
    since: StrictStr | None = Field(default=None, max_length=40)
    """The `since` of the pause that is meant: a run that waits at another one by now is not resumed (409). Left out: whichever it is."""


class SuspendRequest(RequestModel):
    """Until when a run may be resumed."""

    lasts: Annotated[Duration | None, Field(alias="for")] = None
    """After which it fails; left out: it waits for ever."""


class StateRequest(RequestModel):
    """Into which state a run is put."""

    state: StrictStr = Field(max_length=40)
    """Cancelled, Suspended, Completed, Failed or Crashed."""
    message: StrictStr = Field(default="", max_length=1000)
    """Why, for people."""


_PAUSE_REMEDIES = {
    "for": "a duration of more than 0 and at most 10 years, such as 2h",
    "reason": "text of at most 1000 characters",
    "by": "text of at most 200 characters",
}
_REMEDIES = {
    "parameters": "an object of names and values",
    "key": "text of 1 to 512 characters",
    "delay": "seconds, at most a year",
}


def read_run_request(data: Any) -> RunRequest:
    """The request for a run.

    Raises:
        HttpError: 400, with the field at fault.
    """
    return read_fields(RunRequest, data, _REMEDIES, '{"parameters": {}}')


def read_pause_request(data: Any) -> PauseRequest:
    """The request for a pause.

    Raises:
        HttpError: 400, with the field at fault.
    """
    found = read_fields(PauseRequest, data, _PAUSE_REMEDIES, '{"for": "2h", "reason": "..."}')
    if found.lasts is not None and not found.lasts:
        raise HttpError(400, "invalid_request", _PAUSE_REMEDIES["for"], path=("for",))
    return found


def read_resume_request(data: Any) -> ResumeRequest:
    """With what a run goes on. Raises `HttpError` (400), with the field at fault."""
    return read_fields(
        ResumeRequest, data, {"input": "what the pause asks for", "since": "when the pause began"}, '{"input": {}}'
    )


def read_suspend_request(data: Any) -> SuspendRequest:
    """Until when a run may be resumed. Raises `HttpError` (400), with the field at fault."""
    return read_fields(SuspendRequest, data, {"for": "a duration, such as 2h"}, '{"for": "2h"}')


def read_state_request(data: Any) -> StateRequest:
    """Into which state a run is put. Raises `HttpError` (400), with the field at fault."""
    remedies = {
        "state": "one of Cancelled, Suspended, Completed, Failed, Crashed",
        "message": _PAUSE_REMEDIES["reason"],
    }
    return read_fields(StateRequest, data, remedies, '{"state": "Failed"}')


def read_fields(model: type[T], data: Any, remedies: Mapping[str, str], example: str) -> T:
    """A body as a `model`; `remedies` says of each field what it is.

    Raises:
        HttpError: 400, with the field at fault.
    """
    if not isinstance(data, dict):
        raise HttpError(400, "invalid_request", f"the body is an object, such as {example}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        name = str(error.errors(include_url=False, include_input=False, include_context=False)[0]["loc"][0])[:80]
    remedy = remedies.get(name)
    if remedy is None:
        raise HttpError(400, "invalid_request", f"unknown field; the fields are {', '.join(remedies)}", path=(name,))
    raise HttpError(400, "invalid_request", remedy, path=(name,))


def _file_name(value: str) -> str:
    steps = value.split("/")
    if (
        value.startswith("/")
        or "\\" in value
        or not value.isprintable()
        or any(step in ("", ".", "..") for step in steps)
    ):
        raise ValueError("a path below the rules folder, such as orders/paid.yaml")
    if not value.endswith((".yaml", ".yml")):
        raise ValueError("the name of a YAML file")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("text without control characters")
    return value


class RuleText(RequestModel):
    """One rules file."""

    name: Annotated[StrictStr, Field(min_length=1, max_length=1024), AfterValidator(_file_name)]
    """Its path below the rules folder."""
    text: StrictStr


class RollbackRequest(RequestModel):
    """Who asks for other rules, and which they are to replace."""

    who: Annotated[StrictStr, Field(max_length=200), AfterValidator(_printable)] = ""
    """Who asks, for the record. It proves nothing."""
    expected: StrictInt | None = Field(default=None, ge=0)
    """The revision that is to be replaced; it is refused when another one is the current one. Any, when it is missing."""


class RuleSetRequest(RollbackRequest):
    """A set of rules. Entry points and working directories in them are relative to the server's rules folder."""

    files: Annotated[list[RuleText], Field(max_length=100_000)] | None = None
    """All files of the set; those of the server's own folder when they are missing."""


class HookRequest(RequestModel):
    """A request as a sender makes it to a webhook."""

    webhook: StrictStr = Field(min_length=1, max_length=512)
    method: StrictStr = Field(default="POST", max_length=16)
    headers: dict[StrictStr, StrictStr] = Field(default={}, max_length=200)
    query: dict[StrictStr, StrictStr] = Field(default={}, max_length=1000)
    body: Base64Bytes = b""
    """In base64."""


def read_hook_request(data: Any) -> HookRequest:
    """A request that is tried. Raises `HttpError` (400), with the field at fault."""
    return _read(HookRequest, data)


class GivenDeployment(RequestModel):
    """A deployment that a script registers."""

    rule: dict[str, Any]
    """Its fields, as in `deployments:` of the rules."""
    triggers: Annotated[list[dict[str, Any]], Field(max_length=100)] = []
    """What starts it: as in `triggers:` of a deployment, or as Prefect's classes of triggers are written."""


class RegistrationRequest(RequestModel):
    """Deployments that a script registers, or that are taken out."""

    deployments: Annotated[list[GivenDeployment], Field(max_length=1000)] = []
    script: Annotated[StrictStr, Field(max_length=4096), AfterValidator(_printable)] = ""
    """The path of the script."""
    served: StrictBool = False
    """Whether the script works for them, too. Then what it served before and is not among them any more is taken out."""
    remove: Annotated[list[Annotated[StrictStr, Field(max_length=400)]], Field(max_length=1000)] = []
    """Names of deployments that are taken out; nothing is registered then."""
    who: Annotated[StrictStr, Field(max_length=200), AfterValidator(_printable)] = ""
    """Who asks, for the record. It proves nothing."""
    preview: StrictBool = False
    """Whether nothing is changed."""


def read_registration(data: Any) -> RegistrationRequest:
    """What a script registers. Raises `HttpError` (400), with the field at fault."""
    request = _read(RegistrationRequest, data)
    if bool(request.deployments) == bool(request.remove) and (request.remove or not request.served):
        raise HttpError(
            400, "invalid_request", "deployments to register, or names to remove; one of them", path=("deployments",)
        )
    return request


def read_rule_set(data: Any) -> RuleSetRequest:
    """A set of rules. Raises `HttpError` (400), with the field at fault."""
    request = _read(RuleSetRequest, data)
    names: set[str] = set()
    for file in request.files or ():
        if file.name in names:
            raise HttpError(400, "invalid_request", f"two files have the name {file.name[:200]!r}", path=("files",))
        names.add(file.name)
    return request


def read_rollback(data: Any) -> RollbackRequest:
    """The request for a rollback. Raises `HttpError` (400), with the field at fault."""
    return _read(RollbackRequest, data)


def _read(model: type[T], data: Any) -> T:
    if not isinstance(data, dict):
        raise HttpError(400, "invalid_request", "the body is an object")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        path = tuple(step if isinstance(step, int) else step[:80] for step in first["loc"])
    raise HttpError(400, "invalid_request", first["msg"].removeprefix("Value error, "), path=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a listing: the newest `limit` that fit the filters, older than `before` when it is given."""

    limit: int = 50
    before: str | None = None
    filters: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)  #: of the resource of events
    key: Mapping[str, str] = field(default_factory=dict)  #: values of the keys of firings

    @property
    def position(self) -> int | None:
        """`before` as a position in a stream.

        Raises:
            InvalidInput: it is no number.
        """
        if self.before is None:
            return None
        if not self.before.isascii() or not self.before.isdecimal() or len(self.before) > 19:
            raise InvalidInput(
                f"{self.before[:80]!r} is not a position; give the `seq` of the last item of the page before",
                path=("before",),
            )
        return int(self.before)

    def with_filter(self, name: str, value: str) -> Page:
        """The same with another value of a filter."""
        return replace(self, filters={**self.filters, name: value})

    def choice(self, name: str, words: Sequence[str]) -> str | None:
        """The filter `name` as one of `words`, whatever its case; None when it is not given.

        Raises:
            InvalidInput: it is none of them.
        """
        given = self.filters.get(name)
        if given is None:
            return None
        for word in words:
            if word.lower() == given.lower():
                return word
        raise InvalidInput(f"{given[:80]!r} is none of {', '.join(words)}{did_you_mean(given, words)}", path=(name,))


class Listing(list[T]):
    """A page of a list. `following` are the parameters of the page after it; None when there is none. `notes` are for people."""

    following: Mapping[str, str] | None = None
    notes: Sequence[str] = ()


def bounded(
    names: Sequence[str], make: Callable[[str], T], *, after: str | None, most_bytes: int = LISTING_BYTES
) -> Listing[T]:
    """What `make` gives for each of `names` behind `after`, up to `most_bytes` as JSON, and at least one.

    Raises:
        InvalidInput: `after` is none of the names.
    """
    if after is not None and after not in names:
        raise InvalidInput(f"{after[:80]!r} is not in the list any more; begin with the first page", path=("after",))
    start = 0 if after is None else names.index(after) + 1
    found: Listing[T] = Listing()
    size = 0
    for name in names[start:]:
        item = make(name)
        size += len(item.model_dump_json())
        if found and size > most_bytes:
            found.following = {"after": names[start + len(found) - 1]}
            break
        found.append(item)
    return found


def read_key(pairs: Sequence[str], field: str = "key") -> dict[str, str]:
    """`name=value` for each part of a key, or each label; `field` is where they stand.

    Raises:
        InvalidInput: one is not of that form.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidInput(f"{pair[:80]!r} is not of the form name=value", path=(field,))
        found[name] = value
    return found
