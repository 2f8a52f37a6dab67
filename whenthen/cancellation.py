"""Ending tasks and waiting for events without losing a cancellation. Called by the loops of `runs` and `engine`.

`asyncio.wait_for` of Python 3.11 forgets a cancellation that comes as what it waits for is done, and nats-py
swallows one while it flushes; a loop that was cancelled at such a moment would run for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

__all__ = ["end_task", "until_all_end", "until_one_ends", "wait_event", "wait_unless"]

log = logging.getLogger(__name__)

AGAIN_S = 1.0


async def wait_event(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait until `event` is set, at most `timeout_s`; whether it is."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True


async def wait_unless(hurry: asyncio.Event, tasks: Iterable[asyncio.Future[Any]], *, timeout_s: float) -> None:
    """Wait until all `tasks` have ended, at most `timeout_s`, and not when `hurry` is set."""
    left = {task for task in tasks if not task.done()}
    deadline = asyncio.get_running_loop().time() + timeout_s
    hurried = asyncio.ensure_future(hurry.wait())
    try:
        while left and not hurry.is_set() and (wait_s := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait({hurried, *left}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            left = {task for task in left if not task.done()}
    finally:
        await end_task(hurried)


async def end_task(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, again those that did not take notice, and wait until they have ended.

    What one of them fails with meanwhile, such as with a connection that goes at that moment, is logged: its end is what was asked for, and
    few callers look at it. asyncio would tell of it as an exception that was never retrieved.
    """
    ended = left = [task for task in tasks if not task.done()]
    while left:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_S)
        left = [task for task in left if not task.done()]
    for task in ended:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("a task failed as it was ended: %r", error)


async def until_one_ends(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until the first of them ends, and cancel the others; raises what it failed with."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end_and_look(tasks)
    await asyncio.gather(*done)


async def until_all_end(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all until they have ended; when one fails the others are cancelled, and it is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _end_and_look(tasks)


async def _end_and_look(tasks: Sequence[asyncio.Future[None]]) -> None:
    """End tasks, and look at the failure of each: of several that failed one is raised, and none where the caller is cancelled as one
    fails."""
    await end_task(*tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
