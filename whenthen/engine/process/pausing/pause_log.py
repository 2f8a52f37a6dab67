"""Pauses and resumes of automations as messages in `EVENTS`, for whoever evaluates or replays the log.

A flag of the bucket `WT_state` is what people see; the message decides. It is published after the flag was stored, with the flag's version, and a
flag whose message is missing, as after a crash between the two, gets it from the next process that looks. Meaning: docs/architecture.md, "Pauses".
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from whenthen.engine.bus.connection import Bus
from whenthen.engine.bus.protocol import Delivery
from whenthen.engine.bus.request_client import refusal
from whenthen.engine.bus.streams import EVENTS
from whenthen.engine.bus.subjects import PAUSES, header_id, pause_subject
from whenthen.schemas.automations import PauseChange

__all__ = ["NatsPauseLog", "PauseLog", "Standing"]

_AT_ONCE = 1000
_NO_MESSAGE = 10037  #: error code: no message found


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

    async def standing(
        self, position: int, now: Iterable[PauseChange], automation: str | None = None
    ) -> list[PauseChange]:
        """The pauses that held when the log had come to a position, of one automation or of all; see `Standing`."""
        found = Standing(position)
        seq = 0
        more = True

        def receive(message: Delivery) -> None:
            nonlocal seq
            seq = int(message.headers["Nats-Sequence"])
            with suppress(ValueError):  # of somebody else: shards pass it over, too
                found.add(seq, PauseChange.decode(message.data))

        subject = PAUSES if automation is None else pause_subject(automation)
        while more:
            request = {"seq": seq + 1, "next_by_subj": subject, "batch": _AT_ONCE}
            more = await self._bus.client.read_stored(EVENTS, request, receive)
        return found.pauses(now)


class Standing:
    """How automations stood when the log had come to a position. Held are two changes of each automation, however many there were.

    An automation stood as the newest change before says; where none is kept, as the first one behind says that it was before; where there is
    none at all, as it does now.
    """

    def __init__(self, position: int) -> None:
        self._position = position
        self._before: dict[str, PauseChange] = {}
        self._behind: dict[str, PauseChange] = {}

    def add(self, seq: int, change: PauseChange) -> None:
        """The next change of the log."""
        name = change.automation
        if seq > self._position:
            self._behind.setdefault(name, change.before())
        elif name not in self._before or change.version > self._before[name].version:
            self._before[name] = change

    def pauses(self, now: Iterable[PauseChange]) -> list[PauseChange]:
        """The pauses that held. `now` are those that hold after the last change."""
        known = {change.automation: change for change in now}
        return [change for change in {**known, **self._behind, **self._before}.values() if change.paused]
