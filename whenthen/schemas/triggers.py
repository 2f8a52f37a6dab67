"""Triggers as they are written. Meaning: docs/rules.md; evaluation: `whenthen.triggers`."""

from __future__ import annotations

import re
import sys
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Union

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from whenthen.schemas.base import GlobList, Model, OneOrMany, Texts, as_list
from whenthen.schemas.calendar import check_timetable
from whenthen.schemas.times import Duration

__all__ = [
    "Collect",
    "CompoundTrigger",
    "EventFilter",
    "EventTrigger",
    "Key",
    "KeyWithDefault",
    "MetricTrigger",
    "ScheduleTrigger",
    "SequenceTrigger",
    "Trigger",
    "key_name",
]

Match = dict[Annotated[str, Field(min_length=1, max_length=256)], GlobList]
RelatedMatches = Annotated[list[Match], BeforeValidator(as_list), OneOrMany()]
KeyText = Annotated[str, Field(min_length=1, max_length=512)]


class KeyWithDefault(Model):
    """A value of a key, and what stands for it where an event has none."""

    path: KeyText
    """A label of the resource, `related:<role>:<label>`, or JSONPath."""
    default: Annotated[str, Field(max_length=1024)] | StrictBool | StrictInt | StrictFloat
    """The value of events that have none, or null."""


#: a label of the resource, `related:<role>:<label>`, or JSONPath (`$.payload.order`), with or without a default
Key = KeyText | KeyWithDefault
_OneKey = Annotated[
    Annotated[KeyText, Tag("[text]")] | Annotated[KeyWithDefault, Tag("[mapping]")],
    Discriminator(lambda value: "[mapping]" if isinstance(value, (dict, KeyWithDefault)) else "[text]"),
]
Keys = Annotated[
    list[_OneKey],
    BeforeValidator(as_list),
    OneOrMany(),
    Field(max_length=16),
]


#: a name by which `match`, `for_each` and conditions can ask for a label
_LABEL_NAME = re.compile(r"[^\W\d][\w.-]{0,63}")


def _check_label_names(lets: dict[str, str]) -> dict[str, str]:
    for name in lets:
        if not _LABEL_NAME.fullmatch(name):
            raise ValueError(
                f"{name[:80]!r} is no name of a computed label: it begins with a letter and has letters, digits, `_`, `-`"
                " and `.` only, at most 64"
            )
    return lets


Lets = Annotated[
    dict[str, Annotated[str, Field(min_length=1, max_length=20_000)]],
    AfterValidator(_check_label_names),
    Field(max_length=16),
]


def _no_lets() -> Any:
    # left out of the written form when empty: windows of triggers that were there before `let` was stay theirs
    return Field(default_factory=dict, exclude_if=lambda lets: not lets)


def key_name(key: Key) -> str:
    """The expression of a key, by which `key` in actions names its value."""
    return key if isinstance(key, str) else key.path


class EventFilter(Model):
    """Which events: all the given tests must hold."""

    expect: Texts = Field(default_factory=lambda: ["*"])
    """Event names or globs; one of them must match."""
    match: Match = Field(default_factory=dict)
    """Labels of the resource: a glob, a list of globs (or), a leading `!` (not)."""
    match_related: RelatedMatches = Field(default_factory=list)
    """Labels of related resources; each mapping must hold for at least one related resource."""
    when: str | None = Field(default=None, max_length=20_000)
    """A CEL condition over `event` and `now`."""
    let: Lets = _no_lets()
    """Computed labels: CEL expressions over `event` and `now`. Each hides the label of its name."""


