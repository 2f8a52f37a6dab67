"""Pause flags of automations, and requests to forget windows of absent ones: stored in the KV bucket `WT_state`, shared by all processes, read every second.

Implements `actions.ports.Automations`. A change of a flag is also told in the log of events (`pausing.pause_log`), at whose position evaluators
take it. The flags are what people see, and by the wall clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from whenthen.engine.process.pausing.pause_log import PauseLog
from whenthen.engine.process.rule_registry import RuleRegistry
from whenthen.runs import Flag, FlagStore
from whenthen.schemas.automations import PauseChange
from whenthen.schemas.errors import Conflict, WhenthenError
from whenthen.schemas.times import format_time, parse_us

__all__ = ["FORGET_PREFIX", "AutomationPauses"]

log = logging.getLogger(__name__)

_PREFIX = "automation/"
FORGET_PREFIX = "forget/"  #: of flags that ask for the windows of an absent trigger to be forgotten; the note says since when it is absent
_REFRESH_S = 1.0
_CLEAR_EVERY_S = 20.0  #: while there are requests to forget windows
_TRIES = 20


class AutomationPauses:
    """Pauses and resumes automations."""

    def __init__(
        self,
        store: FlagStore,
        rule_registry: RuleRegistry,
        *,
        changed: Callable[[set[str]], None],
        orphans: Callable[[], Awaitable[Mapping[str, int]]],
        pause_log: PauseLog | None = None,
    ) -> None:
        """`changed` is told what is paused; `orphans` gives the ids of absent triggers of all shards, and since when they are away. Without
        `pause_log` this process tells nobody: it may not, and others do."""
        self.paused: set[str] = set()  #: among them pauses that have ended
        self.ends: dict[str, int] = {}  #: of pauses that end by themselves
        self._pause_log = pause_log
        self._told: dict[str, Flag] = {}  #: flags that the log of events is known to have, by automation
        self._flags: dict[str, Flag] = {}  #: of all automations of which there is one
        self._shown: set[str] = set()
        self.resumed: dict[str, int] = {}  #: when each automation was last resumed, by the clock of whoever did it
        self._store = store
        self._rule_registry = rule_registry
        self._changed = changed
        self._orphans = orphans
        self._forgets: dict[str, int] = {}
        self._clear_at = 0.0
        self._forget: Callable[[dict[str, int]], None] | None = None

    def on_forget(self, listener: Callable[[dict[str, int]], None]) -> None:
        """Call `listener` at each reading with what was ever asked to be forgotten: trigger id, and since when it is absent."""
        self._forget = listener

    def current(self) -> dict[str, Flag]:
        """The pauses that hold now, by automation; also of those that are not in the rules at the moment."""
        now = datetime.now(UTC)
        return {name: flag for name, flag in self._flags.items() if _holds(flag, now)}

    def changes(self) -> list[PauseChange]:
        """The pauses that are set, ended or not, as changes."""
        return [_change(name, flag, 0, before=None) for name, flag in self._flags.items() if flag.paused]

    async def pause(self, name: str, *, until: datetime | None = None, reason: str = "", by: str = "") -> None:
        """Pause the automation: it does not fire, before `until` if that is given. Raises `NotFound`."""
        self._rule_registry.automation(name)
        end = "" if until is None else format_time(until)
        await self._set(
            name, Flag(paused=True, changed=format_time(datetime.now(UTC)), until=end, reason=reason, by=by)
        )

    async def resume(self, name: str) -> None:
        """Resume the automation: it is evaluated again, also when it was set aside. Raises `NotFound`."""
        self._rule_registry.automation(name)
        await self._set(name, Flag(paused=False, changed=format_time(datetime.now(UTC))))

    async def refresh(self) -> None:
        """Read the stored flags."""
        flags = await self._store.all()
        self._flags = {key.removeprefix(_PREFIX): flag for key, flag in flags.items() if key.startswith(_PREFIX)}
        ends: dict[str, int] = {}
        for name, flag in self._flags.items():
            if not flag.paused:
                self.resumed[name] = parse_us(flag.changed)
            elif flag.until:
                ends[name] = parse_us(flag.until)
        # nothing is awaited in between: an evaluator sees the pause with its end
        self.ends.clear()
        self.ends.update(ends)
        self.paused.clear()
        self.paused.update(name for name, flag in self._flags.items() if flag.paused)
        self._show()
        self._forgets = {
            key.removeprefix(FORGET_PREFIX): int(flag.note)
            for key, flag in flags.items()
            if key.startswith(FORGET_PREFIX) and flag.note.isdecimal()
        }
        if self._forget is not None and self._forgets:
            self._forget(self._forgets)

    async def settle(self) -> None:
        """Tell the log of events about each flag of which it does not know: of an earlier version, or of a process that died in between.

        Raises:
            BusUnavailable: not all are told.
        """
        if self._pause_log is None:
            return
        for name, flag in list(self._flags.items()):
            if self._told.get(name) == flag:
                continue
            last = await self._pause_log.last(name)
            found = await self._store.get(_PREFIX + name)
            if found is None:
                continue
            flag, version = found
            if last is None and flag.paused:
                # who stored it told nobody, so it holds for what is not evaluated yet, too
                await self._pause_log.tell(_change(name, flag, version, before=flag))
            elif last is not None and (
                last.version < version or (last.paused, last.until) != (flag.paused, flag.until)
            ):
                # it was told before the flag was read: of a higher version it is of another bucket than today's
                before = Flag(paused=last.paused, changed="", until=last.until)
                await self._pause_log.tell(_change(name, flag, max(version, last.version + 1), before=before))
            self._told[name] = flag

    async def clear_forgotten(self) -> None:
        """Remove the requests to forget windows that are forgotten, or were given back to their trigger."""
        if not self._forgets:
            return
        away = await self._orphans()
        for trigger, since_us in self._forgets.items():
            if away.get(trigger) == since_us:
                continue
            found = await self._store.get(FORGET_PREFIX + trigger)
            if found is not None and found[0].note == str(since_us):
                with contextlib.suppress(Conflict):  # asked for again meanwhile
                    await self._store.delete(FORGET_PREFIX + trigger, found[1])

    def report(self) -> None:
        """Tell again which automations are paused, as when others are in force."""
        self._shown = set(self.current())
        self._changed(self._shown)

    def _show(self) -> None:
        now = set(self.current())
        for name in sorted(self._shown - now):
            if self._flags[name].paused:
                log.info("the pause of automation %s has ended; it is evaluated again", name)
        if now != self._shown:
            self._shown = now
            self._changed(now)

    async def run(self) -> None:
        """Refresh every second until cancelled."""
        while True:
            try:
                await self.refresh()
                await self.settle()
                if self._forgets and time.monotonic() >= self._clear_at:
                    self._clear_at = time.monotonic() + _CLEAR_EVERY_S
                    await self.clear_forgotten()
            except WhenthenError as error:
                log.debug("pause flags of automations were not read: %s", error)
            await asyncio.sleep(_REFRESH_S)

    async def _set(self, name: str, flag: Flag) -> None:
        key = _PREFIX + name
        for _ in range(_TRIES):
            found = await self._store.get(key)
            try:
                version = await self._store.put(key, flag, found[1] if found else 0)
                break
            except Conflict:
                continue
        else:
            raise Conflict(f"the pause flag of automation {name!r} keeps changing; try again")
        if self._pause_log is not None:
            await self._tell(self._pause_log, name, flag, version, before=found[0] if found else None)
        await self.refresh()

    async def _tell(self, pause_log: PauseLog, name: str, flag: Flag, version: int, *, before: Flag | None) -> None:
        last = await pause_log.last(name)
        if last is not None and last.version >= version:
            newest = await self._store.get(_PREFIX + name)
            if newest is None or newest[1] != version:
                return  # whoever changed it since tells
            version = last.version + 1  # the bucket was made again and counts from the beginning
        await pause_log.tell(_change(name, flag, version, before=before))
        self._told[name] = flag


def _change(name: str, flag: Flag, version: int, *, before: Flag | None) -> PauseChange:
    return PauseChange(
        automation=name,
        paused=flag.paused,
        until=flag.until,
        version=version,
        was_paused=before is not None and before.paused,
        was_until=before.until if before is not None else "",
        reason=flag.reason,
        by=flag.by,
    )


def _holds(flag: Flag, now: datetime) -> bool:
    return flag.paused and (not flag.until or format_time(now) < flag.until)
