"""What is kept of the pause of a run: its key, until when it may be resumed, and which input that takes. Pure.

    {"key": "1", "since": "...", "until": "..." or null, "schema": {...} or null, "description": "..."}

`FlowRun.pause` has it while the run is Paused or Suspended. A pause that is over has its input among `FlowRun.inputs`, under its key: code
that comes to the same pause again, in a further attempt, is given the input and does not wait. Meaning: docs/flows.md, "Waiting for people".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from whenthen.schemas.base import MAX_DEPTH, is_deeper_than
from whenthen.schemas.deployments import FlowRun, RunState
from whenthen.schemas.errors import InvalidInput
from whenthen.schemas.times import format_time

__all__ = [
    "MOST_SHOWN_BYTES",
    "is_over",
    "is_paused_outside",
    "outside_pause",
    "read_pause",
    "shown_pause",
    "waits_for",
]

MAX_KEY_CHARS: Final = 200
MAX_DESCRIPTION_CHARS: Final = 4_000
MAX_SCHEMA_BYTES: Final = 32 * 1024  #: a run with its parameters, its inputs and this fits into one message
LONGEST: Final = timedelta(days=366)
MOST_SHOWN_BYTES: Final = 8 * 1024  #: of a schema in an event


def read_pause(body: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The pause that a run asks for.

    Raises:
        InvalidInput: what it asks with is none, or too large.
    """
    key, timeout_s = body.get("key"), body.get("timeout_s")
    if not isinstance(key, str) or not key or len(key) > MAX_KEY_CHARS:
        raise InvalidInput(f"the key of a pause is a text of at most {MAX_KEY_CHARS} characters", path=("key",))
    until = None
    if timeout_s is not None:
        if not isinstance(timeout_s, int | float) or not math.isfinite(timeout_s) or timeout_s < 0:
            raise InvalidInput("seconds, 0 or more", path=("timeout",))
        until = format_time(now + min(timedelta(seconds=min(timeout_s, LONGEST.total_seconds())), LONGEST))
    schema = body.get("schema")
    if schema is not None:
        if not isinstance(schema, dict):
            raise InvalidInput("the type of the input has no JSON Schema", path=("wait_for_input",))
        size = len(orjson.dumps(schema))
        if size > MAX_SCHEMA_BYTES or is_deeper_than(schema, MAX_DEPTH):
            raise InvalidInput(
                f"the JSON Schema of the type has {size:,} bytes; at most {MAX_SCHEMA_BYTES:,} and {MAX_DEPTH} levels are kept: "
                "ask for less at once",
                path=("wait_for_input",),
            )
    description = body.get("description")
    return {
        "key": key,
        "since": format_time(now),
        "until": until,
        "schema": schema,
        "description": description[:MAX_DESCRIPTION_CHARS] if isinstance(description, str) else "",
    }


def outside_pause(now: datetime, *, timeout_s: float | None = None) -> dict[str, Any]:
    """The pause of a run that somebody else halts: it takes no input."""
    return read_pause({"key": "outside", "timeout_s": timeout_s}, now) | {"key": ""}


def is_paused_outside(run: FlowRun) -> bool:
    """Whether somebody else has paused the run, which has not asked for that."""
    return run.state is RunState.PAUSED and not (run.pause or {}).get("key")


def is_over(pause: Mapping[str, Any] | None, now: datetime) -> bool:
    """Whether it is too late to resume."""
    until = (pause or {}).get("until")
    return until is not None and now >= datetime.fromisoformat(until)


def shown_pause(pause: Mapping[str, Any]) -> dict[str, Any]:
    """A pause as events have it: with its schema, unless that is large."""
    schema = pause.get("schema")
    if schema is not None and len(orjson.dumps(schema)) > MOST_SHOWN_BYTES:
        schema = None
    return {**pause, "schema": schema}


def waits_for(pause: Mapping[str, Any]) -> str:
    """For what a run waits, for people."""
    what = "waits for input" if pause["schema"] is not None else "waits to be resumed"
    return what if pause["until"] is None else f"{what}, until {pause['until']}"
