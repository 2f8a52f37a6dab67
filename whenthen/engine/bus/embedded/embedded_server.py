"""The embedded nats-server: a child process on loopback, its JetStream store under the data directory.

Started by the wiring of `whenthen serve` when no `--nats` is given, after `DataDir.acquire`. The child gets SIGTERM
from the kernel when this process dies (Linux), and a pid file lets the next start stop a child that survived it (an orphan).
It runs in its own process group, so that Ctrl-C does not reach it and it is stopped last.

It admits nobody without one of two logins (`engine.bus.datadir`): the engine's, and that of its system account. It has no monitoring
port, and inherits no environment.

After a failed write, because the disk was full, a stream accepts no more messages until nats-server is restarted; reads still
work. nats-server says so when it is asked for its health over the system account, and is restarted once there is free space
(docs/reliability.md, "A full disk").
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from whenthen.cancellation import end_task
from whenthen.engine.bus.datadir import APPLICATION_FILE, SYSTEM_FILE, Login, embedded_url, keep_login, write_private
from whenthen.engine.bus.disk import free_bytes
from whenthen.engine.bus.embedded.server_health import health_error
from whenthen.engine.bus.embedded.server_process import STOP_TIMEOUT_S, end_orphan, until_stopped
from whenthen.engine.bus.embedded.server_program import find_server
from whenthen.schemas.errors import Conflict, SetupError
from whenthen.supervision import bound_to

__all__ = ["EmbeddedServer", "EmbeddedSettings"]

log = logging.getLogger(__name__)

MAX_STORE_BYTES = 1 << 50  #: more than any disk has; the disk itself is watched by `engine.bus.disk`
START_TIMEOUT_S = 60.0  #: a store of many gigabytes is read before the port opens
LEAST_FREE_BYTES = 1_000_000  #: on the disk, before a server that can not write is restarted
BACKOFF_S = (0.1, 5.0)  #: first and longest pause before a child that exited is restarted
HEALTH_EVERY_S = 2.0
RESTART_PAUSE_S = 300.0  #: the longest pause after a restart for bad health
UNHEALTHY_CHECKS = 2  #: failed health checks in a row before a restart
#: of our environment, what a program of Windows does not start without; elsewhere the child has none
ENVIRONMENT = ("SYSTEMROOT",)
STABLE_S = 30.0  #: a child that lived this long is restarted with the first pause


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """Settings of the embedded server. `port` 0 selects the port of the last start, or a free one."""

    port: int = 0
    max_payload_bytes: int = 8 << 20
    sync_interval_s: int = (
        10  #: between two fsyncs; only a power cut or kernel crash loses what was written since the last
    )
    sync_always: bool = False  #: fsync before every acknowledgement
    reserve_bytes: int = 0  #: a server that can not write is restarted once half of this is free, at least 1 MB


class EmbeddedServer:
    """One nats-server child and its supervision. `start`, use `url`, `stop`."""

    def __init__(self, data_dir: Path, settings: EmbeddedSettings | None = None) -> None:
        self.directory = data_dir / "nats"
        self.settings = settings or EmbeddedSettings()
        self.port = 0
        self.restarts = 0  #: how often the child exited and was restarted
        self._name = f"whenthen-{secrets.token_hex(4)}"  # distinguishes the child from another server on the same port
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._health_watch: asyncio.Task[None] | None = None
        self._login: Login | None = None  #: the engine's
        self._system_login: Login | None = None  #: of the system account; asks for the health
        self._restarting = 0  #: id of the process that was terminated to be restarted

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def client_url(self) -> str:
        """`url` with the login; for connecting, not for showing."""
        return embedded_url(self.directory.parent)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def store(self) -> Path:
        """The folder of its streams."""
        return self.directory / "store"

    @property
    def can_freeze(self) -> bool:
        """Whether `frozen` works on this system."""
        return sys.platform == "linux"

    @property
    def log_file(self) -> Path:
        return self.directory / "nats-server.log"

    async def start(self) -> None:
        """Start the child and wait until JetStream answers.

        Raises:
            SetupError: the program is missing, the port is in use, or the server does not start; with its last error.
        """
        program = find_server()
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.directory.chmod(0o700)
            await end_orphan(self.directory)
            self._login = keep_login(self.directory / APPLICATION_FILE, "whenthen")
            self._system_login = keep_login(self.directory / SYSTEM_FILE, "system")
            self.port = self._choose_port()
            self._write_config()
            (self.directory / "port").write_text(f"{self.port}\n")
        except OSError as error:
            raise SetupError(f"{self.directory} can not be written: {error.strerror}") from error
        await self._spawn(program)
        self._supervisor = asyncio.create_task(self._supervise(program), name="nats-server supervision")
        self._health_watch = asyncio.create_task(self._watch_health(), name="nats-server health")

    async def stop(self) -> None:
        """Terminate the child, which finishes its writes; kill it after a time-out."""
        for task in (self._health_watch, self._supervisor):
            if task is not None:
                await end_task(task)
        self._health_watch = self._supervisor = None
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                log.warning("nats-server (pid %d) did not stop within %g s; killing it", process.pid, STOP_TIMEOUT_S)
                process.kill()
                await process.wait()
        (self.directory / "pid").unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Stop the child where it is, without its knowing; it goes on afterwards. Its store does not change meanwhile, and is as a
        SIGKILL would leave it.

        Raises:
            Conflict: it does not run, or does not stop.
        """
        process = self._process
        if process is None or process.returncode is not None:
            raise Conflict("the NATS server is being started again; try again in a moment")
        try:
            os.kill(process.pid, signal.SIGSTOP)
            await until_stopped(process.pid)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)

    def _choose_port(self) -> int:
        if self.settings.port:
            return self.settings.port
        last = self.directory / "port"
        try:
            return _free_port(int(last.read_text()))
        except (OSError, ValueError):
            return _free_port(0)

    def _write_config(self) -> None:
        assert self._login is not None
        assert self._system_login is not None
        sync = "always" if self.settings.sync_always else f"{self.settings.sync_interval_s}s"
        lines = [
            "# written by whenthen at every start; edits are lost",
            f"listen: 127.0.0.1:{self.port}",
            f"server_name: {self._name}",
            f"max_payload: {self.settings.max_payload_bytes}",
            # the engine's user is in the account $G, where the streams of data directories without logins are
            f"authorization {{ users: [{_user(self._login)}] }}",
            f"accounts {{ SYS {{ users: [{_user(self._system_login)}] }} }}",
            "system_account: SYS",
            "max_pending: 268435456",
            "write_deadline: 10s",
            f"log_file: {json.dumps(str(self.log_file))}",
            "logfile_size_limit: 16777216",
            "logfile_max_num: 3",
            # left out, it is 75% of what is free now, and streams whose limits add up to more are refused
            f"jetstream {{ store_dir: {json.dumps(str(self.store))}, sync_interval: {sync}, "
            f"max_file_store: {MAX_STORE_BYTES} }}",
        ]
        write_private(self.directory / "nats-server.conf", "\n".join(lines) + "\n")

    async def _spawn(self, program: Path) -> None:
        config = self.directory / "nats-server.conf"
        process = await asyncio.create_subprocess_exec(
            str(program),
            "-c",
            str(config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ and sys.platform == "win32"},
            start_new_session=True,
            preexec_fn=bound_to(os.getpid(), signal.SIGTERM) if sys.platform == "linux" else None,
        )
        self._process = process
        self._write_pid(process.pid)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not await self._ready():
            if process.returncode is not None:
                raise SetupError(f"nats-server ended at once with code {process.returncode}: {self._last_error()}")
            if time.monotonic() > deadline:
                process.kill()
                raise SetupError(f"nats-server did not come up within {START_TIMEOUT_S:g} s: {self._last_error()}")
            await asyncio.sleep(0.02)

    async def _ready(self) -> bool:
        """Whether the port is open and the server on it is this child and has JetStream."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            line = await asyncio.wait_for(reader.readline(), 2)
            info = json.loads(line.removeprefix(b"INFO "))
        except (TimeoutError, ValueError, OSError):
            return False
        finally:
            writer.close()
        ours = info.get("server_name") == self._name
        return ours and bool(info.get("jetstream")) and bool(info.get("auth_required"))

    async def _supervise(self, program: Path) -> None:
        pause = BACKOFF_S[0]
        while True:
            assert self._process is not None
            started = time.monotonic()
            code = await self._process.wait()
            if time.monotonic() - started > STABLE_S:
                pause = BACKOFF_S[0]
            if self._process.pid != self._restarting:
                log.error(
                    "nats-server (pid %d) died with code %s; starting it again on port %d in %g s: %s",
                    self._process.pid,
                    code,
                    self.port,
                    pause,
                    self._last_error(),
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, BACKOFF_S[1])
            try:
                await self._spawn(program)
            except (SetupError, OSError) as error:
                log.error("nats-server did not start again: %s", error)
                await asyncio.sleep(pause)
                continue
            self.restarts += 1
            log.warning("nats-server runs again (pid %d, port %d)", self._process.pid, self.port)

    async def _watch_health(self) -> None:
        """Restart the child when its health check reports that it can not write, once there is free space."""
        least = max(self.settings.reserve_bytes // 2, LEAST_FREE_BYTES)
        unhealthy = 0
        pause = HEALTH_EVERY_S  # doubles with each restart that did not help: some errors are not mended by one
        while True:
            await asyncio.sleep(HEALTH_EVERY_S)
            assert self._system_login is not None
            error_text = await health_error(self.url, self._system_login)
            unhealthy = unhealthy + 1 if error_text else 0
            if error_text == "":
                pause = HEALTH_EVERY_S
            process = self._process
            if unhealthy < UNHEALTHY_CHECKS or process is None:
                continue
            log.error("nats-server (pid %d) can not write any more: %s", process.pid, error_text)
            while not self._has_free(least):
                await asyncio.sleep(HEALTH_EVERY_S)
            if process.returncode is None:
                log.warning(
                    "the disk has %.1f MB free; restarting nats-server (pid %d) so that it can write again",
                    free_bytes(self.directory) / 1e6,
                    process.pid,
                )
                self._restarting = process.pid
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
                except TimeoutError:
                    process.kill()
            unhealthy = 0
            await asyncio.sleep(pause)
            pause = min(pause * 2, RESTART_PAUSE_S)

    def _has_free(self, least: int) -> bool:
        try:
            return free_bytes(self.directory) >= least
        except OSError as error:
            log.warning("the free space on the disk of %s can not be measured: %s", self.directory, error)
            return False

    def _write_pid(self, pid: int) -> None:
        try:
            (self.directory / "pid").write_text(f"{pid}\n")
        except OSError as error:  # a full disk; the file only matters to a start after this process has crashed
            log.warning("the process id of nats-server (%d) can not be written: %s", pid, error)

    def _last_error(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            return f"no log at {self.log_file}"
        telling = [line for line in lines[-20:] if "[FTL]" in line or "[ERR]" in line]
        return (telling or lines[-1:] or ["(empty log)"])[-1]


def _user(login: Login) -> str:
    return f"{{ user: {json.dumps(login.user)}, password: {json.dumps(login.password)} }}"


def _free_port(wanted: int) -> int:
    """`wanted` when it is free, else any other free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
