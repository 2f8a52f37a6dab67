"""Which of the tasks that wait to be performed goes next: the oldest whose target has a free slot. No clock, no tasks.

Called by the execution loop. At most `concurrency` tickets run, of one target at most `at_once`; a target that hangs takes its
own share of the slots and no more. A slot that becomes free wakes exactly those who may use it, so a hundred that
wait cost the one that ends no more than one does.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable

from whenthen.engine.execution.circuit_breaker import CircuitBreaker, CircuitBreakerSettings

__all__ = ["ConcurrencyLimits", "Ticket"]


class Ticket:
    """A task at its target: it waits, runs, or has left."""

    __slots__ = ("breaker", "number", "probe", "running", "target", "waiting", "wake")

    def __init__(
        self, number: int, target: str, breaker: CircuitBreaker, probe: bool, wake: Callable[[], None]
    ) -> None:
        self.number = number  #: in the order of arrival
        self.target = target
        self.breaker = breaker
        self.probe = probe
        self.wake = wake  #: called once when a ticket that had to wait runs, unless it has left
        self.waiting = True
        self.running = False


class ConcurrencyLimits:
    """The tasks that run, and those that wait for a slot."""

    def __init__(self, concurrency: int, limits: CircuitBreakerSettings | None = None) -> None:
        self.concurrency = concurrency
        self.limits = limits or CircuitBreakerSettings()
        self.breakers: dict[str, CircuitBreaker] = {}  #: by target: those with tasks or failures in a row
        self.running = 0
        self._numbers = itertools.count()
        self._lines: dict[str, deque[Ticket]] = {}  #: who waits, oldest first; those who left are passed over later
        #: the first of each line whose target has a free slot, by age. Its number is that of a ticket that was the first
        #: once: the line may have moved on
        self._next: list[tuple[int, str]] = []
        self._listed: set[str] = set()  #: the targets in `_next`

    def refuse_s(self, target: str, now: float) -> float:
        """0 when a task may wait for a slot here, else the delay in seconds with which it should be returned (nak)."""
        breaker = self.breakers.get(target)
        return 0.0 if breaker is None else breaker.refuse_s(self.limits, now)

    def enter(self, target: str, wake: Callable[[], None]) -> Ticket:
        """A ticket that runs already, or waits and is woken when it does. `leave` with it, whatever happens."""
        breaker = self.breakers.get(target)
        if breaker is None:
            breaker = self.breakers[target] = CircuitBreaker()
        probe = bool(breaker.open_s) and not breaker.probing
        if probe:
            breaker.probing = True
        ticket = Ticket(next(self._numbers), target, breaker, probe, wake)
        breaker.waiting += 1
        if self.running < self.concurrency and breaker.waiting == 1 and breaker.running < self.limits.at_once:
            self._begin(ticket)  # nobody older could go: a free slot never waits for anybody
        else:
            self._lines.setdefault(target, deque()).append(ticket)
            self._list(target, breaker)
        return ticket

    def leave(self, ticket: Ticket, *, succeeded: bool | None, now: float) -> None:
        """The ticket's task is done or given up, whether it ran or still waited; its slot goes to whoever is next.

        `succeeded` None says nothing about the target (it was interrupted, or never tried).
        """
        breaker = ticket.breaker
        if ticket.probe:
            breaker.probing = False
        if ticket.running:
            ticket.running = False
            breaker.running -= 1
            self.running -= 1
            if succeeded is not None:
                breaker.record(self.limits, succeeded=succeeded, now=now)
            self._list(ticket.target, breaker)
        elif ticket.waiting:
            ticket.waiting = False
            breaker.waiting -= 1
            if not breaker.waiting:
                self._lines.pop(ticket.target, None)
        else:
            return
        if breaker.idle:
            self.breakers.pop(ticket.target, None)
        self._admit()

    def _begin(self, ticket: Ticket) -> None:
        ticket.waiting = False
        ticket.running = True
        ticket.breaker.waiting -= 1
        ticket.breaker.running += 1
        self.running += 1

    def _list(self, target: str, breaker: CircuitBreaker) -> None:
        """Put the target into `_next` if a task waits for it and it has a free slot."""
        if breaker.waiting and breaker.running < self.limits.at_once and target not in self._listed:
            self._listed.add(target)
            heapq.heappush(self._next, (self._first(target).number, target))

    def _first(self, target: str) -> Ticket:
        line = self._lines[target]
        while not line[0].waiting:
            line.popleft()
        return line[0]

    def _admit(self) -> None:
        """Let run who may, oldest first."""
        while self._next and self.running < self.concurrency:
            number, target = heapq.heappop(self._next)
            self._listed.discard(target)
            breaker = self.breakers.get(target)
            if breaker is None or not breaker.waiting or breaker.running >= self.limits.at_once:
                continue
            ticket = self._first(target)
            if ticket.number != number:
                self._list(target, breaker)  # whoever was the first has left; others may be older than the next
                continue
            self._lines[target].popleft()
            self._begin(ticket)
            if not breaker.waiting:
                del self._lines[target]
            self._list(target, breaker)
            ticket.wake()
