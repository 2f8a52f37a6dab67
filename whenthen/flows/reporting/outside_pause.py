"""A run that somebody pauses from outside: it waits where it next begins a task or a flow. Its worker says so with a file beside its socket,
so that a run which nobody pauses pays a look at the file system for each task, and no question."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from whenthen.flows.execution.reporter import REPORTER, ask
from whenthen.flows.execution.run_logging import engine_logger
from whenthen.flows.execution.steps import Step
from whenthen.flows.flow_errors import NeedsServer, ServerError

__all__ = ["WaitWhilePaused", "is_pause_asked"]

KIND: Final = "wait_while_paused"


def is_pause_asked() -> bool:
    """Whether the worker says that the run is to pause."""
    file: str | None = getattr(REPORTER.get(), "pause_file", None)
    return file is not None and os.access(file, os.F_OK)  # which costs half of `exists`, as nothing is raised


class WaitWhilePaused(Step):
    """Wait until somebody resumes the run."""

    __slots__ = ()

    def perform(self) -> None:
        try:
            ask(KIND, {})
        except (NeedsServer, ServerError) as error:  # nobody is there who could resume it
            engine_logger().warning("the run was to be paused, and goes on: %s", error)

    async def perform_async(self) -> None:
        await asyncio.to_thread(self.perform)
