"""Pauses and resumes of automations as messages in `EVENTS`, for whoever evaluates or replays the log.

A flag of the bucket `WT_state` is what people see; the message decides. It is published after the flag was stored, with the flag's version, and a
flag whose message is missing, as after a crash between the two, gets it from the next process that looks. Meaning: docs/architecture.md, "Pauses".
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.request_client import refusal
from whenthen.engine.bus.streams import EVENTS
from whenthen.engine.bus.subjects import PAUSES, header_id, pause_subject
from whenthen.schemas.automations import PauseChange

__all__ = ["NatsPauseLog", "PauseLog", "PlacedChange", "changes_before"]

_AT_ONCE = 1000
_NO_MESSAGE = 10037  #: error code: no message found


class PlacedChange(NamedTuple):
    """A change and its position in `EVENTS`."""

    seq: int
    change: PauseChange


class PauseLog(Protocol):
    """Every operation may end with `BusUnavailable`."""

    async def last(self, automation: str) -> PauseChange | None:
        """The last change of an automation that the log keeps."""

    async def tell(self, change: PauseChange) -> None:
        """Append a change; the same one again within the log's memory is not appended again."""


class NatsPauseLog:
    """The `PauseLog` in `EVENTS`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def last(self, automation: str) -> PauseChange | None:
        """See `PauseLog.last`. The stream's leader answers."""
        request = {"last_by_subj": pause_subject(automation)}
        answer = await self._bus.client.api(f"STREAM.MSG.GET.{EVENTS}", request)
        error = answer.get("error")
        if error is None:
            try:
                return PauseChange.decode(base64.b64decode(answer["message"].get("data", "")))
            except ValueError:  # of somebody else
                return None
        if error.get("err_code") == _NO_MESSAGE:
            return None
        raise refusal(f"stream {EVENTS} can not be read", error)

    async def tell(self, change: PauseChange) -> None:
        """See `PauseLog.tell`."""
        name = f"pause-{change.automation}-{change.version}"
        await self._bus.store(pause_subject(change.automation), change.encode(), header_id(name))

    async def all(self, automation: str | None = None) -> list[PlacedChange]:
        """The changes that the log keeps, of one automation or of all, ascending."""
        found: list[PlacedChange] = []
        seq = 0
        more = True

        def receive(message: Delivery) -> None:
            nonlocal seq
            seq = int(message.headers["Nats-Sequence"])
            changes: list[PauseChange] = []
            _take(message, changes)
            found.extend(PlacedChange(seq, change) for change in changes)

        subject = PAUSES if automation is None else pause_subject(automation)
        while more:
            request = {"seq": seq + 1, "next_by_subj": subject, "batch": _AT_ONCE}
            more = await self._bus.client.read_stored(EVENTS, request, receive)
        return found


def changes_before(position: int, placed: Iterable[PlacedChange], now: Iterable[PauseChange] = ()) -> list[PauseChange]:
    """How automations stood when the log had come to a position, one change each.

    That is the newest change before; where none is kept, what the first one behind says was before it; where there is none at all, what
    holds `now`.
    """
    before: dict[str, PauseChange] = {}
    behind: dict[str, PauseChange] = {}
    for seq, change in placed:
        name = change.automation
        if seq <= position:
            if name not in before or change.version > before[name].version:
                before[name] = change
        else:
            behind.setdefault(name, change.before())
    known = {change.automation: change for change in now}
    return [change for change in {**known, **behind, **before}.values() if change.paused]


def _take(message: Delivery, found: list[PauseChange]) -> None:
    try:
        found.append(PauseChange.decode(message.data))
    except ValueError:  # of somebody else: shards pass it over, too
        return
