"""Every error of whenthen, one tree.

WhenthenError
├── InvalidInput          what came in is wrong; nothing was changed (HTTP 400)
│   ├── InvalidEvent      an event's field is missing or wrong
│   │   ├── InvalidJson   a body that is to be JSON can not be decoded
│   │   └── ReservedName  a name or id of the engine's own events, from outside
│   ├── InvalidRules      a set of rules is refused; carries every problem found
│   ├── InvalidTemplate   a template or path can not be compiled
│   ├── ConditionRefused  a condition can not be compiled (`conditions`)
│   │   └── ConditionSyntaxError   it is not CEL
│   ├── InvalidBackup     a file is no backup that can be restored (`engine.backup`)
│   ├── NoSuchLimit       slots are asked for of a limit that has not so many, or that do not come free with time (`runs`)
│   ├── NothingToImport   a file has neither automations nor deployments (`rules.prefect_import`)
│   └── UnsupportedMediaType   a body of a kind that is not read (HTTP 415)
├── Refused               understood, but not allowed (HTTP 401, 403)
│   ├── NotAdmitted       what a caller shows proves nothing (HTTP 401; `engine.access`)
│   ├── RulesFromFilesAlone   a request may not put rules in force here (`engine.process`)
│   ├── Unproven          a request of a webhook does not prove who it is from; the answer does not say why
│   └── SecretUnreadable  there is nothing to verify a request of a webhook by
├── NotFound              no such automation, deployment, run, webhook
├── Conflict              somebody else changed it first, or it is in another state (HTTP 409)
│   ├── NotPaused         a run was to be resumed that waits for nobody (`runs`)
│   ├── PauseOver         a run was to be resumed whose time for that is over (`runs`)
│   ├── RevisionTaken     somebody else published rules first (`engine.rule_sets`)
│   ├── RulesFull         there is no room for a set of rules (`engine.rule_sets`)
│   ├── NameTaken         a deployment that a script registers has the name of somebody else's (`rules`)
│   └── RevisionUnusable  a stored revision of the rules can not be used (`engine.rule_sets`)
│       ├── RevisionDamaged        it is not whole; no process can
│       └── RevisionNotUnderstood  this version can not compile it
├── RenderError           a parameter could not be rendered for this event
│   └── NoText            text was to be made of null, a list or an object (`templates`)
├── ActionError           an action's try failed; `retryable` says whether another may help
├── KeysUnavailable       the public keys that a request is verified by can not be read at the moment (HTTP 503)
├── BusUnavailable        NATS or a stream can not be reached or is full (HTTP 503)
├── SetupError            the process can not start: port, directory, server version
├── ConditionError        something is wrong with a condition (`conditions`)
│   ├── ConditionRefused  as above
│   └── ConditionFailed   it has no value for these variables
├── SourceTrouble         a source can not be read at the moment (`engine.sources`)
├── SourceFault           this program fails on a message of a source (`engine.sources`)
├── Fenced                another process has taken over the shard (`engine.evaluation`)
├── CommitRefused         the store refuses a commit again and again (`engine.evaluation`)
├── BadReport             a line of a run to its worker is none of the protocol (`runs`)
├── TooDeep               a chain of runs and firings, each started by the one before, is as long as it may be (`runs`)
├── Shortage              a worker's machine can not start a run at the moment (`runs`)
├── NotWarm               an interpreter can not wait for a run, or not take it; the run starts elsewhere (`runs`)
├── CursorMoved           another projector has read on (`history`)
├── HistoryUnavailable    the database of the history can not be used at the moment (`history`)
├── HttpError             a request is refused for its form (`engine.http`)
├── Unreachable           no server answers at the address (`cli`)
├── TooLong               what comes is longer than any part of a stream of ours (`cli`)
└── ApiError              the server refused a request (`cli`)

An error has a `path`, the field at fault, and a `detail`, what is wrong with it and the remedy. The message is made of
the two in one place, `error_text`; whoever needs one of them takes it from the error and never from the message.
`reason` is stable: the same word in logs, metrics and the API.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, ClassVar, Self

__all__ = [
    "ActionError",
    "BusUnavailable",
    "Conflict",
    "FieldPath",
    "InvalidEvent",
    "InvalidInput",
    "InvalidJson",
    "InvalidRules",
    "InvalidTemplate",
    "KeysUnavailable",
    "NotFound",
    "Problem",
    "Refused",
    "RenderError",
    "ReservedName",
    "SecretUnreadable",
    "SetupError",
    "Unproven",
    "UnsupportedMediaType",
    "WhenthenError",
    "did_you_mean",
    "error_text",
    "near_names",
    "path_text",
]

#: where a field is: the keys of mappings and the indexes of lists that lead to it
FieldPath = tuple[str | int, ...]

MAX_STEP_CHARS = 100  #: of one key of a path that are shown
NEAR_CHARS = 100  #: of a word and of a name that are compared
NEAR_NAMES = 300  #: that one word is compared with
NEAR_LOOKED_AT = 20_000  #: names among which those are looked for


def path_text(path: Iterable[str | int]) -> str:
    """`automations[2].trigger.expct`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step[:MAX_STEP_CHARS]}" if text else step[:MAX_STEP_CHARS]
    return text


