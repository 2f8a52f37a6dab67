"""Which automations does a shard evaluate no more, because what comes of them can not be stored? And who is told?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from whenthen.engine.bus.records import Message
from whenthen.engine.evaluation.commits.commit_messages import MessageEncoder
from whenthen.engine.evaluation.commits.window_parts import MAX_WINDOW_BYTES
from whenthen.engine.evaluation.loop_ports import EventEvaluator, Observer
from whenthen.engine.evaluation.loop_stopped import set_aside_event
from whenthen.schemas.events import Event
from whenthen.schemas.firings import Firing
from whenthen.schemas.times import from_us

__all__ = ["AutomationsAside"]

log = logging.getLogger(__name__)


class AutomationsAside:
    """Of one shard; what it gives is an event that the commit stores. `position`: the last one that was evaluated."""

    def __init__(
        self,
        shard: int,
        evaluator: EventEvaluator,
        observer: Observer,
        *,
        position: Callable[[], int],
        wall_us: Callable[[], int],
    ) -> None:
        self._shard = shard
        self._evaluator = evaluator
        self._observer = observer
        self._position = position
        self._wall_us = wall_us
        self._told: list[str] = []  #: what the observer was last told

    def set_aside(self, automation: str, detail: str, windows: Iterable[tuple[str, str]] = ()) -> Event:
        """Evaluate an automation no more; gives the event that says so."""
        at_us = self._wall_us()
        log.error("shard %d: automation %s is set aside: %s", self._shard, automation, detail)
        self._evaluator.set_aside(automation, detail, at_us=at_us, windows=windows)
        self.tell()
        return set_aside_event(automation, detail, position=self._position(), now=from_us(at_us))

    def for_firing(self, firing: Firing, size: int, *, largest: int) -> Event:
        """Evaluate an automation no more, of whose firing a message is too large for the server."""
        detail = (
            f"a message of its firing {firing.id} would have {size} bytes, and the NATS server takes {largest}; "
            "make its actions and key values smaller, or raise max_payload"
        )
        return self.set_aside(firing.automation, detail)

    def changed_windows(self, encoder: MessageEncoder, notices: list[Event]) -> list[Message]:
        """The windows that changed. One that is too large for anything sets its automation aside and is forgotten; `notices` get the
        event that says so."""
        windows = self._evaluator.drain()
        large: dict[str, list[tuple[str, str]]] = {}
        for trigger, key, state in windows:
            if state is not None and len(state) > MAX_WINDOW_BYTES:
                large.setdefault(self._evaluator.owner(trigger) or "", []).append((trigger, key))
        for automation, names in large.items():
            if automation:
                detail = (
                    f"a window of its key {names[0][1][:200]!r} has more than {MAX_WINDOW_BYTES} bytes and was dropped; "
                    "shorten `within`, or divide the events by `for_each`"
                )
                notices.append(self.set_aside(automation, detail, names))
                windows = [window for window in windows if window[:2] not in names]
        if large:
            windows += self._evaluator.drain()
        remains_us = self._evaluator.remains_us
        return [
            encoder.window(trigger, key, state, remains_us=None if state else remains_us(trigger))
            for trigger, key, state in windows
        ]

    def give_back(self) -> None:
        """Evaluate those again that were resumed."""
        for name in self._evaluator.give_back():
            log.info("shard %d: automation %s was resumed and is evaluated again", self._shard, name)
        self.tell()

    def tell(self) -> None:
        """Tell the observer which automations are set aside, if they are others than it was told."""
        names = sorted(self._evaluator.aside)
        if names != self._told:
            self._told = names
            self._observer.set_aside(self._shard, dict(self._evaluator.aside))
