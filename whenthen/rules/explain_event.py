"""`whenthen explain` without a server: the clause tree of one automation for one event. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import orjson

from whenthen.rules.folder import Rules
from whenthen.schemas.errors import InvalidInput, NotFound, did_you_mean
from whenthen.schemas.events import Event, EventLimits, read_event
from whenthen.schemas.times import format_time, parse_time, to_us
from whenthen.schemas.trace_context import valid_trace
from whenthen.sources import event_of_cloudevent, is_cloudevent
from whenthen.triggers import compile_automation
from whenthen.triggers.explaining import Clause, explain_automation

__all__ = ["explain_event"]

#: what a stored event has beside the fields that one may send
_STORED = ("received", "source", "lineage", "trace", "seq")


def explain_event(rules: Rules, automation: str, raw: bytes, *, now: datetime) -> Clause:
    """Explain an event given as JSON, as it would be sent or as it is stored. One without a time occurred `now`.

    `now` in its conditions is the time when it was received, else when it occurred, as in a replay.

    Raises:
        NotFound: no such automation; lists near names.
        InvalidInput: not an event; names the field.
    """
    found = next((item for item in rules.automations if item.name == automation), None)
    if found is None:
        hint = did_you_mean(automation, [item.name for item in rules.automations])
        raise NotFound(f"there is no automation {automation!r} in these rules{hint}")
    try:
        data: Any = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the event is not JSON: {error}") from None
    event, moment = _event(data, now)
    return explain_automation(compile_automation(found), event, now_us=to_us(moment))


def _event(data: Any, now: datetime) -> tuple[Event, datetime]:
    """The event, and the time at which its conditions are evaluated."""
    stored: dict[str, Any] = {}
    if is_cloudevent(data):
        data = event_of_cloudevent(data)
    elif isinstance(data, dict):
        stored = {name: data[name] for name in _STORED if name in data}
        data = {name: value for name, value in data.items() if name not in _STORED}
    limits = EventLimits(ahead=timedelta(days=36500))
    event = read_event(
        data,
        now=now,
        source=str(stored.get("source", "explain")),
        trace=valid_trace(stored.get("trace")),
        limits=limits,
    )
    if isinstance(lineage := stored.get("lineage"), dict):
        event.data["lineage"] = lineage
    moment = parse_time(event.data["occurred"])
    if (received := stored.get("received")) is not None:
        try:
            moment = parse_time(received if isinstance(received, str) else orjson.dumps(received).decode())
        except ValueError as error:
            raise InvalidInput(str(error), path=("received",)) from None
        event.data["received"] = format_time(moment)
    return event, moment