def error_text(path: Iterable[str | int], detail: str) -> str:
    """`automations[2].trigger.expct: unknown field`; the detail alone where there is no path."""
    field = path_text(path)
    return f"{field}: {detail}" if field else detail


class WhenthenError(Exception):
    """Root of all errors that whenthen raises on purpose. The message carries the remedy."""

    reason: str = "error"

    def __init__(self, detail: str, *, path: FieldPath = ()) -> None:
        super().__init__(detail)
        self.detail = detail  #: what is wrong and the remedy, without the path
        self.path = path  #: of the field at fault; empty where no field is

    def __str__(self) -> str:
        return error_text(self.path, self.detail)

    @property
    def field(self) -> str:
        """The path as text, such as `resource.id`; empty where no field is at fault."""
        return path_text(self.path)

    def below(self, *steps: str | int) -> Self:
        """This error, whose path starts with `steps` from now on: for whoever knows where the part at fault was.

        `raise error.below("map", "each")` keeps the kind of error and all that it carries.
        """
        self.path = (*steps, *self.path)
        return self


class InvalidInput(WhenthenError):
    """What came in is wrong. Nothing was changed."""

    reason = "invalid_input"


class InvalidEvent(InvalidInput):
    """An event is refused. `path` leads to the field at fault."""

    reason = "invalid_event"


class InvalidJson(InvalidEvent):
    """A body is no JSON, or none that is taken. The message has line and column."""

    reason = "invalid_json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong in a set of rules. Lines and columns count from 1; 0 means unknown.

    A warning is about what can work and probably does not do what is meant: the set is taken all the same.
    """

    file: str
    line: int
    column: int
    path: FieldPath  #: `("automations", 2, "trigger", "expct")`
    detail: str  #: what was found and the remedy
    warning: bool = False

    @property
    def field(self) -> str:
        """The path as text: `automations[2].trigger.expct`."""
        return path_text(self.path)

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        return where + ("warning: " if self.warning else "") + error_text(self.path, self.detail)


class ReservedName(InvalidEvent):
    """An event from outside has a name or an id that only the engine's own events have."""

    reason = "reserved_name"


class InvalidRules(InvalidInput):
    """A set of rules is refused as a whole. `problems` lists everything found, in file order."""

    reason = "invalid_rules"

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class InvalidTemplate(InvalidInput):
    """A template, path or glob does not compile. The detail names the position."""

    reason = "invalid_template"


class UnsupportedMediaType(InvalidInput):
    """A request body of a content type or encoding that is not read. The message names those that are."""

    reason = "unsupported_media_type"
    status = 415


