"""Threads that run engines. A run that waits for futures or for time before its function is called leaves its thread meanwhile, and a
function that waits for a future gives its place to another run. So any number of runs needs few threads, at most `limit` of which work at
a time, and runs that wait for each other do not starve.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import Context
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from whenthen.flows.clock import AlarmClock, processor_time, sleep, steady, utc_now
from whenthen.flows.execution.cancel_scope import (
    GATES,
    RAISE_IN_THREAD,
    STOPPED,
    UNHEARD_S,
    CancelScope,
    StopGate,
    Stopped,
    repeat_lost_stops,
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
NOT_STARTED = (RuntimeError, MemoryError)  #: what a thread raises that can not be started; the next item tries again
NEVER: Final = object()  #: is in no queue
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
        self.ended = False  #: or is not to begin

    def run(self, thread: int) -> None:
        """Go on with the engine, in this thread, until it ends or leaves the thread."""
        try:
            step = self.context.run(self._go_on, Stopped() if self.stopped else None)
        except Stopped as stop:  # it came between two steps
            self.thread = thread
            step = self.context.run(self._go_on, stop)
        if step is not None:
            self._leave_for(step)  # out of the context, which another thread may then enter at once

    def _go_on(self, error: BaseException | None) -> Pause | WaitFor | None:
        """Gives the step for which the engine leaves the thread."""
        WORKER.set(self.pool)
        engine = self.engine
        gate = GATES.gate
        value: Any = None
        while True:
            try:
                step = engine.send(value) if error is None else engine.throw(error)
            except StopIteration:
                self._end()
                return None
            except BaseException as broken:  # no engine raises; memory or the stack may have run out in it
                if not self.future.run.state.is_final():
                    self.future.run.state = crashed_state(broken, now=utc_now())
                self._end()
                return None
            error = value = None
            if isinstance(step, WaitFor):
                if not all(future.done() for future in step.futures):
                    return step
            elif isinstance(step, Pause):
                return step
            try:
                if isinstance(step, Call) and gate is not None:
                    with gate:
                        value = step.perform()
                else:
                    value = step.perform()
            except BaseException as raised:
                error = raised
                if gate is not None and gate.is_open:  # the stop came just before it was closed
                    gate.__exit__()

    def _end(self) -> None:
        self.thread = None
        self.future.end()
        self.ended = True

    def _leave_for(self, step: Pause | WaitFor) -> None:
        self.thread = None
        if isinstance(step, Pause):
            self.pool.later(step.seconds, self, step.scope)
            return
        count, total = itertools.count(1), len(step.futures)

        def one_less(_: PrefectFuture[Any]) -> None:
            if next(count) == total:  # `next` of a count is atomic
                self.pool.put(self)

        for future in step.futures:
            future.add_done_callback(one_less)


class Worker:
    """What one thread of a pool is at. It has a place from its beginning until it gives it to a run that wants one back."""

    __slots__ = ("gate", "hand", "has_place", "ident", "item")

    def __init__(self) -> None:
        self.ident = 0
        self.gate = StopGate()
        self.has_place = True
        self.hand: deque[WorkItem | None] = deque()  #: that which it has taken out of the queue, until it is `item`
        self.item: WorkItem | None = None  #: that which it runs, or has just run


class WorkerPool:
    """At most `limit` runs at a time in daemon threads, which are started when there is work for them.

    From one run to the next a thread takes no lock. Threads that took one for each run would come to wait for each other, and from then on
    hand it on by way of the kernel, which takes several times as long as a run.
    """

    def __init__(self, limit: int, *, name: str) -> None:
        self.limit = limit
        self.name = name
        self._first_threads = min(FIRST_THREADS, limit)
        self._reset()

    def _reset(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._place = threading.Condition(self._lock)  #: a place is free for a run that gave it away
        self._other_place = threading.Condition(self._lock)  #: a place is free for a thread that has none
        self._none_left = threading.Condition(self._lock)
        self._queue: SimpleQueue[WorkItem | None] = SimpleQueue()  #: None lets a thread that waits look around
        self._at_hand = iter(self._queue.get_nowait, NEVER)
        self._next = iter(self._queue.get, NEVER)
        self._waiting: set[Worker] = set()  #: those that wait for the queue
        self._items: set[WorkItem] = set()  #: all that have not ended
        self._workers: set[Worker] = set()
        self._free = self.limit  #: places that no thread has
        self._given_away = 0  #: runs that have given their place away
        self._returning = 0  #: those that want one again, and wait for it
        self._numbers = itertools.count(1)  #: for names
        self._threads = 0
        self._taken = 0
        self._looking = False  #: a thread looks whether there should be more
        self._alarms = AlarmClock(self.put, name=f"{self.name}-timer")
        self._closing = False  #: somebody waits until there are no items
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
        self._items.add(item)
        try:
            self.put(item)
        except NOT_STARTED:
            item.ended = True  # without having begun
            self._items.discard(item)
            raise

    def put(self, item: WorkItem) -> None:
        """`item` is new, or left its thread, and can go on."""
        self._queue.put(item)
        if self._queue.qsize() > len(self._waiting):
            self._find_thread()

    def later(self, seconds: float, item: WorkItem, scope: CancelScope) -> None:
        """Let `item` go on after `seconds`, or when its tree is cancelled."""
        self._alarms.set(seconds, item)
        if scope.cancelled:
            self._alarms.ring_all()

    @contextmanager
    def place_given_away(self) -> Iterator[None]:
        """While the run in this thread waits, another may work in its place."""
        with self._lock:
            self._free += 1
            self._given_away += 1
            self._tell_of_place()
        try:
            if self._queue.qsize() > len(self._waiting):
                self._find_thread()
            yield
        finally:
            with self._lock:
                self._given_away -= 1
                self._returning += 1
                try:
                    if self._free <= 0:
                        self._queue.put(None)  # a thread may have one and wait for the queue
                    while self._free <= 0:
                        self._place.wait()
                finally:
                    self._returning -= 1
                    self._free -= 1
                    if self._free > 0:
                        self._tell_of_place()

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
                self._closing = True
                while self._items:
                    self._none_left.wait()
        self.let_go()

    def let_go(self) -> None:
        """Threads that have nothing to do leave, and runs that wait for time go on. Does not wait; also called when the scope is cancelled,
        since whoever was to close the pool may have been stopped."""
        self._alarms.stop()
        self._closed = True
        with self._lock:
            self._other_place.notify_all()
        for _ in range(len(self._waiting)):
            self._queue.put(None)

    def _find_thread(self) -> None:
        """There is more in the queue than threads that wait for it: start one, or see how those that work go on. Called by whoever has put
        something there, and by a thread that waits no longer: of the two one sees the other. Behind a closed gate, since in CPython 3.11 a
        stop of a thread that just starts another one would go to that."""
        gate = GATES.gate
        with nullcontext() if gate is None else gate.closed():
            try:
                if self._free > 0 and self._threads < self._first_threads + self._given_away:
                    self._start(1, self._first_threads)
                elif not self._looking and self._threads < self.limit + self._given_away:
                    self._begin_to_look()
            except NOT_STARTED:
                if not self._threads:
                    raise

    def _start(self, count: int, most: int) -> None:
        """Start `count` threads, as far as there are places for them and not more than `most` besides those that have given theirs away."""
        with self._lock:
            made = [Worker() for _ in range(min(count, self._free, most + self._given_away - self._threads))]
            self._free -= len(made)
            self._threads += len(made)
            self._workers.update(made)
            names = [f"{self.name}-{next(self._numbers)}" for _ in made]
        started = 0
        try:
            for worker, name in zip(made, names, strict=True):
                threading.Thread(target=self._run, args=(worker,), name=name, daemon=True).start()
                started += 1
        finally:
            if started < len(made):
                with self._lock:
                    for worker in made[started:]:
                        self._forget(worker)

    def _forget(self, worker: Worker) -> None:
        """With the lock: its thread has ended, or was not started."""
        if worker in self._workers:
            self._workers.discard(worker)
            self._threads -= 1
            if worker.has_place:
                self._free += 1
                self._tell_of_place()

    def _tell_of_place(self) -> None:
        """With the lock: one is free. A run that wants one back comes first."""
        (self._place if self._returning else self._other_place).notify()

    def _begin_to_look(self) -> None:
        self._looking = True
        try:
            threading.Thread(target=self._look, name=f"{self.name}-more", daemon=True).start()
        except BaseException:
            self._looking = False
            raise

    def _look(self) -> None:
        """While runs are queued, and none was taken up for long or the processor is idle, since those in the threads wait for something:
        double the threads."""
        wall, used, taken = steady(), processor_time(), self._taken
        taken_at = wall
        try:
            while True:
                sleep(LOOK_S)
                if self._queue.empty() or self._threads >= self.limit + self._given_away:
                    break
                before, wall = wall, steady()
                used_before, used = used, processor_time()
                if taken != self._taken:
                    taken, taken_at = self._taken, wall
                if wall - taken_at >= UNTAKEN_S or used - used_before < IDLE_SHARE * (wall - before):
                    self._start(min(self._threads or 1, self._queue.qsize()), self.limit)
        except NOT_STARTED:
            return
        finally:
            self._looking = False
        if self._queue.qsize() > len(self._waiting):  # for what was queued meanwhile
            self._find_thread()

    def _run(self, worker: Worker) -> None:
        worker.ident = threading.get_ident()
        while True:
            try:
                if worker in self._waiting:
                    self._waits_no_more(worker)
                self._work_until_closed(worker)
                return
            except Stopped:  # it came before or after a run; what is queued has yet to hear that the tree is cancelled
                continue

    def _work_until_closed(self, worker: Worker) -> None:
        """Take up one item after the other, until the pool is closed.

        A stop that comes late may be raised at any call. So an item goes from the queue into the hand within one operation, and from there
        on without a call; and whatever is found half done at the beginning of the loop is done.
        """
        GATES.gate = worker.gate = StopGate()
        own, hand, items = worker.ident, worker.hand, self._items
        while True:
            before = worker.item
            if before is not None:
                if before.ended:
                    items.discard(before)
                    if self._closing and not items:
                        with self._lock:
                            self._none_left.notify_all()
                elif before.thread == own:  # a stop came outside of the engine, which hears of it when run again
                    before.stopped = True
                    before.run(own)
                    continue
                worker.item = before = None  # it may be the last to hold something of the user's
            if not hand:
                if (self._returning or not worker.has_place) and not self._gets_place_again(worker):
                    self._leave(worker)
                    return
                try:
                    hand += islice(self._at_hand, 1)
                except Empty:
                    self._waiting.add(worker)
                    if self._closed and self._queue.empty():
                        self._leave(worker)
                        return
                    hand += islice(self._next, 1)
                    self._waits_no_more(worker)
            item = hand[0]
            if item is None or item.ended:
                hand.clear()
                continue
            item.thread = own
            worker.item = item
            del hand[0]
            self._taken += 1
            item.run(own)
            del item

    def _waits_no_more(self, worker: Worker) -> None:
        self._waiting.discard(worker)
        if self._queue.qsize() > len(self._waiting):
            self._find_thread()

    def _leave(self, worker: Worker) -> None:
        with self._lock:
            self._forget(worker)
        self._waits_no_more(worker)
        if self._waiting:  # one tells the other
            self._queue.put(None)

    def _gets_place_again(self, worker: Worker) -> bool:
        """Give the thread's place to a run that wants one back, and wait for another; False when the pool was closed meanwhile."""
        with self._lock:
            if self._returning and worker.has_place:
                self._place.notify()
                worker.has_place = False
                self._free += 1
            if not worker.has_place:
                while self._free <= self._returning:
                    if self._closed:
                        return False
                    self._other_place.wait()
                self._free -= 1
                worker.has_place = True
        return True

    def _stop_all(self) -> None:
        """Tell all threads to stop, and wait for them for `GRACE_S`.

        No function of Python is called in the loop (so `StopGate.stop` is spelt out): in CPython 3.11, when an exception is under way to
        one thread, a thread that is traced (by a debugger, by coverage) stands still at its next call until the other has heard, which may
        wait for a lock or for a third thread that was not told yet.
        """
        own = threading.get_ident()
        limit = steady() + GRACE_S
        repeat_lost_stops()
        self._alarms.ring_all()
        tell_at: dict[
            tuple[int, int], float
        ] = {}  #: when a thread is told to stop what it runs; never again once it was
        pause = STOP_LOOK_S / 32
        while (now := steady()) < limit:
            gates: list[tuple[tuple[int, int], StopGate]] = []
            with self._lock:
                if not self._items:
                    return
                for worker in self._workers:
                    run = worker.ident, id(worker.item)
                    if worker.item is None or worker.ident == own:
                        continue
                    coroutine = (
                        worker.gate.coroutine
                    )  # one that was begun since: a stop is lost in the callback of a weak reference
                    if tell_at.get(run, now) <= now or (coroutine is not None and not coroutine.asked):
                        tell_at[run] = math.inf
                        gates.append((run, worker.gate))
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
            busy = [worker.item for worker in self._workers if worker.ident != own]
        abandoned = [item.future.run.name for item in busy if item is not None and not item.ended]
        if abandoned:
            from whenthen.flows.execution.run_logging import engine_logger

            engine_logger().warning(
                "%d task runs did not stop within %s seconds and are abandoned: they wait in code that is not Python: %s",
                len(abandoned),
                GRACE_S,
                ", ".join(abandoned[:10]),
            )