class _OrNames:
    """Beside `BeforeValidator(_as_filter)`: tells the JSON Schema that names alone stand for a filter."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        names: list[dict[str, Any]] = [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
        return {"anyOf": [*names, handler(core_schema)]}


def _as_filter(value: Any) -> Any:
    return {"expect": value} if isinstance(value, (str, list)) else value


class Collect(Model):
    """Gather matching events and fire once with all of them."""

    events: int = Field(default=1000, ge=1, le=10_000, strict=True)
    """Fire as soon as this many are gathered."""
    wait: Duration = timedelta(seconds=30)
    """Fire at the latest this long after the first one."""
    quiet: Duration | None = None
    """Fire when this long nothing more came (a debounce), if that is earlier."""
    first: Literal["now", "gathered"] = Field(default="gathered", exclude_if=lambda first: bool(first == "gathered"))
    """now: fire for the first one at once, and with the rest together; gathered: with all of them."""


class EventTrigger(EventFilter):
    """Fires when events come (reactive) or stay away (proactive)."""

    type: Literal["event"] = "event"
    after: Annotated[list[str], BeforeValidator(as_list), OneOrMany()] = Field(default_factory=list, max_length=1000)
    """Events that open a window; without it every matching event counts."""
    for_each: Keys = Field(default_factory=list)
    """One window for each value of these: labels, `related:<role>:<label>`, or JSONPath; `{path, default}` for what may be absent."""
    posture: Literal["reactive", "proactive"] = "reactive"
    """reactive: fire when they come; proactive: fire when they stay away."""
    threshold: int = Field(default=1, ge=0, le=100_000, strict=True)
    """How many events."""
    within: Duration = timedelta(0)
    """The length of the window."""
    window: Literal["sliding", "tumbling"] = "sliding"
    """sliding: any span of that length counts; tumbling: Prefect's buckets."""
    cooldown: Duration | None = None
    """How long a key is quiet after a firing; default: `within`, and with `collect` not at all."""
    resolve_on: Annotated[EventFilter, BeforeValidator(_as_filter), _OrNames()] | None = None
    """Events that end the Triggered state of their key."""
    collect: Collect | None = None
    """Gather a burst into one firing."""

    @field_validator("after")
    @classmethod
    def _after_is_text(cls, value: list[str]) -> list[str]:
        if any(not name or len(name) > 4096 for name in value):
            raise ValueError("an event name or glob is 1 to 4096 characters")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> EventTrigger:
        if self.posture == "proactive":
            if not self.within:
                raise ValueError("a proactive trigger needs `within`: how long to wait for the events")
            if self.threshold < 1:
                raise ValueError("a proactive trigger needs a threshold of at least 1: fewer than 0 events never come")
            if self.collect:
                raise ValueError("`collect` gathers events of a reactive trigger; a proactive one has none to gather")
        else:
            if self.threshold < 1:
                raise ValueError("a reactive trigger needs a threshold of at least 1")
            buckets = self.window == "tumbling"
            if self.threshold > 1 and not self.within and not buckets:
                raise ValueError(f"threshold {self.threshold} needs `within`: how close together the events must lie")
            if self.after and not self.within and not buckets:
                raise ValueError("`after` needs `within`: how long after that event the others count")
        if self.collect and (self.threshold > 1 or self.after):
            raise ValueError("`collect` and a threshold or `after` do not go together; use one of them")
        if self.collect and (self.within or self.window == "tumbling"):
            raise ValueError("a burst ends by `collect` alone: `wait`, `quiet`, `events`; remove within, window")
        if self.window == "tumbling" and self.cooldown is not None:
            raise ValueError("a tumbling bucket is quiet until it ends; `cooldown` belongs to `window: sliding`")
        return self


class CompoundTrigger(Model):
    """Fires when any, all, or N of its triggers have fired within a span."""

    type: Literal["compound"]
    require: Literal["any", "all"] | Annotated[int, Field(ge=1, strict=True)] = "all"
    """any, all, or how many."""
    triggers: list[Trigger] = Field(min_length=1, max_length=100)
    within: Duration | None = None
    """The firings of the parts must lie this close together."""
    correlate: Keys = Field(default_factory=list)
    """Labels or JSONPath that must be equal across the parts."""
    let: Lets = _no_lets()
    """Computed labels of all parts; a part's own come first."""

    @model_validator(mode="after")
    def _enough_parts(self) -> CompoundTrigger:
        if isinstance(self.require, int) and self.require > len(self.triggers):
            raise ValueError(f"require: {self.require} of {len(self.triggers)} triggers can never hold")
        return self


