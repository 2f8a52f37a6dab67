"""One function for sync and async callers, as Prefect has it: `Variable.get("x")` gives the value, and in an async run a coroutine of it.

Everything of the SDK that may wait for a server is written once, blocking, and goes through here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, TypeVar

from whenthen.flows.execution.reporter import REPORTER, SILENT, answers, ask
from whenthen.flows.execution.run_contexts import in_async_run, place_given_away
from whenthen.flows.flow_errors import NeedsServer

__all__ = ["asked", "connected", "in_thread", "sync_or_awaited"]

T = TypeVar("T")


def sync_or_awaited(call: Callable[[], Any]) -> Any:
    """What `call` gives; in an async run, or in a running event loop outside of runs, a coroutine of it."""
    return in_thread(call) if in_async_run() else call()


async def in_thread(call: Callable[[], T]) -> T:
    """What `call` gives, without keeping the event loop from other work."""
    return await asyncio.to_thread(call)


def connected(kind: str | None = None) -> bool:
    """Whether there is somebody who hears of runs; with a kind, who answers such requests: a reporter, else the server at `WHENTHEN_URL`."""
    if kind is None or REPORTER.get() is not SILENT:
        return REPORTER.get() is not SILENT if kind is None else answers(kind)
    if not os.environ.get("WHENTHEN_URL"):
        return False
    from whenthen.flows.services.connected.server_answers import is_answered_over_http  # it imports much

    return is_answered_over_http(kind)


def asked(kind: str, body: dict[str, Any], *, otherwise: NeedsServer | None = None) -> Any:
    """The server's answer. Another run may have this one's place meanwhile.

    Raises:
        NeedsServer: no reporter connects the run to a server, and no address leads to one. `otherwise` is raised then; a caller that looked before leaves it out.
    """
    if otherwise is not None and not connected(kind):
        raise otherwise
    with place_given_away():
        if REPORTER.get() is SILENT and os.environ.get("WHENTHEN_URL"):
            from whenthen.flows.services.connected.server_answers import answer_over_http, is_answered_over_http

            if is_answered_over_http(kind):
                return answer_over_http(kind, body)
        return ask(kind, body)
