"""Schedules of a prefect.yaml as ours, in every spelling that `prefect deploy` takes. Pure.

Called by `prefect_deployments`. Meaning: docs/prefect.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson
from croniter import CroniterError, croniter

from whenthen.rules.prefect_import.import_notes import Aspect, ImportNotes
from whenthen.rules.prefect_import.model_problems import problem_of
from whenthen.rules.prefect_import.placeholders import Placeholders, has_placeholder
from whenthen.schemas.deployments import Schedule
from whenthen.schemas.times import format_duration, parse_duration

__all__ = ["import_schedules"]

_KINDS = ("cron", "interval", "rrule")
_READ = frozenset({*_KINDS, "timezone", "anchor_date", "day_or", "active", "parameters", "slug", "replaces"})
_TRUTH = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
_WEEKDAYS = ("SU", "MO", "TU", "WE", "TH", "FR", "SA", "SU")


def import_schedules(
    spec: dict[str, Any], subject: str, places: Placeholders, notes: ImportNotes, *, paused: bool
) -> list[dict[str, Any]]:
    """The schedules of a deployment. Each that has no counterpart is left out alone, with a note."""
    kept: list[dict[str, Any]] = []
    for number, written in enumerate(_listed(spec)):
        which = f"schedule {number + 1}"

        def say(message: str, which: str = which, *, lost: bool = False) -> None:
            notes.add(subject, f"{which}: {message}", Aspect.SCHEDULES if lost else None)

        if isinstance(written, str):
            written = {"cron": written}
        if not isinstance(written, dict):
            say(f"{str(written)[:80]!r} is not a mapping; left out", lost=True)
            continue
        try:
            ours = _schedule(places.filled(written), number, say)
        except ValueError as error:
            say(f"left out, write it by hand: {error}", lost=True)
            continue
        if ours is None:
            continue
        if paused:
            ours["active"] = False
        while any(ours["name"] == other["name"] for other in kept):
            ours["name"] += "-2"
        problem = problem_of(Schedule, ours)
        if problem is None:
            kept.append(ours)
        else:
            say(f"left out, write it by hand: {problem}", lost=True)
    return kept


def _listed(spec: dict[str, Any]) -> Iterator[Any]:
    """What is written, also as the one `schedule` of earlier versions."""
    for field in ("schedules", "schedule"):
        value = spec.get(field)
        yield from value if isinstance(value, list) else [value] if value else []


def _schedule(spec: dict[str, Any], number: int, say: Any) -> dict[str, Any] | None:
    """
    Raises:
        ValueError: it can not be said here.
    """
    given = [kind for kind in _KINDS if spec.get(kind)]
    if not given:
        if any(spec.get(field) for field in ("anchor_date", "slug", "parameters")):
            raise ValueError("it has none of cron, interval and rrule")
        return None  # `{}`, and what `prefect init` writes into a new file: no schedule
    ours: dict[str, Any] = {"name": _name(spec.get("slug"), number)}
    kind = given[0]  # in the order in which Prefect looks
    timezone = spec.get("timezone")
    if kind == "interval":
        ours["interval"] = format_duration(parse_duration(_number(spec["interval"])))
        if spec.get("anchor_date"):
            ours["anchor"] = str(spec["anchor_date"])
    elif kind == "rrule":
        rule, own_zone = _rule(spec["rrule"])
        ours["rrule"] = rule
        timezone = timezone or own_zone
        if not timezone and "TZID=" in rule.upper():
            say("follows the TZID of its DTSTART, which Prefect reads as UTC without a timezone")
    else:
        text = str(spec["cron"]).strip()
        both = _both_days(text) if str(spec.get("day_or", True)).lower() in ("false", "0") else None
        ours |= {"cron": text} if both is None else {"rrule": both}
        if both is not None:
            say(f"`day_or: false` of {text!r} is an rrule here, which means the same")
    if timezone:
        ours["timezone"] = str(timezone)
    active = spec.get("active")
    if isinstance(active, str):
        active = _TRUTH.get(active.strip().lower(), active)
    if isinstance(active, str):
        say(f"`active` is {active[:80]!r}, which is not known here: it starts paused")
    if active is not None and active is not True:
        ours["active"] = False
    if spec.get("parameters"):
        ours["parameters"] = spec["parameters"]
        if has_placeholder(spec["parameters"]):
            say("`parameters` have placeholders, which are plain text here; fill them in")
    for field in spec:
        if field not in _READ:
            say(f"Prefect knows no field `{str(field)[:80]}` in a schedule; left out")
    if spec.get("replaces"):
        say("`replaces` has no counterpart: a schedule of another name is another one; left out")
    return ours


def _name(slug: Any, number: int) -> str:
    text = re.sub(r"[\x00-\x1f\x7f/]", "-", str(slug)).strip()[:190] if slug else ""
    return text or f"schedule-{number + 1}"


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value.strip()) else value


def _rule(value: Any) -> tuple[str, Any]:
    """The rule and its time zone; Prefect also takes both as JSON."""
    text = str(value).strip()
    if text.startswith("{"):
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text, None
        return str(found.get("rrule", "")), found.get("timezone")
    return text, None


def _both_days(cron: str) -> str | None:
    """A rule for a cron expression of which day of month and weekday must both fit; None where one of them is free anyway.

    Raises:
        ValueError: the expression can not be read, or not be said as a rule.
    """
    fields = cron.split()
    if len(fields) != 5 or "*" in (fields[2], fields[4]):
        return None
    try:
        minutes, hours, days, months, weekdays = croniter.expand(cron)[0][:5]
    except (CroniterError, ValueError) as error:
        raise ValueError(f"the cron expression {cron[:80]!r}: {error}") from None
    if not all(isinstance(day, int) for day in [*days, *weekdays]) or "#" in cron or "L" in cron.upper():
        raise ValueError(f"the cron expression {cron[:80]!r} with `day_or: false` has days that are no numbers")
    parts = ["FREQ=DAILY"]
    if months != ["*"]:
        parts.append(f"BYMONTH={_joined(months)}")
    parts.append(f"BYMONTHDAY={_joined(days)}")
    parts.append("BYDAY=" + ",".join(dict.fromkeys(_WEEKDAYS[day] for day in weekdays)))
    parts.append(f"BYHOUR={_joined(range(24) if hours == ['*'] else hours)}")
    parts.append(f"BYMINUTE={_joined(range(60) if minutes == ['*'] else minutes)}")
    return ";".join([*parts, "BYSECOND=0"])


def _joined(numbers: Any) -> str:
    return ",".join(map(str, numbers))