class SequenceTrigger(Model):
    """Fires when its triggers have fired in the given order within a span."""

    type: Literal["sequence"]
    triggers: list[Trigger] = Field(min_length=2, max_length=100)
    within: Duration | None = None
    """From the first part's firing to the last one's."""
    correlate: Keys = Field(default_factory=list)
    """Labels or JSONPath that must be equal across the parts."""
    let: Lets = _no_lets()
    """Computed labels of all parts; a part's own come first."""


#: of events in one window
_MAX_COUNT = 2**53
#: up to so many distinct values are counted exactly (`triggers.windows.metric_slices`)
_MAX_DISTINCT = 65_535


class MetricTrigger(EventFilter):
    """Fires when an aggregate of a value over recent events passes a threshold, and resolves when it no longer does."""

    type: Literal["metric"]
    aggregate: Literal["count", "sum", "avg", "min", "max", "distinct", "p50", "p75", "p90", "p95", "p99"]
    value: str | None = Field(default=None, max_length=512)
    """JSONPath of the number (or, for `distinct`, of any value) in each event."""
    operator: Literal["<", "<=", ">", ">=", "==", "!="]
    threshold: float = Field(allow_inf_nan=False, strict=True)
    within: Duration
    """The span of events that the aggregate covers, ending now."""
    hold: Duration = Field(default=timedelta(0), alias="for")
    """How long the comparison must hold before it fires."""
    for_each: Keys = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits_together(self) -> MetricTrigger:
        if self.aggregate != "count" and self.value is None:
            raise ValueError(f"aggregate {self.aggregate} needs `value`: JSONPath such as $.payload.duration")
        if not self.within:
            raise ValueError("a metric needs `within`: the span of events that it covers")
        reason = self._never_holds()
        if reason is not None:
            raise ValueError(f"{self.aggregate} {self.operator} {self.threshold:g} never holds: {reason}")
        if self.aggregate == "distinct" and self.threshold > _MAX_DISTINCT and self.operator in ("==", "!="):
            raise ValueError(
                f"distinct {self.operator} {self.threshold:g} can not be decided: more than {_MAX_DISTINCT} values are"
                " estimated and not counted; write `>` or `<`"
            )
        return self

    def _never_holds(self) -> str | None:
        """Why no events can satisfy the comparison, and what to write; None when some can."""
        threshold, asks = self.threshold, self.operator
        if self.aggregate in ("count", "distinct"):
            if (threshold < 0 and asks in ("<", "<=", "==")) or (threshold == 0 and asks == "<"):
                return "it is 0 or more; for no events at all write `== 0`"
            if asks == "==" and not threshold.is_integer():
                return "it is a whole number; write one, or `>` or `<`"
            if threshold >= _MAX_COUNT and asks in (">", ">=", "=="):
                return f"it stays below {_MAX_COUNT}; write a smaller threshold"
        elif self.aggregate not in ("sum", "avg") and (threshold, asks) in (
            (sys.float_info.max, ">"),
            (-sys.float_info.max, "<"),
        ):
            return "no number is beyond it; write a threshold within the range of the values"
        return None


class ScheduleTrigger(Model):
    """Fires at times."""

    type: Literal["schedule"]
    cron: str | None = Field(default=None, max_length=256)
    interval: Duration | None = None
    anchor: datetime | None = None
    """The interval counts from here; default 1970-01-01T00:00:00Z."""
    rrule: str | None = Field(default=None, max_length=4096)
    timezone: str = Field(default="UTC", max_length=64)

    @model_validator(mode="after")
    def _one_kind(self) -> ScheduleTrigger:
        given = [name for name in ("cron", "interval", "rrule") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a schedule is one of cron, interval or rrule; found {', '.join(given) or 'none'}")
        check_timetable(self)
        return self


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        kind = value.get("type", "event")
        return kind if isinstance(kind, str) else "event"
    return str(getattr(value, "type", "event"))


Trigger = Annotated[
    Union[
        Annotated[EventTrigger, Tag("event")],
        Annotated[CompoundTrigger, Tag("compound")],
        Annotated[SequenceTrigger, Tag("sequence")],
        Annotated[MetricTrigger, Tag("metric")],
        Annotated[ScheduleTrigger, Tag("schedule")],
    ],
    Discriminator(_kind),
]
CompoundTrigger.model_rebuild()
SequenceTrigger.model_rebuild()
