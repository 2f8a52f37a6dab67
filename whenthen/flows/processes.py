"""One run's process group: started under a guard, stopped with TERM and then KILL, never left behind.

Called by `worker`. The guard (`guard.py`) leads the group and ends it when this process dies, however it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from whenthen.schemas.errors import SetupError

__all__ = ["ProcessGroup", "describe_exit"]

_GUARD = Path(__file__).with_name("guard.py")


class ProcessGroup:
    """A started command. Use as an asynchronous context manager: leaving it kills what is left."""

    def __init__(self, process: asyncio.subprocess.Process, grace: timedelta) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout: asyncio.StreamReader = process.stdout
        self.stderr: asyncio.StreamReader = process.stderr
        self._process = process
        self._grace = grace

    @classmethod
    async def start(cls, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], grace: timedelta) -> ProcessGroup:
        """Start the command in a group of its own.

        Raises:
            SetupError: the system refuses, such as when arguments and environment are too large.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_GUARD), str(grace.total_seconds()), *words),
                stdin=asyncio.subprocess.PIPE,  # held open for the guard: it ends the group when we are gone
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=cwd,
                env=dict(env),
                start_new_session=True,
            )
        except OSError as error:
            raise SetupError(f"the command can not be started: {error.strerror or error}") from error
        return cls(process, grace)

    @property
    def pid(self) -> int:
        """The group's id."""
        return self._process.pid

    async def wait(self) -> int:
        """The exit code; negative for a signal. Whatever the command left in its group is killed."""
        code = await self._process.wait()
        self._signal(signal.SIGKILL)
        return code

    async def stop(self) -> None:
        """Ask the group to end, and kill it when it has not after the grace period. Returns when it is gone."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), self._grace.total_seconds())
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def close_output(self) -> None:
        """Stop reading; the streams end. For pipes that a process outside the group holds open."""
        transport = self._process._transport  # type: ignore[attr-defined]
        for descriptor in (1, 2):
            if (pipe := transport.get_pipe_transport(descriptor)) is not None:
                pipe.close()

    async def __aenter__(self) -> ProcessGroup:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
