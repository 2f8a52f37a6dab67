"""The tasks of a process that must not end: started, started again after a failure, and ended in order.

Built by `server`. A task ends or restarts loudly: one that can not go on stops the process with its error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from whenthen.cancellation import end_task, wait_unless
from whenthen.schemas.errors import SetupError

__all__ = ["Supervisor"]

log = logging.getLogger(__name__)

HURRIED_S = 0.5  #: that a part has to hand back what it holds when nothing is waited for any more
RESTART_S = 1.0  #: until a part that failed is started again


class Supervisor:
    """Owns the tasks by name. `stopping` is set when the process is to end."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.hurry = asyncio.Event()  #: whether nothing is waited for any more
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failure: BaseException | None = None

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until it is ended here. If it ends before, the process stops."""
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._on_done(name, done))

    def start_restarting(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run `run`, again after each failure but a `SetupError`, which stops the process."""

        async def forever() -> None:
            while not self.stopping.is_set():
                try:
                    await run()
                    return
                except SetupError:
                    raise
                except Exception:
                    log.exception("%s failed and starts again", name)
                    await asyncio.sleep(RESTART_S)

        self.start(name, forever())

    async def stopped(self) -> None:
        """Wait until the process is to end.

        Raises:
            Exception: what a part could not go on for.
        """
        await self.stopping.wait()
        if self._failure is not None:
            raise self._failure

    async def end(self, name: str, grace_s: float = 0) -> None:
        """Wait until a task has ended, and cancel it after `grace_s`. One that is not there has ended."""
        task = self._tasks.pop(name, None)
        if task is None:
            return
        if grace_s:
            await wait_unless(self.hurry, [task], timeout_s=grace_s)
            if self.hurry.is_set():
                await asyncio.wait([task], timeout=min(grace_s, HURRIED_S))
        if not task.done():
            if grace_s and not self.hurry.is_set():
                log.warning("%s did not stop within %g s and is cut off", name, grace_s)
            await end_task(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._failure is None:
            log.error("%s ended with an error", name, exc_info=error)

    async def end_all(self) -> None:
        """Cancel whatever still runs, in the order in which it was started."""
        for name in list(self._tasks):
            await self.end(name)

    def _on_done(self, name: str, task: asyncio.Task[None]) -> None:
        if self.stopping.is_set() or task.cancelled():
            return
        self._failure = task.exception() or SetupError(f"{name} ended by itself")
        log.critical("%s can not go on, the process stops: %s", name, self._failure)
        self.stopping.set()