class Refused(WhenthenError):
    """The request is understood and not allowed. `status` is 401 or 403."""

    reason = "refused"

    def __init__(self, detail: str, *, status: int = 401) -> None:
        super().__init__(detail)
        self.status = status


class Unproven(Refused):
    """A request does not prove who it is from. `reason` says what of it fails, in the log, the metric and the record; its sender is told
    only that it does not, and with status 401 that it may try again with credentials."""

    #: what can fail, and the words of `reason`
    REASONS: ClassVar[tuple[str, ...]] = (
        "proof_missing",  # no signature, token or password is there
        "proof_malformed",  # there is one, and it does not have the form
        "proof_wrong",  # it is none of ours
        "proof_repeated",  # its header comes several times
        "clock_skew",  # it is right, or may be, and its time is too far from ours
    )

    def __init__(self, reason: str, detail: str, *, status: int = 403) -> None:
        super().__init__(detail, status=status)
        self.reason = reason


class SecretUnreadable(Refused):
    """No secret that the request could be verified by can be read; why is the cause."""


class KeysUnavailable(WhenthenError):
    """A request can be neither believed nor refused, as the public keys that it is verified by can not be read; its sender repeats it."""

    reason = "keys_unavailable"


class NotFound(WhenthenError):
    """The named thing does not exist. The message lists near names where there are any: those of `among` that `word` may have been meant for,
    which are in `near`, too."""

    reason = "not_found"

    def __init__(self, detail: str, *, path: FieldPath = (), word: str = "", among: Iterable[str] = ()) -> None:
        self.word = word
        self.near = near_names(word, among, n=3) if word else []
        super().__init__(detail + _hint(self.near), path=path)


class Conflict(WhenthenError):
    """The thing is not in the state that the call needs, or another writer came first."""

    reason = "conflict"


class RenderError(WhenthenError):
    """A parameter could not be rendered: a missing value, a wrong type, or a spent budget."""

    reason = "render_error"


class ActionError(WhenthenError):
    """One try of an action failed. `retry_after` is the earliest next try that the other side asked for, `sent` what was sent and what came
    back, for people, without secrets."""

    reason = "action_failed"

    def __init__(
        self,
        detail: str,
        *,
        path: FieldPath = (),
        retryable: bool = True,
        reason: str | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(detail, path=path)
        self.retryable = retryable
        self.retry_after = retry_after
        self.sent: Mapping[str, Any] | None = None
        if reason is not None:
            self.reason = reason


class BusUnavailable(WhenthenError):
    """The bus did not acknowledge in time, is away, or its stream is full. Try again later."""

    reason = "bus_unavailable"


class SetupError(WhenthenError):
    """The process can not start. The message says what to change."""

    reason = "setup_error"


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """`; did you mean 'a', 'b'?`, with up to three of `names`; empty when none is near."""
    return _hint(near_names(word, names, n=3))


def _hint(near: list[str]) -> str:
    return f"; did you mean {', '.join(map(repr, near))}?" if near else ""


def near_names(word: str, names: Iterable[str], *, n: int = 1, cutoff: float = 0.6) -> list[str]:
    """Up to `n` of `names` that `word` may have been meant for, the nearest first.

    Comparing costs the product of two lengths for each name, and `word` may come from anybody: only words and names of at most
    `NEAR_CHARS` are compared, and of more than `NEAR_NAMES` names only those that begin or end like it.
    """
    if len(word) > NEAR_CHARS:
        return []
    among = [name for name in islice(names, NEAR_LOOKED_AT) if len(name) <= NEAR_CHARS]
    if len(among) > NEAR_NAMES:
        among = [name for name in among if name[:3] == word[:3] or name[-3:] == word[-3:]][:NEAR_NAMES]
    return difflib.get_close_matches(word, among, n=n, cutoff=cutoff)
