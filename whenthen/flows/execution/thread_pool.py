"""Threads that run engines. A run that waits for futures or for time before its function is called leaves its thread meanwhile, and a
function that waits for a future gives its place to another run. So any number of runs needs few threads, at most `limit` of which work at
a time, and runs that wait for each other do not starve.
"""

from __future__ import annotations

import heapq
import itertools
import math
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any

from whenthen.flows.clock import processor_time, sleep, steady, utc_now
from whenthen.flows.execution.cancel_scope import (
    GATES,
    RAISE_IN_THREAD,
    STOPPED,
    UNHEARD_S,
    CancelScope,
    StopGate,
    Stopped,
)
from whenthen.flows.execution.run_contexts import WORKER
from whenthen.flows.execution.steps import Call, Pause, WaitFor
from whenthen.flows.futures.future import PrefectFuture
from whenthen.flows.states.outcomes import crashed_state

if TYPE_CHECKING:
    from whenthen.flows.execution.task_engine import TaskCall

__all__ = ["WorkItem", "WorkerPool"]

FIRST_THREADS = 4  #: are started as soon as there is work for them; further ones as the processor is found idle
LOOK_S = 0.002  #: how often that is looked for while runs are queued
UNTAKEN_S = 0.05  #: threads that take nothing up for so long work on something long; it is more than a turn of each at the interpreter's lock
IDLE_SHARE = 0.6  #: below this share of one processor, which is what threads of Python share, more threads are of use
STOP_LOOK_S = 0.02  #: how often, at last, it is looked whether threads that were told to stop have ended
GRACE_S = 2.0  #: how long a cancelled pool waits for threads that were told to stop, before it abandons them


class WorkItem:
    """One submitted run: an engine, its context, and the future that it ends."""

    __slots__ = ("call", "context", "ended", "engine", "future", "pool", "stopped", "thread")

    def __init__(self, call: TaskCall, context: Context, future: PrefectFuture[Any], pool: WorkerPool) -> None:
        self.call = call
        self.engine = call.steps()
        self.context = context
        self.future = future
        self.pool = pool
        self.thread: int | None = None  #: in which the engine is; None while it waits outside, and when it has ended
        self.stopped = False  #: its thread was told to stop before the engine could hear of it
        self.ended = False

    def run(self, thread: int) -> None:
        """Go on with the engine, in this thread, until it ends or leaves the thread."""
        try:
            self.context.run(self._go_on, Stopped() if self.stopped else None)
        except Stopped as stop:  # it came between two steps
            self.thread = thread
            self.context.run(self._go_on, stop)

    def _go_on(self, error: BaseException | None) -> None:
        WORKER.set(self.pool)
        engine = self.engine
        gate = GATES.gate
        value: Any = None
        while True:
            try:
                step = engine.send(value) if error is None else engine.throw(error)
            except StopIteration:
                self._end()
                return
            except BaseException as broken:  # no engine raises; memory or the stack may have run out in it
                if not self.future.run.state.is_final():
                    self.future.run.state = crashed_state(broken, now=utc_now())
                self._end()
                return
            error = value = None
            if isinstance(step, WaitFor):
                if self._leaves_until_ended(step.futures):
                    return
            elif isinstance(step, Pause):
                self.thread = None
                self.pool.later(step.seconds, self, step.scope)
                return
            try:
                if isinstance(step, Call) and gate is not None:
                    with gate:
                        value = step.perform()
                else:
                    value = step.perform()
            except BaseException as raised:
                error = raised

    def _end(self) -> None:
        self.thread = None
        self.future.end()
        self.ended = True

    def _leaves_until_ended(self, futures: list[PrefectFuture[Any]]) -> bool:
        pending = [future for future in futures if not future.done()]
        if not pending:
            return False
        self.thread = None
        count, total = itertools.count(1), len(pending)

        def one_less(_: PrefectFuture[Any]) -> None:
            if next(count) == total:  # `next` of a count is atomic
                self.pool.put(self)

        for future in pending:
            future.add_done_callback(one_less)
        return True


