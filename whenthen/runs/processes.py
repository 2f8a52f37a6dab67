"""The process group of one run: started under a guard process, stopped with SIGTERM and then SIGKILL.

Called by `worker`. The guard (`guard.py`) leads the group and stops it when this process dies, however it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from whenthen.cancellation import end_task, wait_unless
from whenthen.schemas.errors import SetupError

__all__ = ["ProcessGroup", "describe_exit"]

_GUARD = Path(__file__).with_name("guard.py")
_BUFFER_BYTES = 64 * 1024


class _Pipes(asyncio.subprocess.SubprocessStreamProtocol):
    """Sets `exited` when the process exits. `Process.wait` of some Python versions waits for its pipes to close, too,
    which stay open while any child of the process has them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=_BUFFER_BYTES, loop=loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


class ProcessGroup:
    """A started command. Use as an asynchronous context manager: leaving it kills what is left."""

    def __init__(
        self,
        transport: asyncio.SubprocessTransport,
        pipes: _Pipes,
        grace: timedelta,
        guard: socket.socket | None = None,
    ) -> None:
        assert pipes.stdout is not None
        assert pipes.stderr is not None
        self.stdout: asyncio.StreamReader = pipes.stdout
        self.stderr: asyncio.StreamReader = pipes.stderr
        self.pid: int = transport.get_pid()  #: also the group's id
        self._transport = transport
        self._exited = pipes.exited
        self._grace = grace
        self._guard = guard

    @classmethod
    async def start(
        cls,
        words: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        grace: timedelta,
        guard_keeps: Collection[int] = (),
    ) -> ProcessGroup:
        """Start the command in a group of its own. The guard has the descriptors `guard_keeps`, too, and the command has not.

        Raises:
            SetupError: the system refuses, such as when arguments and environment are too large.
        """
        pipe = asyncio.subprocess.PIPE  # held open for the guard: it ends the group when we are gone
        transport, pipes = await _started(words, cwd=cwd, env=env, grace=grace, stdin=pipe, pass_fds=guard_keeps)
        return cls(transport, pipes, grace)

    @classmethod
    async def start_waiting(
        cls, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], grace: timedelta, control: int
    ) -> ProcessGroup:
        """Start a command that waits for a run, which has the descriptor `control`; the guard can be given others later (`keep`).

        Raises:
            SetupError: the system refuses.
        """
        ours, theirs = socket.socketpair()
        words = ["--waiting", str(control), *words]
        try:
            with theirs:
                started = await _started(
                    words, cwd=cwd, env=env, grace=grace, stdin=theirs.fileno(), pass_fds=(control,)
                )
        except BaseException:
            ours.close()
            raise
        return cls(*started, grace, ours)

    def keep(self, descriptors: Collection[int]) -> None:
        """Give the guard of a command that waited descriptors to hold for as long as it lives.

        Raises:
            OSError: it is gone.
        """
        assert self._guard is not None
        socket.send_fds(self._guard, [b"k"], list(descriptors))

    async def wait(self) -> int:
        """The exit code; negative for a signal. Whatever the command left in its group is killed."""
        await self._exited.wait()
        self._signal(signal.SIGKILL)
        code = self._transport.get_returncode()
        assert code is not None
        return code

    async def stop(self, hurry: asyncio.Event) -> None:
        """Send SIGTERM to the group, and SIGKILL after the grace period or when `hurry` is set. Returns when the command has exited."""
        self._signal(signal.SIGTERM)
        exited = asyncio.ensure_future(self._exited.wait())
        try:
            await wait_unless(hurry, [exited], timeout_s=self._grace.total_seconds())
        finally:
            await end_task(exited)
        self._signal(signal.SIGKILL)
        await self._exited.wait()

    def close_output(self) -> None:
        """Stop reading; the streams end. For pipes that a process outside the group holds open."""
        for descriptor in (1, 2):
            if (pipe := self._transport.get_pipe_transport(descriptor)) is not None:
                pipe.close()

    async def __aenter__(self) -> ProcessGroup:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._signal(signal.SIGKILL)
        await self._exited.wait()
        self._transport.close()
        if self._guard is not None:
            self._guard.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


async def _started(
    words: Sequence[str], *, cwd: Path, env: Mapping[str, str], grace: timedelta, stdin: int, pass_fds: Collection[int]
) -> tuple[asyncio.SubprocessTransport, _Pipes]:
    """A guard with its command."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.subprocess_exec(
            lambda: _Pipes(loop),
            *(sys.executable, "-I", "-S", str(_GUARD), str(grace.total_seconds()), *words),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            pass_fds=pass_fds,
        )
    except OSError as error:
        raise SetupError(f"the command can not be started: {error.strerror or error}") from error


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
