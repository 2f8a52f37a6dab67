"""Firings: their deterministic ids, times, keys and lineage. Pure.

Called by `triggers.firing_outcomes` and `triggers.windowing`. Meaning: docs/rules.md, "Loops".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from whenthen.schemas.events import Event
from whenthen.schemas.firings import Firing, FiringState, Ref
from whenthen.triggers.trees.trigger_nodes import Composite, Leaf
from whenthen.triggers.window_keys import parse_key_text

__all__ = ["LOOP_STOPPED", "Cause", "make_firing", "make_plain_firing", "reports_stop_of"]

#: name of the event that reports a stopped chain of firings
LOOP_STOPPED = "automation.loop-stopped"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Cause:
    """What made a node fire: an event, or a deadline."""

    event: Event | None
    depth: int
    at_us: int
    due_us: int = 0
    opened_by: str = ""  #: id of the event that opened the window whose deadline passed


def make_plain_firing(
    leaf: Leaf, key: str, refs: tuple[Ref, ...], event: Event, *, depth: int, at_us: int, lineage: int
) -> Firing:
    """As `make_firing`, for one event without window or state: the most frequent case, kept fast."""
    automation = leaf.automation
    name = automation.name
    data = event.data
    before = data["lineage"].get("automations", ())[-lineage:] if data.get("lineage") else ()
    came, computed = (data, None) if type(event) is Event else (event.came, event.computed)
    return Firing(
        id=_firing_id(automation.id, key, FiringState.TRIGGERED, data["id"]),
        automation=name,
        state=FiringState.TRIGGERED,
        at=_format_us(at_us),
        key=leaf.keys.mapping(key) if leaf.keys.expressions else {},
        event=came,
        seq=event.seq,
        refs=refs,
        total=len(refs),
        depth=depth + 1,
        automations=(*before, name),
        trace=data.get("trace"),
        computed=computed,
    )


def make_firing(
    node: Leaf | Composite,
    key: str,
    state: FiringState,
    refs: Sequence[Ref],
    cause: Cause,
    *,
    at_us: int,
    edge: bool,
    lineage: int,
    total: int,
) -> Firing:
    """The firing of an automation whose outermost trigger is `node`.

    `total` is the number of contributing events, of which `refs` are the newest. The lineage keeps the last `lineage`
    automations. `edge` says whether the firing changed the Triggered state.
    """
    automation = node.automation
    event = cause.event
    before = (event.data.get("lineage") or {}).get("automations", ()) if event is not None else ()
    what = event.data["id"] if event is not None else ""
    if cause.due_us:
        what += f"{cause.opened_by}@{cause.due_us}"
    if isinstance(node, Composite):
        what += "|" + ",".join(ref.id for ref in refs)
    return Firing(
        id=_firing_id(automation.id, key, state, what),
        automation=automation.name,
        state=state,
        at=_format_us(at_us),
        key=_key_mapping(node, key),
        event=None if event is None else event.came,
        seq=0 if event is None else event.seq,
        refs=tuple(refs),
        total=total,
        depth=cause.depth + 1,
        automations=(*before[-lineage:], automation.name),
        edge=edge,
        trace=None if event is None else event.data.get("trace"),
        computed=None if event is None else event.computed,
    )


def reports_stop_of(event: Event, automation: str) -> bool:
    """Whether the event reports a stopped chain that this automation is part of."""
    return event.name == LOOP_STOPPED and automation in (event.data.get("lineage") or {}).get("automations", ())


def _key_mapping(node: Leaf | Composite, key: str) -> dict[str, Any]:
    if isinstance(node, Leaf):
        return node.keys.mapping(key)
    if not node.correlated:
        return {}
    leaf: Leaf | Composite = node
    while isinstance(leaf, Composite):
        leaf = leaf.parts[0]
    return dict(zip(leaf.keys.expressions[: node.correlated], parse_key_text(key), strict=True))


def _firing_id(trigger: str, key: str, state: FiringState, what: str) -> str:
    """32 hexadecimal digits from the trigger, the key, the state and the event or deadline that completed it."""
    text = f"{trigger}\0{key}\0{state}\0{what}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _format_us(us: int) -> str:
    second, rest = divmod(us, 1_000_000)
    return f"{_format_second(second)}.{rest:06}Z"


@lru_cache(maxsize=4096)
def _format_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat()[:19]
