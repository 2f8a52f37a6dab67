"""Schedules of deployments as data: checked with the calendar of the rules when they are made, so that a slip shows in the editor's
traceback and not at the server. What is wrong is a plain ValueError, as in Prefect. Called by `deployment_values`; users make them with `Cron`, `Interval` and `RRule`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from whenthen.flows.argument_kinds import MAPPING, TEXT, TIME, TRUTH, Kind, check, checked_arguments, refuse_unknown
from whenthen.flows.clock import utc_now
from whenthen.flows.flow_errors import ArgumentError
from whenthen.flows.unsupported import not_supported

__all__ = [
    "Cron",
    "CronSchedule",
    "DeploymentScheduleCreate",
    "Interval",
    "IntervalSchedule",
    "MadeUpAnchor",
    "RRule",
    "RRuleSchedule",
    "Schedule",
    "schedules_of",
]

Seconds = int | float | timedelta


class MadeUpAnchor(datetime):
    """The moment at which a schedule was made that was given no anchor. The rules have none then, so that a script that is started again
    registers the same."""


def _now() -> MadeUpAnchor:
    now = utc_now()
    return MadeUpAnchor.combine(now.date(), now.timetz())


OPTIONS = {
    "cron": TEXT,
    "rrule": TEXT,
    "anchor_date": TIME,
    "timezone": TEXT.or_none,
    "day_or": TRUTH,
    "active": TRUTH,
    "parameters": MAPPING,
    "slug": TEXT.or_none,
}


@dataclass(frozen=True, kw_only=True)
class CronSchedule:
    """Five fields, minute to weekday, in a time zone (UTC when there is none)."""

    cron: str
    timezone: str | None = None
    day_or: bool = True

    def __post_init__(self) -> None:
        check("schedule", OPTIONS, vars(self))
        if not self.day_or:
            not_supported("schedules.Cron(day_or=False)")
        _check(cron=self.cron, timezone=self.timezone)


@dataclass(frozen=True, kw_only=True)
class IntervalSchedule:
    """The same time again and again, counted from `anchor_date`."""

    interval: timedelta
    anchor_date: datetime = field(default_factory=_now)
    timezone: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", _duration(self.interval))
        check("schedule", OPTIONS, vars(self))
        if self.timezone is None:  # an interval of days follows the clock of its anchor
            object.__setattr__(self, "timezone", getattr(self.anchor_date.tzinfo, "key", "UTC"))
        _check(interval=self.interval, anchor=self.anchor_date, timezone=self.timezone)


@dataclass(frozen=True, kw_only=True)
class RRuleSchedule:
    """A recurrence rule of RFC 5545."""

    rrule: str
    timezone: str | None = "UTC"

    def __post_init__(self) -> None:
        check("schedule", OPTIONS, vars(self))
        _check(rrule=self.rrule, timezone=self.timezone)


AnySchedule = CronSchedule | IntervalSchedule | RRuleSchedule


@dataclass(frozen=True)
class Schedule:
    """One of cron, interval and rrule, with what belongs to it. `Cron`, `Interval` and `RRule` make them."""

    interval: timedelta | None = None
    cron: str | None = None
    rrule: str | None = None
    timezone: str | None = None
    anchor_date: datetime = field(default_factory=_now)
    day_or: bool = True
    active: bool = True
    parameters: dict[str, Any] = field(default_factory=dict)
    slug: str | None = None

    def __post_init__(self) -> None:
        if self.interval is not None:
            object.__setattr__(self, "interval", _duration(self.interval))
        check("schedule", {name: kind.or_none for name, kind in OPTIONS.items()}, vars(self))
        self.plain()

    def plain(self) -> AnySchedule:
        """The schedule by itself.

        Raises:
            ValueError: it is none of cron, interval and rrule, or several, or can not be understood, or never comes.
        """
        given = [name for name in ("interval", "cron", "rrule") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"Only one schedule type can be defined at a time. Found: {', '.join(given)}")
        if self.cron is not None:
            return CronSchedule(cron=self.cron, timezone=self.timezone, day_or=self.day_or)
        if self.rrule is not None:
            return RRuleSchedule(rrule=self.rrule, timezone=self.timezone or "UTC")
        if self.interval is None:
            raise ValueError("a schedule has one of cron, interval and rrule; found none")
        return IntervalSchedule(interval=self.interval, anchor_date=self.anchor_date, timezone=self.timezone)


@dataclass(frozen=True, kw_only=True)
class DeploymentScheduleCreate:
    """A schedule of a deployment."""

    schedule: AnySchedule
    active: bool = True
    parameters: dict[str, Any] = field(default_factory=dict)
    slug: str | None = None

    def __post_init__(self) -> None:
        plain = Kind("a CronSchedule, IntervalSchedule or RRuleSchedule", lambda value: isinstance(value, AnySchedule))
        check("schedule", {**OPTIONS, "schedule": plain}, vars(self))


@checked_arguments()
def Cron(
    cron: str,
    /,
    timezone: str | None = None,
    day_or: bool = True,
    active: bool = True,
    parameters: dict[str, Any] | None = None,
    slug: str | None = None,
) -> Schedule:
    """A schedule by five fields: minute, hour, day, month, weekday."""
    return Schedule(
        cron=_given(cron, "cron"),
        timezone=timezone,
        day_or=day_or,
        active=active,
        parameters={} if parameters is None else parameters,
        slug=slug,
    )


@checked_arguments()
def Interval(
    interval: Seconds,
    /,
    anchor_date: datetime | None = None,
    timezone: str | None = None,
    active: bool = True,
    parameters: dict[str, Any] | None = None,
    slug: str | None = None,
) -> Schedule:
    """A schedule by a time between runs, in seconds or as a timedelta, counted from `anchor_date` or now."""
    return Schedule(
        interval=_duration(interval),
        anchor_date=_now() if anchor_date is None else anchor_date,
        timezone=timezone,
        active=active,
        parameters={} if parameters is None else parameters,
        slug=slug,
    )


@checked_arguments()
def RRule(
    rrule: str,
    /,
    timezone: str | None = None,
    active: bool = True,
    parameters: dict[str, Any] | None = None,
    slug: str | None = None,
) -> Schedule:
    """A schedule by a recurrence rule, such as FREQ=WEEKLY;BYDAY=MO."""
    return Schedule(
        rrule=_given(rrule, "rrule"),
        timezone=timezone,
        active=active,
        parameters={} if parameters is None else parameters,
        slug=slug,
    )


def schedules_of(
    *,
    interval: Iterable[Seconds] | Seconds | None = None,
    cron: Iterable[str] | str | None = None,
    rrule: Iterable[str] | str | None = None,
    schedule: Any = None,
    schedules: Iterable[Any] | None = None,
) -> list[DeploymentScheduleCreate]:
    """The schedules that the options of a deployment mean.

    Raises:
        ValueError: more than one option is given, or one can not be understood.
    """
    options = {"interval": interval, "cron": cron, "rrule": rrule, "schedule": schedule, "schedules": schedules}
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise ValueError(
            f"Only one of interval, cron, rrule, schedule, or schedules can be provided; found {' and '.join(given)}. "
            "Several schedules are a list: schedules=[Cron(...), Interval(...)]"
        )
    if interval is not None:
        return [_entry(Interval(one)) for one in _listed(interval)]
    if cron is not None:
        return [_entry(Cron(one)) for one in _listed(cron)]
    if rrule is not None:
        return [_entry(RRule(one)) for one in _listed(rrule)]
    if schedule is not None:
        return [_entry(schedule)]
    if schedules is not None and not isinstance(schedules, Iterable):
        raise ArgumentError(
            f"schedules is a list; write schedules=[...], or schedule= for one; found {schedules!r:.100}"
        )
    entries = [_entry(one) for one in schedules or []]
    slugs = [entry.slug for entry in entries if entry.slug is not None]
    if len(set(slugs)) < len(slugs):
        raise ValueError(f"schedules of one deployment need different slugs; found {', '.join(slugs)}")
    return entries


def _listed(value: Any) -> Iterable[Any]:
    """Several values, or the one that is no list."""
    return value if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _entry(value: Any) -> DeploymentScheduleCreate:
    if isinstance(value, DeploymentScheduleCreate):
        return value
    if isinstance(value, Schedule):
        return DeploymentScheduleCreate(
            schedule=value.plain(), active=value.active, parameters=value.parameters, slug=value.slug
        )
    if isinstance(value, AnySchedule):
        return DeploymentScheduleCreate(schedule=value)
    if isinstance(value, Mapping):
        inner = value.get("schedule", value)
        entry = _entry(_of_mapping(inner) if isinstance(inner, Mapping) else inner)
        if inner is value:
            return entry
        refuse_unknown("schedule", value, DeploymentScheduleCreate.__dataclass_fields__, "field")
        return DeploymentScheduleCreate(
            schedule=entry.schedule,
            active=value.get("active", entry.active),
            parameters=value.get("parameters") or entry.parameters,
            slug=value.get("slug", entry.slug),
        )
    raise ArgumentError(
        f"a schedule is Cron(...), Interval(...) or RRule(...) of whenthen.schedules; found {value!r:.100}"
    )


def _of_mapping(value: Mapping[str, Any]) -> Schedule:
    refuse_unknown("schedule", value, Schedule.__dataclass_fields__, "field")
    return Schedule(**value)


@dataclass(frozen=True, kw_only=True)
class _Times:
    """What the calendar reads."""

    cron: str | None = None
    interval: timedelta | None = None
    anchor: datetime | None = None
    rrule: str | None = None
    timezone: str = "UTC"


def _check(*, timezone: str | None, **given: Any) -> None:
    from whenthen.schemas.calendar import check_timetable  # not before a schedule is made: it imports two parsers

    try:
        check_timetable(_Times(timezone=timezone or "UTC", **given))
    except ValueError as error:
        shown = ", ".join(f"{name}={value!r}" for name, value in given.items() if name != "anchor")
        raise ValueError(f"schedule {shown}, timezone={timezone!r}: {error}") from None


def _given(value: Any, name: str) -> Any:
    """What a schedule is called after, which may not be None."""
    check("schedule", OPTIONS, {name: value})
    return value


def _duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return timedelta(seconds=value)
        except (OverflowError, ValueError):
            raise ArgumentError(f"interval={value!r}: no such number of seconds") from None
    raise ArgumentError(f"an interval is seconds or a timedelta; found {value!r:.80}")
