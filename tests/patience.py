"""How long the tests wait for what must happen, in one place.

A limit in a test says how long a thing may take on an idle machine. The wait is longer by `FACTOR`, because a machine that runs the
tests may do a lot besides; a test that passes never waits for its limit.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["FACTOR", "SERVER_SETTINGS", "eventually", "limit", "until"]

FACTOR = float(
    os.environ.get("WHENTHEN_TEST_PATIENCE", "5")
)  #: WHENTHEN_TEST_PATIENCE=1 fails soon, for work on one test
T = TypeVar("T")
#: of the servers of tests: one whose NATS is slow answers 503 only after a longer time
SERVER_SETTINGS = {"WHENTHEN_PUBLISH_TIMEOUT": f"{5 * FACTOR:g}s"}


def limit(seconds: float) -> float:
    """The seconds after which a wait gives up that takes at most `seconds` on an idle machine."""
    return seconds * FACTOR


def eventually(look: Callable[[], T], *, within_s: float = 20.0, every_s: float = 0.03) -> T:
    """What `look` gives once it is true; fails when it is not within the `limit`."""
    deadline = time.monotonic() + limit(within_s)
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {limit(within_s):g} s; last seen: {found!r}"
        time.sleep(every_s)
    return found


async def until(
    condition: Callable[[], Awaitable[object]],
    *,
    within_s: float = 20.0,
    what: str = "the condition",
    every_s: float = 0.05,
) -> None:
    """Wait until `await condition()` is true; fails with `what` when it is not within the `limit`."""
    deadline = time.monotonic() + limit(within_s)
    while not await condition():
        assert time.monotonic() < deadline, f"not within {limit(within_s):g} s: {what}"
        await asyncio.sleep(every_s)