class WorkerPool:
    """At most `limit` runs at a time in daemon threads, which are started when there is work for them."""

    def __init__(self, limit: int, *, name: str) -> None:
        self.limit = limit
        self.name = name
        self._first_threads = min(FIRST_THREADS, limit)
        self._reset()

    def _reset(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  #: something is queued, and there is a place for it
        self._place = threading.Condition(self._lock)  #: a place is free for who gave it away
        self._none_left = threading.Condition(self._lock)
        self._alarm_set = threading.Condition(self._lock)
        self._queue: deque[WorkItem] = deque()
        self._items: set[WorkItem] = set()  #: all that have not ended
        self._busy: dict[int, WorkItem] = {}  #: by thread
        self._gates: dict[int, StopGate] = {}  #: by thread
        self._free = self.limit  #: places in which no run works
        self._idle = 0  #: threads that wait for work
        self._given_away = 0  #: threads that have given their place away
        self._returning = 0  #: those of them that want one again
        self._started = 0  #: for names
        self._threads = 0
        self._taken = 0
        self._looking = False  #: a thread looks whether there should be more
        self._alarms: list[tuple[float, int, WorkItem]] = []
        self._alarm_numbers = itertools.count()
        self._timer_runs = False
        self._closed = False

    def submit(self, call: TaskCall, context: Context, future: PrefectFuture[Any]) -> None:
        if self.pid != os.getpid():  # a fork has none of the parent's threads
            self._reset()
        item = WorkItem(call, context, future, self)
        gate = GATES.gate
        if gate is None:
            self._add(item)
        else:
            with gate.closed():  # of a flow that may be out of time: a run is submitted whole or not at all
                self._add(item)

    def _add(self, item: WorkItem) -> None:
        """Queue a new item. The lock is taken only where a thread is to be found for it: most threads that submit and work at the same time
        would else wait for each other. A thread that goes to sleep says so before it looks at the queue for the last time."""
        self._items.add(item)
        self._queue.append(item)
        threads, given_away = self._threads, self._given_away
        if (
            self._idle
            or self._returning
            or threads < self._first_threads + given_away
            or (not self._looking and threads < self.limit + given_away)
        ):
            with self._lock:
                self._wake()

    def put(self, item: WorkItem) -> None:
        """`item`, which left its thread, can go on."""
        with self._lock:
            self._queue.append(item)
            self._wake()

    def later(self, seconds: float, item: WorkItem, scope: CancelScope) -> None:
        """Let `item` go on after `seconds`, or when its tree is cancelled."""
        with self._lock:
            heapq.heappush(self._alarms, (steady() + seconds, next(self._alarm_numbers), item))
            if not self._timer_runs:
                self._timer_runs = True
                threading.Thread(target=self._ring, name=f"{self.name}-timer", daemon=True).start()
            self._alarm_set.notify()
        if scope.cancelled:
            self._ring_all()

    @contextmanager
    def place_given_away(self) -> Iterator[None]:
        """While the run in this thread waits, another may work in its place."""
        with self._lock:
            self._free += 1
            self._given_away += 1
            self._wake()
        try:
            yield
        finally:
            with self._lock:
                self._returning += 1
                try:
                    while self._free <= 0:
                        self._place.wait()
                finally:
                    self._returning -= 1
                    self._given_away -= 1
                    self._free -= 1
                    self._wake()

    def drop_what_was_not_begun(self) -> None:
        for item in list(self._items):
            item.call.dropped = True

    def unfinished(self) -> list[PrefectFuture[Any]]:
        return [item.future for item in list(self._items) if not item.ended]

    def close(self, *, cancel: bool) -> None:
        """Wait until everything that was submitted has ended, and let the threads go.

        With `cancel`, when the caller has cancelled the scope: what was not begun ends as cancelled, and running threads are told to
        stop. Those that do not within `GRACE_S` are abandoned.
        """
        if self.pid != os.getpid():
            return
        if cancel:
            self._stop_all()
        with self._lock:
            if not cancel:
                while self._items:
                    self._none_left.wait()
        self.let_go()

    def let_go(self) -> None:
        """Threads that have nothing to do leave, and runs that wait for time go on. Does not wait; also called when the scope is cancelled,
        since whoever was to close the pool may have been stopped."""
        self._ring_all()
        with self._lock:
            self._closed = True
            self._idle = 0
            self._work.notify_all()
            self._alarm_set.notify()

    def _wake(self) -> None:
        """With the lock: find a thread for what is queued, if there is a place."""
        if self._returning and self._free > 0:
            self._place.notify()
        elif self._queue and self._free > 0:
            if self._idle:
                self._idle -= 1
                self._work.notify()
            elif self._threads < self._first_threads + self._given_away:
                self._start()
            elif not self._looking and self._threads < self.limit + self._given_away:
                self._looking = True
                threading.Thread(target=self._look, name=f"{self.name}-more", daemon=True).start()

    def _start(self) -> None:
        self._started += 1
        self._threads += 1
        threading.Thread(target=self._run, name=f"{self.name}-{self._started}", daemon=True).start()

    def _look(self) -> None:
        """While runs are queued, and none was taken up for long or the processor is idle, since those in the threads wait for something:
        double the threads."""
        wall, used, taken = steady(), processor_time(), self._taken
        taken_at = wall
        try:
            while True:
                sleep(LOOK_S)
                with self._lock:
                    if not self._queue or self._threads >= self.limit + self._given_away:
                        self._looking = False
                        self._wake()  # for what was queued meanwhile
                        return
                    before, wall = wall, steady()
                    used_before, used = used, processor_time()
                    if taken != self._taken:
                        taken, taken_at = self._taken, wall
                    if wall - taken_at >= UNTAKEN_S or used - used_before < IDLE_SHARE * (wall - before):
                        for _ in range(
                            min(
                                self._threads or 1,
                                len(self._queue),
                                self._free,
                                self.limit + self._given_away - self._threads,
                            )
                        ):
                            self._start()
        except BaseException:  # no thread can be started: the next item tries again
            with self._lock:
                self._looking = False
            raise

    def _run(self) -> None:
        own = threading.get_ident()
        while True:
            try:
                self._work_until_closed(own)
                return
            except Stopped:  # it came before or after a run; what is queued has yet to hear that the tree is cancelled
                continue

    def _work_until_closed(self, own: int) -> None:
        """Take up one item after the other, until the pool is closed.

        From one item to the next nothing is called and no loop goes round while the lock is held: there alone a thread is made to wait for
        others, which would then all come to wait for the lock, and there alone a stop is raised that comes late. So an item is taken up or
        given back whole.
        """
        GATES.gate = self._gates[own] = StopGate()
        before: WorkItem | None = (
            None  #: let go of without the lock: it may be the last to hold something of the user's
        )
        while True:
            with self._lock:
                if own in self._busy:
                    before = self._busy[own]
                    if before.ended:
                        self._items -= {before}
                        if not self._items:
                            self._none_left.notify_all()
                    if self._returning:
                        self._place.notify()
                    if (
                        not before.ended and before.thread == own
                    ):  # a stop came outside of the engine, which hears of it when run again
                        before.stopped = True
                        self._queue += (before,)
                    del self._busy[own]
                    self._free += 1
                while not self._queue or self._free <= 0:
                    if self._closed:
                        self._threads -= 1
                        return
                    self._idle += 1  # whoever wakes it takes it out
                    if self._queue and self._free > 0:  # put there without the lock
                        self._idle -= 1
                    else:
                        self._work.wait()
                item = self._queue[0]
                self._taken += 1
                self._free -= 1
                self._busy[own] = item
                item.thread = own
                del self._queue[0]
            before = None
            item.run(own)

    def _stop_all(self) -> None:
        """Tell all threads to stop, and wait for them for `GRACE_S`.

        No function of Python is called in the loop (so `StopGate.stop` is spelt out): in CPython 3.11, when an exception is under way to
        one thread, a thread that is traced (by a debugger, by coverage) stands still at its next call until the other has heard, which may
        wait for a lock or for a third thread that was not told yet.
        """
        own = threading.get_ident()
        limit = steady() + GRACE_S
        self._ring_all()
        with self._lock:
            self._wake()
        tell_at: dict[
            tuple[int, int], float
        ] = {}  #: when a thread is told to stop what it runs; never again once it was
        pause = STOP_LOOK_S / 32
        while (now := steady()) < limit:
            gates: list[tuple[tuple[int, int], StopGate]] = []
            with self._lock:
                if not self._items:
                    return
                for ident, item in self._busy.items():
                    run = ident, id(item)
                    if ident != own and tell_at.get(run, now) <= now:
                        tell_at[run] = math.inf
                        gates.append((run, self._gates[ident]))
            for run, gate in gates:  # coroutines before others: that is a call
                coroutine = gate.coroutine
                if coroutine is not None and not coroutine.asked:
                    coroutine.ask()
                    tell_at[run] = now + UNHEARD_S
            for run, gate in gates:
                with gate.lock:
                    if tell_at[run] < math.inf:
                        pass
                    elif not gate.is_open:
                        gate.requested = True
                    elif gate.coroutine is None or not gate.coroutine.heard:
                        RAISE_IN_THREAD(gate.ident, STOPPED)
            sleep(pause)
            pause = min(2 * pause, STOP_LOOK_S)
        with self._lock:
            busy = list(self._busy.items())
        abandoned = [item.future.run.name for ident, item in busy if ident != own]
        if abandoned:
            from whenthen.flows.execution.run_logging import engine_logger

            engine_logger().warning(
                "%d task runs did not stop within %s seconds and are abandoned: they wait in code that is not Python: %s",
                len(abandoned),
                GRACE_S,
                ", ".join(abandoned[:10]),
            )

    def _ring(self) -> None:
        with self._lock:
            while not self._closed:
                now = steady()
                if not self._alarms:
                    self._alarm_set.wait()
                elif self._alarms[0][0] > now:
                    self._alarm_set.wait(self._alarms[0][0] - now)
                else:
                    self._queue.append(heapq.heappop(self._alarms)[2])
                    self._wake()

    def _ring_all(self) -> None:
        with self._lock:
            while self._alarms:
                self._queue.append(heapq.heappop(self._alarms)[2])
                self._wake()
