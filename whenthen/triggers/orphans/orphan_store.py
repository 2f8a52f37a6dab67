"""The windows of triggers that are not in the rule set at hand, so that no rule set can lose what another one knows.

The windows stay where they are stored, unchanged. One record for each absent trigger is stored beside them, under the trigger id
`orphan` with the absent id as its key: [since, automation, keys, bytes]. `since` is the first value of the shard's clock after the
trigger left; until that value is known the orphan is unsettled. Windows are kept as encoded, since nothing reads them.

Kept for `kept_us` of the shard's clock. Of one shard at most `max_windows` and `max_bytes` are kept: beyond, the trigger that has
been away the longest is forgotten first, of several the largest.

Owned by `triggers.shard_state`. Meaning: docs/rules.md, "Editing a rule keeps its memory".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from whenthen.schemas.times import from_us

__all__ = ["MAX_BYTES", "MAX_WINDOWS", "Orphan", "OrphanStore"]

MAX_WINDOWS = 1_000_000  #: of one shard
MAX_BYTES = 512 * 2**20  #: of one shard, of keys and states as encoded
_NEVER = 2**63


@dataclass(slots=True)
class Orphan:
    """One absent trigger and its windows. `since_us` is 0 while unsettled; `automation` is empty when nobody knew its name."""

    id: str
    automation: str = ""
    since_us: int = 0
    recorded: bool = False  #: whether its record is stored
    size_bytes: int = 0
    windows: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def record(self) -> list[Any]:
        """What is stored of it beside the windows."""
        return [self.since_us, self.automation, len({key for _, key in self.windows}), self.size_bytes]


class OrphanStore:
    """The absent triggers of one shard, those that came back and are not settled yet, and what changed."""

    ID = "orphan"  #: the trigger id under which the records are stored

    __slots__ = (
        "_away",
        "_bytes",
        "_changed",
        "_kept_us",
        "_max_bytes",
        "_max_windows",
        "_requested",
        "_returned",
        "_windows",
        "due_us",
    )

    def __init__(self, *, kept_us: int, max_windows: int = MAX_WINDOWS, max_bytes: int = MAX_BYTES) -> None:
        self.due_us = _NEVER  #: when `settle` must be called at the latest; 0 while anything is unsettled
        self._kept_us = kept_us
        self._max_windows = max_windows
        self._max_bytes = max_bytes
        self._away: dict[str, Orphan] = {}
        self._returned: dict[str, None] = {}
        self._requested: set[str] = set()
        self._changed: dict[tuple[str, str], None] = {}
        self._windows = 0
        self._bytes = 0

    # -- loading and swapping

    def restore(self, orphan_id: str, record: list[Any], *, known: bool) -> None:
        """Load a stored record; `known` says whether the trigger is in the rules, and so has come back."""
        self.due_us = 0
        if known:
            self._returned[orphan_id] = None
            return
        orphan = self._away.setdefault(orphan_id, Orphan(orphan_id))
        orphan.since_us, orphan.automation, orphan.recorded = record[0], record[1], True

    def add(self, orphan_id: str, trigger: str, key: str, state: bytes, *, automation: str = "", changed: bool) -> None:
        """Keep a window. `changed` says whether its state is still to be stored."""
        orphan = self._away.get(orphan_id)
        if orphan is None:
            orphan = self._away[orphan_id] = Orphan(orphan_id)
        orphan.automation = automation or orphan.automation
        orphan.windows[(trigger, key)] = state
        size = len(key) + len(state)
        orphan.size_bytes += size
        self._bytes += size
        self._windows += 1
        self.due_us = 0
        if changed:
            self._changed[(trigger, key)] = None

    def give_back(self, orphan_id: str) -> list[tuple[str, str, bytes, bool]]:
        """The windows of a trigger that came back: trigger, key, state, and whether the state is still to be stored."""
        orphan = self._remove(orphan_id)
        if orphan.since_us or orphan.recorded:
            self._returned[orphan_id] = None
        self.due_us = 0
        windows = []
        for (trigger, key), state in orphan.windows.items():
            changed = (trigger, key) in self._changed
            self._changed.pop((trigger, key), None)
            windows.append((trigger, key, state, changed))
        return windows

    def ids(self) -> list[str]:
        """The ids of the absent triggers."""
        return list(self._away)

    def has_returned(self, orphan_id: str) -> bool:
        """Whether the trigger came back since `settle` was called last."""
        return orphan_id in self._returned

    def __len__(self) -> int:
        return self._windows

    # -- the clock

    def settle(self, now_us: int) -> tuple[list[str], list[str]]:
        """Note since when triggers are away, and forget what was kept long enough.

        Gives the ids that came back since the last call, and what became of absent triggers, in sentences.
        """
        returned = sorted(self._returned)
        self._returned = {}
        for orphan_id in returned:
            self._changed[(self.ID, orphan_id)] = None
        notes = []
        for orphan in sorted(self._away.values(), key=lambda each: each.id):
            if not orphan.windows:
                self._forget(orphan)
            elif not orphan.since_us:
                orphan.since_us = now_us
                notes.append(f"{_windows_of(orphan)} are kept: it is not in the rules")
                self._changed[(self.ID, orphan.id)] = None
            elif orphan.id in self._requested:
                notes.append(f"{self._forget(orphan)}: on request")
            elif orphan.since_us + self._kept_us <= now_us:
                notes.append(f"{self._forget(orphan)}: kept for {self._kept_us / 1e6:g} s (orphans_kept)")
        self._requested.clear()
        if self._windows > self._max_windows or self._bytes > self._max_bytes:
            for orphan in sorted(self._away.values(), key=lambda each: (each.since_us, -each.size_bytes, each.id)):
                if self._windows <= self._max_windows and self._bytes <= self._max_bytes:
                    break
                notes.append(
                    f"{self._forget(orphan)}: more than {self._max_windows} windows or {self._max_bytes} bytes are orphans"
                )
        self.due_us = min((orphan.since_us + self._kept_us for orphan in self._away.values()), default=_NEVER)
        return returned, notes

    def next_due_us(self) -> int | None:
        """When the clock must move for `settle`; None when nothing is kept."""
        return None if self.due_us == _NEVER else self.due_us

    def request_forget(self, requests: Mapping[str, int]) -> None:
        """Let `settle` forget absent triggers: by id, those that are away since the given time and not since another."""
        for orphan_id, since_us in requests.items():
            orphan = self._away.get(orphan_id)
            if orphan is not None and orphan.since_us == since_us:
                self._requested.add(orphan_id)
                self.due_us = 0

    # -- changes

    def pending(self) -> int:
        return len(self._changed)

    def drain(self) -> list[tuple[str, str, bytes | None]]:
        """Windows and records changed since the last call, with their states; None for what was forgotten."""
        changes: list[tuple[str, str, bytes | None]] = []
        for trigger, key in self._changed:
            if trigger == self.ID:
                orphan = self._away.get(key)
                changes.append((trigger, key, None if orphan is None else orjson.dumps(orphan.record())))
                if orphan is not None:
                    orphan.recorded = True
            else:
                orphan = self._away.get(orphan_id_of(trigger))
                changes.append((trigger, key, None if orphan is None else orphan.windows.get((trigger, key))))
        self._changed = {}
        return changes

    def _forget(self, orphan: Orphan) -> str:
        self._remove(orphan.id)
        for name in orphan.windows:
            self._changed[name] = None
        self._changed[(self.ID, orphan.id)] = None
        since = f", away since {from_us(orphan.since_us).isoformat()}," if orphan.since_us else ""
        return f"{_windows_of(orphan)}{since} are forgotten"

    def _remove(self, orphan_id: str) -> Orphan:
        orphan = self._away.pop(orphan_id)
        self._windows -= len(orphan.windows)
        self._bytes -= orphan.size_bytes
        return orphan


def _windows_of(orphan: Orphan) -> str:
    named = f"automation {orphan.automation!r} (trigger {orphan.id})" if orphan.automation else f"trigger {orphan.id}"
    return f"{len(orphan.windows)} windows of {named}"


def orphan_id_of(trigger: str) -> str:
    """The id of the automation's whole trigger, from that of any of its records."""
    return trigger.partition("~")[0].partition(".")[0]
