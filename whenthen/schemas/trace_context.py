"""The trace that an event is part of (W3C Trace Context): read from headers, carried as a small object, written as headers.

    {"id": "4bf92f3577b34da6a3ce929d0e0e4736", "parent": "00f067aa0ba902b7", "flags": "01", "state": "vendor=t61rcWkgMzE"}

An event has it in its field `trace`, a firing and a flow run likewise. A trace is taken, kept and sent
on, each action as a new parent; `engine.spans` makes spans of it. Specification: W3C Trace Context level 2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = [
    "TRACE_HEADERS",
    "child_trace",
    "derived_trace",
    "is_sampled",
    "read_trace",
    "span_id",
    "trace_headers",
    "valid_trace",
]

TRACE_HEADERS: Final = ("traceparent", "tracestate")

#: characters of a `tracestate` that are kept, which is what the specification asks of everybody
MAX_STATE: Final = 512
#: longer members of a list that is too long are left out first
_LONG_MEMBER = 128
_MAX_MEMBERS = 32
#: sampled, and random trace id; other bits have no meaning yet and are not sent on
_KNOWN_FLAGS = 0x03
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")


def read_trace(parents: Sequence[str], states: Sequence[str]) -> dict[str, str] | None:
    """The trace that the `traceparent` and `tracestate` headers of a request name, in the order in which they came.

    None without a `traceparent`, with several, or with one that is malformed: a request is never refused for it. A `tracestate` that is
    malformed is left out, one that is too long is shortened by whole members.
    """
    if len(parents) != 1:
        return None
    found = _PARENT.fullmatch(parents[0].strip(" \t"))
    if found is None:
        return None
    version, trace_id, parent, flags, more = found.groups()
    # later versions may have more behind it, this one has not
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not parent.strip("0"):
        return None
    trace = {"id": trace_id, "parent": parent, "flags": f"{int(flags, 16) & _KNOWN_FLAGS:02x}"}
    state = _state(states)
    if state:
        trace["state"] = state
    return trace


def valid_trace(value: Any) -> dict[str, str] | None:
    """The trace that a stored event has, if it is one: other programs may write to the stream, too."""
    if not isinstance(value, dict):
        return None
    parts = [value.get(name) for name in ("id", "parent", "flags")]
    if not all(isinstance(part, str) for part in parts):
        return None
    state = value.get("state")
    return read_trace(["00-" + "-".join(map(str, parts))], [state] if isinstance(state, str) else [])


def derived_trace(name: str) -> dict[str, str]:
    """A trace of its own for what no request began, the same for the same `name`: a firing's id is its trace's id.

    It says "sampled", as a tracer that begins a trace by itself would: one that reads "not sampled" records nothing.
    """
    is_id = _TRACE_ID.fullmatch(name) and name.strip("0")
    trace_id = name if is_id else hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return {"id": trace_id, "parent": span_id(name), "flags": "01"}


def is_sampled(trace: Mapping[str, str]) -> bool:
    """Whether whoever began the trace wants its spans recorded."""
    return bool(int(trace["flags"], 16) & 1)


def child_trace(trace: dict[str, str], name: str) -> dict[str, str]:
    """The same trace with another parent, made of `name`: a repetition under the same name is the same."""
    return {**trace, "parent": span_id(name)}


def span_id(name: str) -> str:
    """The id of the span that is about what has this name."""
    return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8, person=b"parent").hexdigest()


def trace_headers(trace: dict[str, str]) -> dict[str, str]:
    """The headers that send a trace on."""
    headers = {"traceparent": f"00-{trace['id']}-{trace['parent']}-{trace['flags']}"}
    if trace.get("state"):
        headers["tracestate"] = trace["state"]
    return headers


def _state(states: Sequence[str]) -> str:
    if sum(map(len, states)) > 16 * MAX_STATE:
        return ""
    members = [member for member in (part.strip(" \t") for text in states for part in text.split(",")) if member]
    if len(members) > _MAX_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    if len({member.partition("=")[0] for member in members}) < len(members):
        return ""
    size = sum(map(len, members)) + len(members) - 1
    if size > MAX_STATE:
        members = [member for member in members if len(member) <= _LONG_MEMBER]
        while members and sum(map(len, members)) + len(members) - 1 > MAX_STATE:
            members.pop()
    return ",".join(members)
